"""The way out of a sandbox, as the sandbox knows it: `egress.py` has the real one, `compose` connects them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Listener(Protocol):
    """A proxy that listens inside one sandbox."""

    @property
    def bytes_used(self) -> int: ...

    def close(self) -> None: ...


class Proxy(Protocol):
    """Lets commands reach the named hosts and nothing else."""

    def listen(self, pid: int, hosts: Sequence[str], budget_bytes: int, on_decision: Callable[[Any], None]) -> Listener:
        """Listen on 127.0.0.1:3128 in the network namespace of `pid`. Errors: SANDBOX_UNAVAILABLE."""
        ...


def unobserved(label: str, decision: Any) -> None:
    """For whoever does not want to hear of the proxy's decisions."""
    del label, decision
