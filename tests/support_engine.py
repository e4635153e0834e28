"""The rollout engine as control puts it together, over a gateway in memory that is stricter than the real one.

The gateway uses the real parts for its table and its records; only sockets and disks are missing. It refuses what the real one would
merely survive: a cursor it never handed out, one behind what was acknowledged, an acknowledgement that goes back or ahead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError, Retry
from cohort.delivery.cache_state import CacheState, Forgotten, Held, Keeping, Person
from cohort.delivery.controller import Controller
from cohort.delivery.damage import DamageWatch
from cohort.delivery.evidence import Evidence
from cohort.delivery.face import Act, Start
from cohort.delivery.left_spools import LeftSpools
from cohort.delivery.manifests import release_routes
from cohort.delivery.model import Rollout, RolloutView
from cohort.delivery.reconciler import Reconciler
from cohort.delivery.registry import SqlRegistry
from cohort.delivery.rollouts import SqlRollouts
from cohort.delivery.store_sql import RolloutStore
from cohort.gateway.assignment import is_shadowed
from cohort.gateway.compiled import Snapshot, compile_table
from cohort.gateway.contract import Arm, Batch, Cursor, GatewayState, Result, RoutingTable, decode_batch, decode_table, encode, pseudonym
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Ongoing, Recorder
from cohort.storage.database import Database
from manifest_texts import bundle
from support_gateway import UNIT_KEY

SEGMENT_RECORDS = 64
OPERATOR = Act("alice", "a test")


class Killed(BaseException):
    """The process is gone: no handler of the product may catch it."""


class Fuse:
    """Blows at the step number `at` (from 1); counts steps, and remembers their names. 0: never."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.steps: list[str] = []

    def step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) == self.at:
            raise Killed(name)


def unit_name(number: int) -> str:
    return hashlib.sha256(f"unit {number}".encode()).hexdigest()[:32]


class _Spool:
    """Where the real recorder writes to."""

    def __init__(self, records: list[bytes]) -> None:
        self._records = records

    def append(self, payload: bytes) -> bool:
        self._records.append(payload)
        return True


class MemoryGateway:
    """`delivery.ports.DataPlane`, and the side that clients meet. `reachable` False: every method of the port fails, traffic goes on."""

    def __init__(self, clock: ManualClock, fuse: Fuse | None = None, name: str = "gw_memory") -> None:
        self.clock = clock
        self.fuse = fuse or Fuse()
        self.name = name
        self.reachable = True
        self.refuse_push = False
        self.records: list[bytes] = []
        self.tables: list[RoutingTable] = []
        self.snapshot: Snapshot | None = None
        self.acknowledged = Cursor(1, 0)
        self.pulls = 0
        self.kept: dict[Keeping, list[str]] = {store: [] for store in Keeping}  # whose answers
        self.stuck: set[Keeping] = set()  # stores that cannot be erased
        self.answered: dict[str, int] = {}  # calls of `support`, by what answered
        self._handed_out = {Cursor(), Cursor(1, 0)}
        self._begin()

    def _begin(self) -> None:
        self.epoch = self.clock.now_us()
        self.recorder = Recorder(self.name, self.epoch, _Spool(self.records), Metrics(), self.clock, 10)  # type: ignore[arg-type]
        self.in_flight: list[Ongoing] = []

    def restart(self) -> list[Ongoing]:
        """As after kill -9: a new epoch; the table is read from disk; returns the calls that nobody will ever end."""
        lost = self.in_flight
        self.clock.advance(0.001)
        self._begin()
        return lost

    # --- the port ---

    def push(self, table: RoutingTable) -> GatewayState:
        self._answer("push")
        if self.refuse_push:
            raise unreachable()
        parsed = decode_table(encode(table))
        snapshot = compile_table(parsed)
        assert parsed.version > 0
        if parsed.version > self.version:
            self.tables.append(parsed)
            self.snapshot = snapshot
        self.fuse.step("push took effect")
        return self._state()

    def state(self) -> GatewayState:
        self._answer("state")
        return self._state()

    def pull(self, after: Cursor, *, records_max: int, wait_ms: int) -> Batch:
        self._answer("pull")
        assert after in self._handed_out, f"{after} was never handed out"
        assert after == Cursor() or after >= self.acknowledged, f"{after} was acknowledged up to {self.acknowledged} and may be deleted"
        assert 0 < records_max <= 100_000
        self.pulls += 1
        start = _index(after)
        taken = self.records[start : start + records_max]
        following = _cursor(start + len(taken))
        self._handed_out.add(following)
        behind = sum(len(record) for record in self.records[start + len(taken) :])
        body = {"gateway": self.name, "epoch": self.epoch, "next": following, "behind": behind}
        batch = decode_batch(b'{"records":[' + b",".join(taken) + b"]," + orjson.dumps(body)[1:])
        self.fuse.step("pulled")
        return batch

    def acknowledge(self, upto: Cursor) -> None:
        self._answer("acknowledge")
        assert upto in self._handed_out, f"{upto} was never handed out"
        assert upto >= self.acknowledged, f"acknowledgement goes back from {self.acknowledged} to {upto}"
        self.acknowledged = max(self.acknowledged, upto)
        self.fuse.step("acknowledged")

    def cache(self) -> CacheState:
        self._answer("cache")
        held = {"l1": Held(len(self.kept[Keeping.CACHE])), "l3": Held(), "l4": Held()}
        return CacheState({"support": dict(self.answered)} if self.answered else {}, held, {})

    def erase(self, store: Keeping, person: Person) -> Forgotten:
        self._answer("erase")
        assert (person.unit is None) != (person.subject is None), person
        if store in self.stuck:
            raise CohortError("CACHE_NOT_ERASED", f"the {store.value} cannot be erased", retry=Retry.SAFE, hint="Ask again.")
        unit = person.unit or pseudonym(bytes.fromhex(UNIT_KEY), str(person.subject))
        before = len(self.kept[store])
        self.kept[store] = [each for each in self.kept[store] if each != unit]
        self.fuse.step("erased")
        return Forgotten(unit, before - len(self.kept[store]))

    def refuse(self, *_: Any) -> Any:
        """What any method of the port may do."""
        raise unreachable()

    # --- clients ---

    @property
    def version(self) -> int:
        return self.snapshot.table.version if self.snapshot else 0

    def assign(self, service: str, unit: str) -> list[Ongoing]:
        """A request comes in: the call, and its shadow copy where the unit is shadowed."""
        assert self.snapshot is not None, "no table yet"
        found = self.snapshot.services[service]
        ongoing = [self.recorder.assign(found, unit, False)]
        split, salts = found.split, found.salts
        if split is not None and salts is not None and ongoing[0].arm is Arm.STABLE and is_shadowed(split, salts, unit):
            ongoing.append(self.recorder.copy(ongoing[0]))
        self.in_flight.extend(ongoing)
        return ongoing

    def end(self, ongoing: Ongoing, result: Result = Result.OK, latency_ms: float = 100.0) -> None:
        ongoing.result = result
        ongoing.started_s = self.clock.monotonic_s() - latency_ms / 1000
        self.in_flight.remove(ongoing)
        self.recorder.end(ongoing)

    def call(self, unit: str, *, service: str = "support", bad: Sequence[Arm] = (), latency_ms: float = 100.0) -> Arm:
        """A whole call; `bad` names the arms that fail. Returns the arm of the unit."""
        ongoing = self.assign(service, unit)
        for one in ongoing:
            self.end(one, Result.UPSTREAM_ERROR if one.arm in bad else Result.OK, latency_ms)
        return ongoing[0].arm

    def feedback(self, unit: str, *, service: str = "support", negative: bool = True) -> None:
        assert self.snapshot is not None
        self.recorder.feedback(self.snapshot.services[service], unit, None, negative)

    # --- parts ---

    def _answer(self, name: str) -> None:
        self.fuse.step(name)
        if not self.reachable:
            raise unreachable()

    def _state(self) -> GatewayState:
        taken = self.snapshot
        return GatewayState(
            self.name,
            self.epoch,
            self.version,
            dict(taken.stable) if taken else {},
            dict(taken.splits) if taken else {},
            dict(self.recorder.last_candidate_us),
            len(self.in_flight),
        )


def unreachable() -> CohortError:
    return CohortError("DATA_PLANE_UNAVAILABLE", "the gateway in memory is out of reach", retry=Retry.SAFE, hint="Wait.")


def _cursor(index: int) -> Cursor:
    return Cursor(1 + index // SEGMENT_RECORDS, index % SEGMENT_RECORDS)


def _index(cursor: Cursor) -> int:
    return 0 if cursor == Cursor() else (cursor.segment - 1) * SEGMENT_RECORDS + cursor.offset


class FusedDatabase:
    """A database at whose every boundary the process may be killed, or which is `away`; the real one does the work.

    `commit_unknown`: transactions are written, and their answer is lost.
    """

    def __init__(self, inner: Database, fuse: Fuse | None = None) -> None:
        self._inner = inner
        self.fuse = fuse or Fuse()
        self.away = False
        self.commit_unknown = False

    @property
    def dialect(self) -> str:
        return self._inner.dialect

    @contextmanager
    def read(self) -> Iterator[Any]:
        self._there()
        with self._inner.read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Any]:
        self._there()
        self.fuse.step("transaction begins")
        with self._inner.write() as connection:
            yield connection
            self._there()
            self.fuse.step("before the commit")
        self.fuse.step("after the commit")
        if self.commit_unknown:
            raise CohortError("OUTCOME_UNKNOWN", "no answer to a commit", retry=Retry.CHECK_FIRST, hint="Look.")

    def lock(self, connection: Any, name: str) -> None:
        self._inner.lock(connection, name)

    def upsert(self, table: Any) -> Any:
        return self._inner.upsert(table)

    def _there(self) -> None:
        if self.away:
            raise CohortError("DATABASE_UNAVAILABLE", "the database is away", retry=Retry.SAFE, hint="Wait.")


class House:
    """One control process over a database and a gateway. `crash` forgets everything that is in memory."""

    def __init__(self, database: Any, clock: ManualClock, fuse: Fuse | None = None) -> None:
        self.fuse = fuse or Fuse()
        self.database = FusedDatabase(database, self.fuse)
        self.clock = clock
        self.gateway = MemoryGateway(clock, self.fuse)
        self._numbers = 0
        self.changes = 0
        self.left_folders: list[Path] = []  # where workers that are no more had their spools
        self.crash()

    def crash(self) -> None:
        database: Any = self.database
        self.registry = SqlRegistry(database, self.clock)
        self.store = RolloutStore(database)
        self.damaged = DamageWatch(self.registry, self.clock)
        self.reconciler = Reconciler(self.store, self.gateway, self._route, self.clock)
        left = LeftSpools(self.left_folders)
        self.controller = Controller(self.store, self.gateway, self.reconciler, self.clock, self.damaged, self._changed, left=left)
        self.rollouts = SqlRollouts(self.store, self.registry, self.controller, self.reconciler, self.clock, self._entropy, self.damaged)

    def release(self, *versions: str, service: str = "support") -> list[str]:
        """Create releases; the first of a service is its stable. Returns their digests."""
        made = []
        for version in versions:
            self.clock.advance(0.001)
            made.append(str(self.registry.create(bundle(version=version, service=service), "alice").release.digest))
        return made

    def ready(self, *versions: str) -> list[str]:
        """Releases, and a gateway that serves the first."""
        made = self.release(*(versions or ("1", "2")))
        self.tick()
        return made

    def start(self, plan: str, to: str = "2", **more: Any) -> RolloutView:
        act = more.pop("act", OPERATOR)
        return self.rollouts.start(Start(more.pop("service", "support"), to, plan, act, **more))

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.controller.tick(wait_ms=0)

    def evidence(self, rollout_id: str) -> Evidence:
        with self.store.database.read() as connection:
            found = self.store.get(connection, rollout_id)
            assert found is not None
            return Evidence.from_state(found.plan, self.store.evidence(connection, rollout_id)[0], found.speed)

    def rollout(self, rollout_id: str) -> Rollout:
        with self.store.database.read() as connection:
            found = self.store.get(connection, rollout_id)
        assert found is not None
        return found

    def events(self, rollout_id: str) -> list[str]:
        with self.store.database.read() as connection:
            return [event.kind for event in self.store.events(connection, rollout_id)]

    def traffic(
        self, units: range, *, bad_every: int = 0, bad: Sequence[Arm] = (), latency_ms: float = 100.0, step_s: float = 0.001
    ) -> None:
        """One call of each unit; every `bad_every`-th fails on both arms, and every one on the arms in `bad`."""
        for number in units:
            self.clock.advance(step_s)
            both = (Arm.STABLE, Arm.CANDIDATE, Arm.SHADOW) if bad_every and number % bad_every == 0 else ()
            self.gateway.call(unit_name(number), bad=(*bad, *both), latency_ms=latency_ms + number % 17)

    def _route(self, digest: str) -> Any:
        return release_routes(self.registry.find(digest))

    def _entropy(self, count: int) -> bytes:
        self._numbers += 1
        return hashlib.sha256(f"entropy {self._numbers}".encode()).digest()[:count].ljust(count, b"\0")

    def _changed(self) -> None:
        self.changes += 1
        if hasattr(self, "rollouts"):
            self.rollouts.changed()


def plan_text(stages: str, *, alpha: float = 0.01, beta: float = 0.05, gates: str = "") -> str:
    """A plan document; `stages` is what stands under `stages:`, one `- {...}` a line."""
    lines = [f"name: test-plan\nalpha: {alpha}\nbeta: {beta}\n", f"gates:\n{gates}" if gates else "", "stages:\n"]
    return "".join(lines) + "".join(f"  {line.strip()}\n" for line in stages.strip().splitlines())
