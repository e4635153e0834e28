"""The way out of a sandbox, as the sandbox knows it: `egress.py` has the real one, `compose` connects them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Fund:
    """What pays for the bytes that pass, slice by slice. `draw`: takes up to so many bytes and says how many there were, 0 when there are
    no more; may block, and raises CohortError when it cannot say. `give_back`: what was drawn and did not pass; never raises.
    """

    draw: Callable[[int], int]
    give_back: Callable[[int], None]


UNLIMITED = Fund(lambda wanted_bytes: wanted_bytes, lambda _left_bytes: None)
"""For tests, and for whoever counts elsewhere."""


class Listener(Protocol):
    """A proxy that listens inside one sandbox."""

    @property
    def bytes_used(self) -> int: ...

    def close(self) -> None: ...


class Proxy(Protocol):
    """Lets commands reach the named hosts and nothing else."""

    def listen(
        self, pid: int, hosts: Sequence[str], budget_bytes: int, on_decision: Callable[[Any], None], fund: Fund = UNLIMITED
    ) -> Listener:
        """Listen on 127.0.0.1:3128 in the network namespace of `pid`. Errors: SANDBOX_UNAVAILABLE."""
        ...


def unfunded(workspace: str, most_bytes_per_day: int) -> Fund:
    """For whoever does not count the day's bytes."""
    del workspace, most_bytes_per_day
    return UNLIMITED


def unobserved(label: str, decision: Any) -> None:
    """For whoever does not want to hear of the proxy's decisions."""
    del label, decision
