"""The log's writer: callers at the same time share one commit.

There is no writing thread. The first caller to find nobody writing leads: it takes what is waiting, writes it in one transaction together
with the signed checkpoint over it, answers everybody, and hands on to the first of those who came meanwhile. A lone caller therefore
never waits for another thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy.exc import IntegrityError

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import Entropy
from cohort.kernel.audit import entries, recovery
from cohort.kernel.audit.entries import Payload, Prepared
from cohort.kernel.audit.keys import Keys
from cohort.kernel.audit.merkle import Frontier, Node, leaf_hash
from cohort.kernel.audit.notes import Checkpoint
from cohort.kernel.audit.recovery import State, broken
from cohort.kernel.audit.ring import Ring
from cohort.kernel.audit.store import LOCK_NAME, Head, Rows
from cohort.kernel.model import Position, Record, RecordKind
from cohort.storage.database import Database

CROWD_MIN = 8
"""From so many callers on a leader waits for those whom the last commit has answered: they are about to come back with their next record."""
CLOCK_SKEW_US = 1_000_000
"""A clock that is behind the last entry by less is taken for that entry's time; by more, it was set back, and a record says so."""
CHECKPOINT_KEPT_US = 3_600_000_000
"""Of the checkpoints of an hour only the last is kept; each is over everything that those before it were over."""


@dataclass(frozen=True, slots=True)
class Batching:
    """Limits of one commit, and of the callers that wait for one.

    `gather_s_max`: so long a leader waits at most for a crowd, and never longer than the last commit took.
    """

    records_max: int = 512
    bytes_max: int = 8 << 20
    waiting_max: int = 4096
    gather_s_max: float = 0.002


Rekey = Callable[[int], Keys]
"""The log's keys once the record at that index is in it."""


class _Ticket:
    """One caller's record on its way. `turn` is released when there is an answer, or when it is the caller's turn to lead.

    The callers of one batch wake each other, in their order: `next` is whom this one wakes. Were all woken at once, each would stand in line
    for the interpreter's lock, which costs more than writing its record. `given`: it was woken with an answer; `passed`: it has woken the
    next; `gone`: an exception has taken its caller away.
    """

    __slots__ = ("at_us", "bytes", "error", "given", "gone", "leads", "next", "passed", "position", "prepared", "rekey", "turn")

    def __init__(self, prepared: Prepared, rekey: Rekey | None = None) -> None:
        self.prepared = prepared
        self.rekey = rekey
        self.bytes = prepared.bytes_max + sum(len(payload.data) for payload in prepared.payloads)
        self.at_us = 0
        self.leads = self.given = self.passed = self.gone = False
        self.next: _Ticket | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
        self.position: Position | None = None
        self.error: CohortError | None = None

    def answer(self) -> Position:
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.position is None:
            raise _unknown("the writer stopped half-way")
        return self.position


@dataclass(slots=True)
class _Growth:
    """A batch as rows, and the log and its keys after it."""

    keys: Keys
    frontier: Frontier
    previous: bytes
    at_us: int
    rows: list[tuple[Any, ...]]
    nodes: list[Node]
    payloads: list[tuple[Any, ...]]

    @classmethod
    def of(cls, state: State, keys: Keys) -> _Growth:
        return cls(keys, state.frontier.copy(), state.previous, state.at_us, [], [], [])

    def add(self, prepared: Prepared, at_us: int) -> Position:
        index = self.frontier.size
        entry = prepared.sealed(at_us, self.previous)
        leaf = leaf_hash(entry)
        self.rows.append((index, entry, leaf, at_us, prepared.kind, prepared.agent, prepared.action))
        self.payloads += [_payload_row(index, payload) for payload in prepared.payloads]
        self.nodes += self.frontier.append(leaf)
        self.previous, self.at_us = leaf, at_us
        return Position(index, leaf.hex(), at_us)


def _payload_row(index: int, payload: Payload) -> tuple[Any, ...]:
    return (payload.commitment, index, payload.name, payload.subject, payload.salt, payload.data)


class SqlAuditLog:
    """Port `AuditLog` on either store. Safe to use from many threads, and beside other processes on the same database."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        keys: Keys | None,
        entropy: Entropy,
        state: State | CohortError,
        batching: Batching | None = None,
    ) -> None:
        """`state`: where the log stands, or why it must not be written to any more. Without keys it must be the latter."""
        self._database = database
        self._clock = clock
        self._keys = keys
        self._rekeying = threading.Lock()
        self._entropy = entropy
        self._batching = batching or Batching()
        self._state = state if isinstance(state, State) else State(Frontier())
        self._trouble = state if isinstance(state, CohortError) else None
        self._closed = False
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._led = False
        self._crowd = 1  # how many callers the last commit answered or kept waiting
        self._commit_s = 0.0  # how long it took
        self._gathered: threading.Lock | None = None  # what a leader waits on until the crowd is there

    @property
    def trouble(self) -> CohortError | None:
        """AUDIT_BROKEN when the log is read-only; None while it is whole."""
        return self._trouble

    @property
    def keys(self) -> Keys | None:
        """What checkpoints are signed with; None when the key is missing."""
        return self._keys

    def ring(self) -> Ring | None:
        """The public keys, as of the newest checkpoint that can be read: while they change, this waits."""
        with self._rekeying:
            return self._keys.ring if self._keys is not None else None

    def rekey(self, record: Record, change: Rekey) -> Position:
        """Append a record that changes the keys: the checkpoint over it is signed by those that `change` gives. Errors: as `append`."""
        with self._rekeying:
            return self._append([_Ticket(entries.prepare(record, self._entropy), change)])[0]

    def seal(self, why: str) -> CohortError:
        """Write no more: the log is not what it was. Returns the error that every append raises from now on."""
        self._trouble = self._trouble or broken(why)
        return self._trouble

    def unseal(self) -> None:
        """Write again: the caller has verified the whole log. The next append still compares it with what was last written here."""
        self._trouble = None

    def close(self) -> None:
        """Refuse what comes from now on; what is being written is finished."""
        self._closed = True

    def append(self, record: Record) -> Position:
        """As the port says; also AUDIT_BROKEN: the log is read-only, nothing was written."""
        return self.append_all([record])[0]

    def append_all(self, records: Sequence[Record]) -> list[Position]:
        """Several records in their order, with as few commits as they fit into. Errors: of the first that failed; those after it may be in."""
        return self._append([_Ticket(entries.prepare(record, self._entropy)) for record in records])

    def _append(self, tickets: Sequence[_Ticket]) -> list[Position]:
        try:
            self._join(tickets)
            for ticket in tickets:
                self._await(ticket)
        except BaseException:  # a signal's handler may have raised: nobody must wait for this caller
            self._withdraw(tickets)
            raise
        return [ticket.answer() for ticket in tickets]

    def _join(self, tickets: Sequence[_Ticket]) -> None:
        """Queue up; the first of them leads when nobody does."""
        with self._lock:
            if self._closed or len(self._waiting) >= self._batching.waiting_max:
                raise _unavailable("the log is closed" if self._closed else f"{self._batching.waiting_max} callers are waiting")
            now_us = self._clock.now_us()
            for ticket in tickets:
                ticket.at_us = now_us
            self._waiting.extend(tickets)
            if tickets and not self._led:
                self._led = tickets[0].leads = True
            elif self._gathered is not None and len(self._waiting) >= self._crowd:
                self._gathered.release()
                self._gathered = None

    def _await(self, ticket: _Ticket) -> None:
        """Until there is an answer, which this caller may have to see to itself."""
        if not ticket.leads:
            ticket.turn.acquire()
        if ticket.leads:
            self._gather()
            self._lead()
        else:
            self._pass(ticket)

    def _pass(self, ticket: _Ticket) -> None:
        """Wake the next of the batch who is still there."""
        with self._lock:
            following = None if ticket.passed else ticket.next
            ticket.passed = True
            while following is not None and following.gone:
                following = following.next
            if following is not None:
                following.given = True
                following.turn.release()

    def _withdraw(self, tickets: Sequence[_Ticket]) -> None:
        """Take no part any more. What is being written goes on to be written."""
        with self._lock:
            leads = any(ticket.leads for ticket in tickets)
            self._waiting = deque(waiting for waiting in self._waiting if waiting not in tickets)
            for ticket in tickets:
                ticket.gone = True
            held_up = [ticket for ticket in tickets if ticket.given and not ticket.passed]
        for ticket in held_up:
            self._pass(ticket)
        if leads:
            self._hand_on()

    def _gather(self) -> None:
        """Let a crowd come together, so that it shares one commit instead of two."""
        with self._lock:
            if self._crowd < CROWD_MIN or len(self._waiting) >= self._crowd:
                return
            gathered = self._gathered = threading.Lock()
            gathered.acquire()
        gathered.acquire(timeout=min(self._commit_s, self._batching.gather_s_max))
        with self._lock:
            self._gathered = None

    def _lead(self) -> None:
        batch, start_s = self._take(), self._clock.monotonic_s()
        try:
            self._write(batch)
        finally:
            self._commit_s = self._clock.monotonic_s() - start_s
            self._crowd = len(batch) + len(self._waiting)
            self._pass(batch[0])
            self._hand_on()

    def _take(self) -> list[_Ticket]:
        """The leader's own ticket, which is the first, and those behind it up to the limits."""
        batch: list[_Ticket] = []
        taken = 0
        most = self._batching
        with self._lock:
            while self._waiting and len(batch) < most.records_max and (not batch or taken + self._waiting[0].bytes <= most.bytes_max):
                taken += self._waiting[0].bytes
                batch.append(self._waiting.popleft())
            for one, following in pairwise(batch):
                one.next = following
            batch[0].leads = False
        return batch

    def _hand_on(self) -> None:
        with self._lock:
            self._led = bool(self._waiting)
            if self._led:
                self._waiting[0].leads = True
                self._waiting[0].turn.release()

    def _write(self, batch: list[_Ticket]) -> None:
        """Answer every ticket of the batch: all written, or none."""
        if self._trouble is not None or self._keys is None:
            return _fail(batch, self._trouble or broken("its signing key is missing"))
        growth = None
        try:
            with self._database.write() as connection:
                self._database.lock(connection, LOCK_NAME)
                rows = Rows(connection)
                state = recovery.refresh(rows, self._state, self._keys.ring)
                growth = _Growth.of(state, self._keys)
                positions = [self._add(growth, ticket) for ticket in batch]
                head = self._store(rows, state, growth)
                # Commit point: the end of this block. Before it no record of the batch exists; after it all do, under a signed checkpoint.
        except CohortError as error:
            if error.code != "OUTCOME_UNKNOWN" or growth is None:
                return _fail(batch, self._refused(error))
            if (missing := self._look(growth, error)) is not None:
                return _fail(batch, missing)
        except IntegrityError:
            return _fail(batch, self.seal("it holds records that it did not write"))
        self._state, self._keys = State(growth.frontier, head, growth.previous, growth.at_us), growth.keys
        for ticket, position in zip(batch, positions, strict=True):
            ticket.position = position

    def _add(self, growth: _Growth, ticket: _Ticket) -> Position:
        """One record, its time never before the last one's unless a record in front of it says so."""
        if ticket.at_us < growth.at_us - CLOCK_SKEW_US:
            note = {"note": "clock_set_back", "from_us": growth.at_us, "to_us": ticket.at_us}
            growth.add(entries.prepare(Record(RecordKind.NOTE, note), self._entropy), ticket.at_us)
        position = growth.add(ticket.prepared, max(ticket.at_us, growth.at_us))
        if ticket.rekey is not None:
            growth.keys = ticket.rekey(position.index)
        return position

    def _store(self, rows: Rows, state: State, growth: _Growth) -> Head:
        """The last checkpoint before the keys change stays, for those who know only the keys before."""
        checkpoint = Checkpoint(growth.keys.ring.name, growth.frontier.size, growth.frontier.root())
        head = Head(checkpoint.size, checkpoint.root, str(growth.keys.signed(checkpoint)), growth.at_us)
        rows.add_entries(growth.rows)
        rows.add_nodes(growth.nodes)
        rows.add_payloads(growth.payloads)
        rows.add_checkpoint(head, _superfluous(state.head, head) if growth.keys is self._keys else None)
        return head

    def _refused(self, error: CohortError) -> CohortError:
        """Nothing was written: why, in the port's words."""
        if error.code == "AUDIT_BROKEN":
            self._trouble = self._trouble or error
            return error
        return _unavailable(error.message, error)

    def _look(self, growth: _Growth, error: CohortError) -> CohortError | None:
        """After a commit without an answer: None when the batch is in the log, else what to tell the callers.

        On Postgres the name of the log is locked until the lost transaction has ended, so that what is not there then will never be.
        """
        index, leaf = growth.rows[-1][0], growth.rows[-1][2]
        try:
            with self._database.write() as connection:
                self._database.lock(connection, LOCK_NAME)
                found = Rows(connection).row(index)
        except CohortError as second:
            return _unknown(f"{error.message}; then {second.message}")
        if found is not None and found.leaf == leaf:
            return None
        if self._database.dialect == "postgresql":
            return _unavailable(error.message, error)
        return _unknown(error.message)


def _superfluous(last: Head | None, head: Head) -> int | None:
    """The size of the last checkpoint if it is of the same hour."""
    if last is None or last.at_us // CHECKPOINT_KEPT_US != head.at_us // CHECKPOINT_KEPT_US:
        return None
    return last.size


def _fail(batch: list[_Ticket], error: CohortError) -> None:
    for ticket in batch:
        ticket.error = CohortError(error.code, error.message, retry=error.retry, hint=error.hint)


def _unavailable(why: str, cause: CohortError | None = None) -> CohortError:
    hint = cause.hint if cause is not None and cause.hint else "Repeat it in a moment."
    return CohortError("AUDIT_UNAVAILABLE", f"the record was not written: {why}", retry=Retry.SAFE, hint=hint)


def _unknown(why: str) -> CohortError:
    what = f"the record may be in the audit log or not: {why}"
    return CohortError("OUTCOME_UNKNOWN", what, retry=Retry.CHECK_FIRST, hint="Search the log for it before repeating it.")
