"""L4 before anybody needs it: made for the first question of a release that has it. Its modules take a megabyte that others do without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cohort.gateway.metrics import Labels

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.judging import Ask
    from cohort.gateway.cache.semantic.semantic import Semantic

NOTHING: dict[str, Any] = {
    "entries": 0,
    "bytes": 0,
    "partitions": 0,
    "evicted": 0,
    "restarted": 0,
    "refused": 0,
    "labels": 0,
    "damaged": 0,
    "services": {},
}
"""How it stands with a tier that was never needed."""


class Meaning:
    """The tier, once it is there. `make` may be called in the middle of a call; `left`: a former process has left labels, so it is made now."""

    def __init__(self, make: Callable[[], Semantic], left: bool) -> None:
        self._make = make
        self._made: Semantic | None = None
        self._begun = asyncio.Event()
        self._ask: Ask | None = None
        self._retired = False
        if left:
            self.needed()

    def needed(self) -> Semantic:
        """The tier, for a call."""
        made = self._made
        if made is None:
            made = self._made = self._make()
            if self._ask is not None:
                made.judge.consult(self._ask)
            if self._retired:
                made.retire()
            self._begun.set()
        return made

    def consult(self, ask: Ask) -> None:
        """How services are asked on the gateway's own behalf."""
        self._ask = ask
        if self._made is not None:
            self._made.judge.consult(ask)

    async def run(self) -> None:
        """Have judged what is open, until cancelled."""
        await self._begun.wait()
        await self.needed().judge.run()

    def erase(self, unit: str) -> int:
        """Forget a unit's answers and what was learned of them; how many answers there were. `sync` brings it to disk."""
        return self._made.erase(unit) if self._made is not None else 0

    def sync(self) -> None:
        """Bring what was learned to disk, from any thread. Raises OSError."""
        if self._made is not None:
            self._made.sync()

    def sweep(self) -> list[tuple[Labels, float]]:
        """Drop what is over its time; the gauges of what is watched for drift."""
        if self._made is None:
            return []
        self._made.sweep()
        return self._made.gauges()

    def state(self) -> dict[str, Any]:
        return self._made.state() if self._made is not None else NOTHING

    def retire(self) -> None:
        """Forget every answer; what was learned stays on disk, where the next process finds it."""
        self._retired = True
        if self._made is not None:
            self._made.retire()

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
