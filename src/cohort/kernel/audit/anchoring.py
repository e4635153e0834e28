"""What an anchor is: another place that keeps the log's checkpoints, so that whoever changes the log would have to change that place too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cohort.base.errors import CohortError, Retry

Prove = Callable[[int], list[bytes]]
"""The consistency proof from a former size to that of the checkpoint which is sent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """`receipt`: what shows that the place has it; for a witness the note with its cosignature."""

    detail: str
    receipt: str


class Anchor(Protocol):
    """One place."""

    @property
    def name(self) -> str: ...

    def send(self, note: str, size: int, prove: Prove) -> Sent:
        """Hand over a checkpoint of that size; it is there durably when this returns. Errors: ANCHOR_FAILED."""
        ...

    def notes(self) -> Sequence[str] | None:
        """The checkpoints it vouches for; None where it cannot be asked. Errors: ANCHOR_FAILED."""
        ...


def failed(name: str, why: str, hint: str) -> CohortError:
    return CohortError("ANCHOR_FAILED", f"{name} {why}", retry=Retry.SAFE, hint=hint)
