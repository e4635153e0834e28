"""What the proxy decides about a connection, by which rules, and the budget that all connections of a sandbox share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cohort.kernel.sandbox.egress_names import AllowList, Target

CONNECTIONS_MAX = 64
SLICE_BYTES = 256 << 10
"""Drawn at once of what pays for the bytes: the most that is charged and may not pass."""
DECISIONS_KEPT_MAX = 200


class Reason(StrEnum):
    """Why a connection was let through or refused."""

    LISTED = "listed"
    MALFORMED = "malformed"
    NOT_LISTED = "not_listed"
    NOT_PUBLIC = "not_public"
    UNRESOLVED = "unresolved"
    UNREACHABLE = "unreachable"
    NOT_TLS = "not_tls"
    OTHER_NAME = "other_name"
    BUDGET = "budget"
    TOO_MANY = "too_many"
    SLOW = "slow"
    NOT_RECORDED = "not_recorded"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one connection. `target`: None when the request could not be read. `addresses`: dialled in turn."""

    allowed: bool
    reason: Reason
    target: str | None
    method: str | None = None
    addresses: tuple[str, ...] = ()
    detail: str = ""


OnDecision = Callable[[Verdict], None]
"""Called before an allowed connection is dialled, from a thread of the proxy's own; when it raises, nothing is dialled."""


class Refused(Exception):
    """Ends a connection. `tunnelled`: the client was already told yes, so nothing more is said to it."""

    def __init__(self, reason: Reason, target: Target | None = None, detail: str = "", *, tunnelled: bool = False) -> None:
        super().__init__(reason, detail)
        self.verdict = Verdict(False, reason, str(target) if target else None, detail=detail)
        self.tunnelled = tunnelled


@dataclass(frozen=True, slots=True)
class Times:
    """How long a connection may take over each part, in seconds."""

    head_s: float = 10.0
    resolve_s: float = 10.0
    dial_s: float = 10.0
    idle_s: float = 120.0
    close_s: float = 5.0


@dataclass(slots=True)
class Grant:
    """What one sandbox may do, and what it has done. Changed by the proxy's thread only."""

    allowed: AllowList
    private: AllowList
    times: Times
    budget_bytes: int
    resolve: Callable[[Target], Awaitable[tuple[str, ...]]]
    tell: Callable[[Verdict], Awaitable[None]]
    draw: Callable[[int], Awaitable[int]]
    used_bytes: int = 0
    drawn_bytes: int = 0
    connections: int = 0
    kept: deque[Verdict] = field(default_factory=lambda: deque(maxlen=DECISIONS_KEPT_MAX))

    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def left_bytes(self) -> int:
        """Drawn, and not passed."""
        return self.drawn_bytes - self.used_bytes

    async def take(self, wanted_bytes: int) -> int:
        """How many of `wanted_bytes` may pass: what the budget still has and the fund pays for. Errors: those of the fund."""
        taken = await self._paid(min(wanted_bytes, max(0, self.budget_bytes - self.used_bytes)))
        self.used_bytes += taken
        return taken

    async def any_left(self) -> bool:
        """Whether anything may pass now. Errors: those of the fund."""
        return await self._paid(min(1, self.budget_bytes - self.used_bytes)) > 0

    async def _paid(self, wanted_bytes: int) -> int:
        """So many, or as many as there are, drawn and not passed."""
        if wanted_bytes > self.left_bytes:
            async with self.drawing:
                missing = wanted_bytes - self.left_bytes
                if missing > 0:
                    self.drawn_bytes += await self.draw(max(missing, SLICE_BYTES))
        return min(wanted_bytes, self.left_bytes)
