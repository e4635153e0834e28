"""What an anchor is: another place that keeps the log's checkpoints, so that whoever changes the log would have to change that place too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cohort.base.errors import CohortError, Retry

Prove = Callable[[int], list[bytes]]
"""The consistency proof from a former size to that of the checkpoint which is sent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """`receipt`: what shows that the place has it; for a witness the note with its cosignature. `recorded`: what of it the log records."""

    detail: str
    receipt: str
    recorded: str | None = None


class Anchor(Protocol):
    """One place."""

    @property
    def name(self) -> str: ...
    @property
    def pause_s(self) -> float:
        """How long it is left alone after it has taken a checkpoint, unless somebody asks for it."""
        ...

    def send(self, note: str, size: int, prove: Prove) -> Sent:
        """Hand over a checkpoint of that size; it is there durably when this returns. Errors: ANCHOR_FAILED."""
        ...

    def notes(self) -> Sequence[str] | None:
        """The checkpoints it vouches for; None where it cannot be asked. Errors: ANCHOR_FAILED."""
        ...


@runtime_checkable
class Dated(Protocol):
    """A place that says in its own words since when it vouches for what. Errors: ANCHOR_FAILED."""

    def said(self) -> str: ...


def failed(name: str, why: str, hint: str) -> CohortError:
    return CohortError("ANCHOR_FAILED", f"{name} {why}", retry=Retry.SAFE, hint=hint)
