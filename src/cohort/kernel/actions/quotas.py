"""What an agent may use per minute and per day. Reserved before an action runs, settled with the truth after it.

The daily figures are durable without a write per action: a process charges the store in advance, in blocks, and spends from what it has
charged. After a crash the store says too much, by one block and what was reserved, never too little.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import AgentId
from cohort.kernel.actions.facts import Facts
from cohort.kernel.model import Limits
from cohort.storage.database import Database
from cohort.storage.schema import metadata

BLOCK_SHARE = 0.02
AT_ONCE_MAX = 16
"""Actions of one agent that run at the same time: half of what the surfaces run at once, so that one agent does not keep all others waiting."""
FLOOD_ROOM = 100
"""An agent that makes this many attempts in a minute beyond its calls is refused without a record for each: else the log would be its to fill."""
AGENTS_MAX = 10_000
EGRESS_LEAST_BYTES = 1
"""What has to be left of the day for a command with a way out to begin; what it passes is drawn while it passes."""
RESPONSE_BYTES_MAX = 4 << 20
"""Reserved for the answer to one request."""
DAY_US = 86_400_000_000
MINUTE_S = 60.0

usage = metadata.tables["agent_usage"]


@dataclass(slots=True)
class _Purse:
    """One daily figure: `charged` of the store by this process, of which `spent` and `held` are gone."""

    charged: int = 0
    spent: int = 0
    held: int = 0

    @property
    def free(self) -> int:
        return self.charged - self.spent - self.held


@dataclass(slots=True)
class _Book:
    """What this process knows of one agent today."""

    day: int
    purses: dict[str, _Purse] = field(default_factory=lambda: {"cpu_us": _Purse(), "egress_bytes": _Purse()})
    calls: deque[float] = field(default_factory=deque)
    at_once: int = 0
    uncounted: int = 0
    flood_s: float | None = None


@dataclass(frozen=True, slots=True)
class Flood:
    """An agent asks on and on after its calls are used up. `most`: attempts in a minute; `first`: not said within the last minute."""

    most: int
    first: bool


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was set aside for one action; given back by `settle`."""

    agent: AgentId
    day: int
    cpu_us: int
    egress_bytes: int
    drawn: bool
    """Its egress is drawn while it runs, so nothing is left to be charged at its end."""


class Quotas:
    """Safe to use from many threads. `running`: how many processes of an agent live. Store errors mean: nothing was reserved."""

    def __init__(self, database: Database, clock: Clock, running: Callable[[AgentId], int]) -> None:
        self._database = database
        self._clock = clock
        self._running = running
        self._lock = threading.Lock()
        self._books: dict[AgentId, _Book] = {}

    def reserve(self, facts: Facts) -> Reservation:
        """Set aside what the action may use.

        Raises:
            CohortError QUOTA_EXCEEDED: says which limit; nothing was reserved.
        """
        agent, limits = facts.caller.agent.id, facts.caller.agent.limits
        if facts.action.operation == "process.start" and self._running(agent) >= limits.processes:
            raise _exceeded(f"{limits.processes} processes are running", "Stop one first.")
        with self._lock:
            book = self._book(agent)
            self._count(book, limits)
            cpu_us = self._hold(agent, book, "cpu_us", _cpu_wanted(facts), True, round(limits.cpu_s_per_day * 1e6))
            try:
                egress = self._hold(agent, book, "egress_bytes", *_egress_wanted(facts), limits.egress_bytes_per_day)
            except CohortError:
                book.purses["cpu_us"].held -= cpu_us
                raise
            drawn = facts.row.executes
            if drawn:
                book.purses["egress_bytes"].held -= egress  # it was only to see that there is some
            book.at_once += 1
            book.uncounted += 1
            return Reservation(agent, book.day, cpu_us, 0 if drawn else egress, drawn)

    def settle(self, reservation: Reservation, cpu_us: int, egress_bytes: int) -> None:
        """Give back what was not used. Never raises: what could not be charged is remembered and charged with the next block."""
        with self._lock:
            book = self._books.get(reservation.agent)
            if book is None:
                return
            book.at_once -= 1
            if book.day != reservation.day:
                return  # yesterday's purses are closed, at the full reservation
            for name, held, used in (
                ("cpu_us", reservation.cpu_us, cpu_us),
                ("egress_bytes", reservation.egress_bytes, 0 if reservation.drawn else egress_bytes),
            ):
                book.purses[name].held -= held
                book.purses[name].spent += used

    def draw(self, agent: AgentId, wanted_bytes: int, most_per_day: int) -> tuple[int, int]:
        """Take up to `wanted_bytes` of egress from the day, for what is about to pass; how many there were, and of which day.

        Errors: those of `Database`; nothing was taken.
        """
        with self._lock:
            try:
                book = self._book(agent)
                taken = self._hold(agent, book, "egress_bytes", wanted_bytes, True, most_per_day)
            except CohortError as error:
                if error.code != "QUOTA_EXCEEDED":
                    raise
                return 0, self._day()
            book.purses["egress_bytes"].held -= taken
            book.purses["egress_bytes"].spent += taken
            return taken, book.day

    def give_back(self, agent: AgentId, left_bytes: int, day: int) -> None:
        """What was drawn on `day` and did not pass; nothing happens when that day is over. Never raises."""
        with self._lock:
            book = self._books.get(agent)
            if book is not None and book.day == day:
                book.purses["egress_bytes"].spent -= left_bytes

    def charge(self, agent: AgentId, cpu_us: int) -> None:
        """Take from the day what a process has used that was started long ago, whether or not so much is left.

        Errors: those of `Database`; it is remembered then, and charged with the next block.
        """
        with self._lock:
            book = self._book(agent)
            book.purses["cpu_us"].spent += cpu_us
            over = {name: -purse.free for name, purse in book.purses.items() if purse.free < 0}
            if over:
                self._add(agent, book, over)
            for name, amount in over.items():
                book.purses[name].charged += amount

    def flood(self, agent: AgentId, limits: Limits) -> Flood | None:
        """What to say of `agent` before anything is looked at; None: let it ask. What is refused by this is not counted as a call."""
        most = limits.calls_per_minute + FLOOD_ROOM
        with self._lock:
            book = self._book(agent)
            now_s = _recent(book.calls, self._clock.monotonic_s())
            if len(book.calls) < most:
                return None
            first = book.flood_s is None or book.flood_s <= now_s - MINUTE_S
            book.flood_s = now_s if first else book.flood_s
            return Flood(most, first)

    def note_refusal(self, agent: AgentId) -> None:
        """A refused attempt is a call as well, and so is one that waits for a person: each costs a record."""
        with self._lock:
            book = self._book(agent)
            book.calls.append(_recent(book.calls, self._clock.monotonic_s()))

    def used_today(self, agent: AgentId) -> dict[str, int]:
        """What the store has charged so far: at least what was used."""
        with self._database.read() as connection:
            row = connection.execute(select(usage).where(usage.c.agent == agent, usage.c.day == self._day())).one_or_none()
        return {"cpu_us": row.cpu_us, "egress_bytes": row.egress_bytes, "actions": row.actions} if row else {}

    def close(self) -> None:
        """Write down the truth: what was charged and not spent goes back."""
        with self._lock:
            for agent, book in self._books.items():
                self._add(agent, book, {name: -purse.free for name, purse in book.purses.items()})
            self._books.clear()

    def _book(self, agent: AgentId) -> _Book:
        day = self._day()
        book = self._books.get(agent)
        if book is None:
            if len(self._books) >= AGENTS_MAX:
                raise _exceeded(f"{AGENTS_MAX} agents are busy", "Try again later.")
            book = self._books[agent] = _Book(day)
        elif book.day != day:
            fresh = _Book(day, calls=book.calls, at_once=book.at_once, flood_s=book.flood_s)
            book = self._books[agent] = fresh
        return book

    def _count(self, book: _Book, limits: Limits) -> None:
        now_s = _recent(book.calls, self._clock.monotonic_s())
        if len(book.calls) >= limits.calls_per_minute:
            raise _exceeded(f"{limits.calls_per_minute} calls in a minute", "Slow down.")
        if book.at_once >= AT_ONCE_MAX:
            raise _exceeded(f"{AT_ONCE_MAX} actions at once", "Wait for one to end.")
        book.calls.append(now_s)

    def _hold(self, agent: AgentId, book: _Book, name: str, wanted: int, partly: bool, limit: int) -> int:
        """Hold `wanted`, or what is left of the day where `partly` and something is."""
        purse = book.purses[name]
        if wanted > purse.free:
            self._charge(agent, book, name, wanted - purse.free, limit)
        held = min(wanted, max(purse.free, 0)) if partly else wanted
        if wanted and (held <= 0 or held > purse.free):
            raise _exceeded(f"the day's {name} of {limit} are used up", "Try again tomorrow, or have the limit raised.")
        purse.held += held
        return held

    def _charge(self, agent: AgentId, book: _Book, name: str, missing: int, limit: int) -> None:
        """Charge a block if the day has room for it, else all the room there is."""
        room = limit - self.used_today(agent).get(name, 0)
        amount = max(0, min(max(missing, int(limit * BLOCK_SHARE)), room))
        if amount:
            self._add(agent, book, {name: amount})
            book.purses[name].charged += amount

    def _add(self, agent: AgentId, book: _Book, amounts: dict[str, int]) -> None:
        new = {"cpu_us": 0, "egress_bytes": 0, **amounts, "actions": book.uncounted}
        statement = self._database.upsert(usage).values(agent=agent, day=book.day, **new)
        grown = {name: usage.c[name] + value for name, value in new.items()}
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["agent", "day"], set_=grown))
        book.uncounted = 0

    def _day(self) -> int:
        return self._clock.now_us() // DAY_US


def _recent(calls: deque[float], now_s: float) -> float:
    """Forget calls older than a minute; the time now."""
    while calls and calls[0] <= now_s - MINUTE_S:
        calls.popleft()
    return now_s


def _cpu_wanted(facts: Facts) -> int:
    limits = facts.caller.agent.limits
    return round(limits.command_s * limits.cpu_cores * 1e6) if facts.row.executes else 0


def _egress_wanted(facts: Facts) -> tuple[int, bool]:
    """How much, and whether less will do. A command with a way out needs something of the day to be left."""
    if facts.row.executes and facts.action.arguments.get("network"):
        return EGRESS_LEAST_BYTES, True
    if facts.action.operation not in ("http.request", "network.webhook"):
        return 0, False
    return RESPONSE_BYTES_MAX + sum(len(str(value).encode()) for value in facts.action.arguments.values()), False


def _exceeded(what: str, hint: str) -> CohortError:
    return CohortError("QUOTA_EXCEEDED", what, retry=Retry.SAFE, hint=hint)
