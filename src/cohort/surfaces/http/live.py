"""Live pages and streams: one look at the version for everybody, a wake-up for each.

A stream costs no polling of its own. `Feed.run` asks for the version a few times a second while anybody listens; a stream then
asks for what it shows, in a thread of the feed's own pool, so that many open pages cannot keep a rollback waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from cohort.base.errors import CohortError, Retry
from cohort.delivery.accounts import RECENT_MAX, Accounts
from cohort.delivery.face import Rollouts
from cohort.delivery.model import RolloutView
from cohort.delivery.traces import Wanted
from cohort.kernel.face import ApprovalDesk, Audit, AuditQuery
from cohort.kernel.model import ApprovalState
from cohort.surfaces.http.encoding import to_json
from cohort.surfaces.http.ports import STREAMS_MAX, ControlFace

log = logging.getLogger("cohort.http.live")

TICK_S = 0.25
HEARTBEAT_S = 15.0
RECONNECT_MS = 1000
FEED_THREADS = 4
ENTRIES_AT_ONCE = 100
PENDING_MAX = 200
"""Approvals that one live list shows."""

P = ParamSpec("P")
T = TypeVar("T")


class Feed:
    """Wakes every open stream when something may have changed."""

    def __init__(self, version: Callable[[], int]) -> None:
        self._version = version
        self._seen: int | None = None
        self._next = asyncio.Event()
        self._listeners = 0
        self._limiter: anyio.CapacityLimiter | None = None
        self.turn = 0
        self.closed = False

    async def run(self) -> None:
        """Until cancelled or closed. A version that cannot be had is asked for again at the next tick, and logged once per outage."""
        down = False
        while not self.closed:
            if self._listeners:
                try:
                    self._look(await self.ask(self._version))
                    down = False
                except Exception as error:
                    if not down:
                        log.warning("live pages wait: %s", error)
                    down = True
            await anyio.sleep(TICK_S)

    async def ask(self, what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`what` in a thread of the feed's pool."""
        self._limiter = self._limiter or anyio.CapacityLimiter(FEED_THREADS)
        return await anyio.to_thread.run_sync(lambda: what(*args, **kwargs), limiter=self._limiter)

    async def changed(self, since_turn: int, wait_s: float) -> bool:
        """Wait until `turn` is past `since_turn`; False when it is not within `wait_s`. No change between two looks is missed."""
        try:
            async with asyncio.timeout(wait_s):
                while self.turn == since_turn and not self.closed:
                    await self._next.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End every stream; called when the server begins to shut down."""
        self.closed = True
        self._wake()

    async def counted(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """`events` as a stream that counts as listening; an error becomes `event: problem`, after which the client connects again."""
        self._listeners += 1
        try:
            yield f"retry: {RECONNECT_MS}\n\n".encode()
            async for piece in events:
                yield piece
        except CohortError as error:
            yield event("problem", to_json(error.problem()))
        finally:
            self._listeners -= 1

    @property
    def full(self) -> bool:
        return self._listeners >= STREAMS_MAX

    def _look(self, version: int) -> None:
        if version != self._seen:
            self._seen = version
            self._wake()

    def _wake(self) -> None:
        self.turn += 1
        turned, self._next = self._next, asyncio.Event()
        turned.set()


def version_of(control: ControlFace) -> int:
    """One number that grows with every call, every change of delivery, of an approval, or of the audit log, where all of the kernel's changes are."""
    return control.rollouts.version() + control.kernel.approvals.version() + control.kernel.audit.size() + control.accounts.recent.taken


def stream_response(feed: Feed, events: AsyncIterator[bytes]) -> Response:
    """Errors: TOO_MANY_STREAMS."""
    if feed.full:
        raise CohortError(
            "TOO_MANY_STREAMS",
            f"{STREAMS_MAX} live streams are open already",
            retry=Retry.SAFE,
            hint="Close a page, or ask without live updates.",
        )
    return StreamingResponse(
        feed.counted(events), media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


def event(name: str, data: bytes, event_id: str | None = None) -> bytes:
    """One server-sent event; `data` is JSON and so has no line breaks."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + data + b"\n\n"


async def rollout_stream(feed: Feed, rollouts: Rollouts, first: RolloutView, after_seq: int | None) -> AsyncIterator[bytes]:
    """The events of one rollout. Ends after the view in which it has ended."""
    view, sent, seq = first, b"", after_seq if after_seq is not None else _newest_seq(first)
    turn = feed.turn
    while True:
        for entry in view.events:
            if entry.seq > seq:
                seq = entry.seq
                yield event("transition", to_json(entry), str(seq))
        if (state := _without_time(view)) != sent:
            sent = state
            yield event("rollout", to_json(view), str(_newest_seq(view)))
        if view.state.ended or feed.closed:
            break
        if not await feed.changed(turn, HEARTBEAT_S):
            yield b": still here\n\n"
        turn = feed.turn
        view = await feed.ask(rollouts.show, first.id)
    if view.state.ended:
        yield event("end", to_json({"state": view.state}))


def _newest_seq(view: RolloutView) -> int:
    return max((entry.seq for entry in view.events), default=0)


def _without_time(view: RolloutView) -> bytes:
    return to_json(replace(view, now_us=0, floor_left_s=0.0))


async def entries_stream(feed: Feed, audit: Audit, after: int) -> AsyncIterator[bytes]:
    """Every entry of the audit log from index `after` on, in order; does not end by itself."""
    while not feed.closed:
        turn, size = feed.turn, await feed.ask(audit.size)
        while after < size:
            end = min(size, after + ENTRIES_AT_ONCE)
            found = await feed.ask(audit.search, AuditQuery(before=end, limit=end - after))
            for entry in reversed(found):
                yield event("entry", to_json(entry), str(entry.index))
            after = end
        if not await feed.changed(turn, HEARTBEAT_S):
            yield b": still here\n\n"


async def approvals_stream(feed: Feed, desk: ApprovalDesk) -> AsyncIterator[bytes]:
    """What waits for a person, at once and whenever it changed; does not end by itself."""
    sent = b""
    while not feed.closed:
        turn = feed.turn
        waiting = to_json({"items": await feed.ask(desk.list, ApprovalState.PENDING, PENDING_MAX)})
        if waiting != sent:
            sent = waiting
            yield event("approvals", waiting)
        if not await feed.changed(turn, HEARTBEAT_S):
            yield b": still here\n\n"


async def calls_stream(feed: Feed, accounts: Accounts, wanted: Wanted, newest: int) -> AsyncIterator[bytes]:
    """The `newest` calls, oldest first, then every further one that is wanted; does not end by itself."""
    taken = accounts.recent.taken
    for call in reversed(await feed.ask(accounts.newest, wanted, newest) if newest else []):
        yield event("call", to_json(call))
    while not feed.closed:
        turn, before = feed.turn, taken
        calls, taken = accounts.recent.after(before)
        if taken - before > RECENT_MAX:
            yield event("missed", to_json({"calls": taken - before - RECENT_MAX}))
        for call in calls:
            if wanted.admits(call):
                yield event("call", to_json(call))
        if not await feed.changed(turn, HEARTBEAT_S):
            yield b": still here\n\n"
