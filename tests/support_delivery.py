"""Delivery in memory, for the tests of surfaces: real views, and stricter than the real thing about its arguments."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import support_views as views
from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import KeyId, ReleaseDigest, RolloutId
from cohort.delivery.cache_state import BandCounts, CacheState, DriftCounts, Held, Person, SemanticCounts
from cohort.delivery.cache_views import CacheView, Erasure, StoreErased, cache_figures
from cohort.delivery.face import Act, Bundle, Created, Start
from cohort.delivery.model import (
    FlagKill,
    Forecast,
    Killed,
    Plan,
    Release,
    Replay,
    RollbackResult,
    RolloutRow,
    RolloutView,
    ServiceView,
    StageForecast,
    State,
    Transition,
)
from cohort.delivery.routing_fit import Fit
from cohort.delivery.routing_rules import Suggestion, WhatIf, rate
from cohort.delivery.routing_views import BucketView, RoutingReplay, RoutingView, Target
from cohort.gateway.cache.semantic.drift import Counts
from cohort.gateway.contract_cache import CachePolicy, SemanticPolicy
from cohort.gateway.contract_routing import RoutingPolicy, RoutingState
from cohort.kernel.access import Key, NewKey, Role
from cohort.surfaces.http.ports import ControlFace, Ingest, Part
from support_clients import late_rooms
from support_kernel import Kernel

ADMIN_KEY = "ck_admin_0123456789"
MANAGER_KEY = "ck_manager_0123456789"
APPROVER_KEY = "ck_approver_0123456789"
AUDITOR_KEY = "ck_auditor_0123456789"
OPERATOR_KEY = "ck_operator_0123456789"
VIEWER_KEY = "ck_viewer_0123456789"


def _check_act(act: Act) -> None:
    assert isinstance(act, Act), act
    assert act.actor, "an act needs an actor"
    assert len(act.reason) <= 2000
    assert act.revision is None or (isinstance(act.revision, int) and act.revision >= 0)
    assert act.idempotency_key is None or 1 <= len(act.idempotency_key) <= 128


class MemoryRegistry:
    """Releases in a list, newest first."""

    def __init__(self, releases: Sequence[Release] = ()) -> None:
        self.releases = list(releases)
        self.bundles: list[Bundle] = []

    def create(self, bundle: Bundle, actor: str) -> Created:
        assert isinstance(bundle, Bundle)
        assert actor
        assert all(isinstance(name, str) and isinstance(text, str) for name, text in bundle.files.items())
        self.bundles.append(bundle)
        if "version" not in bundle.manifest:
            raise CohortError("DOCUMENT_INVALID", f"{bundle.source}:1: version: missing", field="version", hint="Add `version`.")
        version = bundle.manifest.split("version:")[1].split()[0]
        for known in self.releases:
            if known.version == version:
                return Created(known, created=False, became_stable=False)
        made = views.release("support", version, created_by=actor)
        self.releases.insert(0, made)
        unpriced = () if "price:" in bundle.manifest else ("main",)
        return Created(made, created=True, became_stable=False, unpriced_routes=unpriced)

    def list(self, service: str | None = None) -> Sequence[Release]:
        assert service is None or service
        return [release for release in self.releases if service in (None, release.service)]

    def find(self, ref: str, service: str | None = None) -> Release:
        assert ref
        for release in self.list(service):
            if ref in (release.digest, release.version) or (ref.startswith("rel_") and release.digest.startswith(ref)):
                return release
        raise CohortError("RELEASE_UNKNOWN", f"no release {ref!r}", hint="See `cohort release list`.")

    def verify(self, digest: ReleaseDigest) -> None:
        self.find(digest)


class MemoryRollouts:
    """Rollouts and services in dictionaries; verbs do what the names say to the state, revision and event log."""

    def __init__(self, rollouts: Sequence[RolloutView] = (), services: Sequence[ServiceView] = ()) -> None:
        self._lock = threading.RLock()
        self._rollouts = {view.id: view for view in rollouts}
        self._services = {view.name: view for view in services}
        self._version = 1
        self._answers: dict[str, RolloutView] = {}
        self.acts: list[tuple[str, str, Act]] = []
        self.starts: list[Start] = []
        self.down: CohortError | None = None

    def version(self) -> int:
        self._up()
        return self._version

    def services(self) -> Sequence[ServiceView]:
        self._up()
        return sorted(self._services.values(), key=lambda view: view.name)

    def service(self, name: str) -> ServiceView:
        self._up()
        assert isinstance(name, str)
        if name not in self._services:
            raise CohortError("SERVICE_UNKNOWN", f"there is no service {name!r}", hint="See `cohort service list`.")
        return self._services[name]

    def plans(self) -> Sequence[Plan]:
        self._up()
        return [views.plan()]

    def forecast(
        self, service: str, plan: str, *, speed: float = 1.0, units_per_s: float | None = None, failure_rate: float | None = None
    ) -> Forecast:
        self._up()
        assert speed > 0
        assert units_per_s is None or units_per_s > 0
        self.service(service)
        if plan != views.plan().name:
            raise CohortError("PLAN_UNKNOWN", f"no plan {plan!r}", hint="See `cohort rollout plan --list`.")
        stage = StageForecast("5 %", 5.0, 172_800 / speed, 800.0, 2.4, {"2": 3.1}, {"2": 610.0}, 900.0, ())
        return Forecast(service, plan, units_per_s or 4.0, failure_rate or 0.01, units_per_s is None, (stage,), ())

    def start(self, start: Start) -> RolloutView:
        self._up()
        assert isinstance(start, Start)
        _check_act(start.act)
        self.starts.append(start)
        service = self.service(start.service)
        if service.rollout is not None:
            raise CohortError(
                "ROLLOUT_ACTIVE", f"{service.name} is being rolled out by {service.rollout.id}", hint="Wait, or roll it back."
            )
        view = views.empty("ro_" + "a" * 16, start.service)
        self.put(view)
        return view

    def list(
        self, service: str | None = None, active: bool | None = None, limit: int = 50, before_us: int | None = None
    ) -> Sequence[RolloutRow]:
        self._up()
        assert limit > 0
        rows = [views.row(view) for view in self._rollouts.values()]
        rows = [row for row in rows if service in (None, row.service) and (before_us is None or row.created_us < before_us)]
        rows = [row for row in rows if active is None or active == (row.ended_us is None)]
        return sorted(rows, key=lambda row: -row.created_us)[:limit]

    def show(self, rollout: str) -> RolloutView:
        self._up()
        with self._lock:
            if rollout in self._rollouts:
                return self._rollouts[RolloutId(rollout)]
            for row in self.list(rollout):
                return self._rollouts[row.id]
        raise CohortError("ROLLOUT_UNKNOWN", f"there is no rollout {rollout!r}", hint="See `cohort rollout list`.")

    def pause(self, rollout: str, act: Act) -> RolloutView:
        return self._turn("pause", rollout, act, State.PAUSED)

    def resume(self, rollout: str, act: Act) -> RolloutView:
        if self.show(rollout).state is not State.PAUSED:
            raise CohortError("ROLLOUT_NOT_PAUSED", f"{rollout} is not paused", hint="Nothing to do.")
        return self._turn("resume", rollout, act, State.RUNNING)

    def approve(self, rollout: str, act: Act) -> RolloutView:
        return self._turn("approve", rollout, act, State.RUNNING)

    def promote(self, rollout: str, act: Act) -> RolloutView:
        return self._turn("promote", rollout, act, State.RUNNING)

    def rollback(self, rollout: str, act: Act) -> RolloutView:
        return self._turn("rollback", rollout, act, State.ROLLED_BACK)

    def abort(self, rollout: str, act: Act) -> RolloutView:
        return self._turn("abort", rollout, act, State.ABORTED)

    def replay(self, rollout: str) -> Replay:
        return Replay(self.show(rollout).id, True, 1200, 88, None, "f" * 64)

    def rollback_service(self, service: str, act: Act, to: str | None = None) -> RollbackResult:
        self._up()
        _check_act(act)
        assert act.reason, "the emergency verb wants a reason"
        self.acts.append(("rollback_service", service, act))
        view = self.service(service)
        if view.rollout is not None:
            self.put(replace(self.show(view.rollout.id), state=State.ROLLED_BACK, ended_us=views.NOW_US, reason=act.reason))
        return RollbackResult(service, view.rollout.id if view.rollout else None, view.stable, view.candidate, True, 143.0)

    def put(self, view: RolloutView) -> None:
        """Change a rollout as the controller would."""
        with self._lock:
            self._rollouts[view.id] = view
            self._version += 1
            if view.service in self._services:
                active = None if view.ended_us else views.row(view)
                self._services[view.service] = replace(self._services[view.service], rollout=active)

    def put_service(self, view: ServiceView) -> None:
        with self._lock:
            self._services[view.name] = view
            self._version += 1

    def _turn(self, verb: str, rollout: str, act: Act, state: State) -> RolloutView:
        self._up()
        _check_act(act)
        with self._lock:
            view = self.show(rollout)
            if act.idempotency_key in self._answers:
                return self._answers[act.idempotency_key or ""]
            if view.state.ended:
                raise CohortError("ROLLOUT_ENDED", f"{view.id} has ended: {view.state.value}", hint="Start another rollout.")
            if act.revision is not None and act.revision != view.revision:
                raise CohortError(
                    "ROLLOUT_CHANGED", f"{view.id} is at revision {view.revision}, not {act.revision}", hint="Look again, then decide."
                )
            self.acts.append((verb, rollout, act))
            turned = self._turned(view, verb, act, state)
            self.put(turned)
            if act.idempotency_key:
                self._answers[act.idempotency_key] = turned
            return turned

    def _turned(self, view: RolloutView, verb: str, act: Act, state: State) -> RolloutView:
        words = {
            "pause": "paused",
            "resume": "resumed",
            "approve": "approved",
            "promote": "stage_entered",
            "rollback": "rolled_back",
            "abort": "aborted",
        }
        entry = Transition(len(view.events) + 1, views.NOW_US, words[verb], view.stage, act.actor, act.reason, {})
        ended = views.NOW_US if state.ended else None
        return replace(
            view,
            state=state,
            revision=view.revision + 1,
            events=(*view.events, entry),
            ended_us=ended,
            reason=act.reason if ended else None,
            waiting_for=() if ended else ("a person to resume it",) if state is State.PAUSED else view.waiting_for,
        )

    def _up(self) -> None:
        if self.down is not None:
            raise self.down


@dataclass(frozen=True, slots=True)
class MemoryPrincipal:
    name: str
    role: str

    @property
    def key_id(self) -> KeyId:
        return KeyId(f"key_of_{self.name}")


@dataclass(frozen=True, slots=True)
class MemorySession:
    principal: MemoryPrincipal
    csrf: str


@dataclass(frozen=True, slots=True)
class MemorySignedIn:
    cookie: str
    expires_us: int


class MemoryAccess:
    """A key of each role; five wrong attempts are too many."""

    def __init__(self) -> None:
        self.keys = {
            ADMIN_KEY: MemoryPrincipal("first-key", "admin"),
            MANAGER_KEY: MemoryPrincipal("mara", "manager"),
            APPROVER_KEY: MemoryPrincipal("ana", "approver"),
            AUDITOR_KEY: MemoryPrincipal("audrey", "auditor"),
            OPERATOR_KEY: MemoryPrincipal("otto", "operator"),
            VIEWER_KEY: MemoryPrincipal("onlooker", "viewer"),
        }
        self.made: dict[str, Key] = {}
        self._sessions: dict[str, MemorySession] = {}
        self._numbers = itertools.count(1)
        self._wrong = 0

    def check_key(self, text: str) -> MemoryPrincipal | None:
        assert isinstance(text, str)
        return self.keys.get(text)

    def sign_in(self, key: str, source: str = "") -> MemorySignedIn:
        assert source, "attempts are counted by where they come from"
        if self._wrong >= 5:
            raise CohortError("TOO_MANY_ATTEMPTS", "too many wrong keys were tried", retry=Retry.SAFE, hint="Wait a minute.")
        if key not in self.keys:
            self._wrong += 1
            raise CohortError("KEY_INVALID", "this is not a key in force", hint="Use the key that `cohort up` printed.")
        number = next(self._numbers)
        self._sessions[f"cookie-{number}"] = MemorySession(self.keys[key], f"csrf-{number}")
        return MemorySignedIn(f"cookie-{number}", views.NOW_US + 12 * 3600 * views.SECOND_US)

    def session(self, cookie: str) -> MemorySession | None:
        return self._sessions.get(cookie)

    def restore(self, cookie: str, session: MemorySession) -> None:
        """Undo a sign-out."""
        self._sessions[cookie] = session

    def sign_out(self, cookie: str) -> None:
        self._sessions.pop(cookie, None)

    def create_key(self, name: str, role: Role, actor: str = "") -> NewKey:
        assert actor
        assert isinstance(role, Role)
        assert name
        key = Key(KeyId(f"key_{len(self.made):016d}"), name, role, views.NOW_US, None)
        text = f"ck_made_{len(self.made)}"
        self.made[key.id] = key
        self.keys[text] = MemoryPrincipal(name, role.value)
        return NewKey(text, key)

    def list_keys(self) -> Sequence[Key]:
        return list(self.made.values())

    def revoke_key(self, key_id: KeyId, actor: str = "") -> None:
        assert actor
        if key_id not in self.made:
            raise CohortError("NOT_FOUND", f"there is no key {key_id}", hint="List the keys to see their ids.")
        self.made[key_id] = replace(self.made[key_id], revoked_us=views.NOW_US)


class MemoryFlags:
    """The kill list; `confirmed` says whether the gateway is there."""

    def __init__(self) -> None:
        self.kills: dict[str, FlagKill] = {}
        self.confirmed = True

    def list(self) -> Sequence[FlagKill]:
        return [self.kills[name] for name in sorted(self.kills)]

    def kill(self, flag: str, prefix: bool, actor: str, reason: str) -> Killed:
        assert actor
        entry = flag + "*" * prefix
        self.kills.setdefault(entry, FlagKill(entry, reason, actor, views.NOW_US))
        return self._killed()

    def restore(self, flag: str, prefix: bool, actor: str, reason: str) -> Killed:
        assert actor
        assert isinstance(reason, str)
        if self.kills.pop(flag + "*" * prefix, None) is None:
            raise CohortError("NOT_FOUND", f"{flag} is not on the kill list", hint="See `cohort flag list`.")
        return self._killed()

    def _killed(self) -> Killed:
        return Killed(tuple(self.list()), self.confirmed, "" if self.confirmed else "the gateway is away")


class MemoryRouting:
    """Of `support` alone, whose gateway says `drift`."""

    def __init__(self) -> None:
        self.drift = 0.03
        self.replayed: list[tuple[Sequence[float], Mapping[str, float] | None]] = []
        self.samples = 500

    def chooses(self, service: str) -> bool:
        return service == "support"

    def view(self, service: str) -> RoutingView:
        policy = self._policy(service)
        state = RoutingState("rel_1", 0.53, 0.61, self.drift, {"control": 0.5, "adaptive": 0.61}, 1200, False, "adaptive")
        weak, strong = rate(9, 250), rate(2, 250)
        buckets = (BucketView("control", 50, 0.5, rate(1, 25), rate(0, 0)), BucketView("adaptive", 450, 0.61, weak, strong))
        moved = Target("rel_1", 0.61, views.NOW_US, "more conversations need the strong model")
        said = Suggestion(0.61, False, "not clear either way", weak, strong)
        return RoutingView(
            service, "rel_1", policy, state, 0.61, said, "it was moved less than an hour ago", buckets, (moved,), self.samples
        )

    def replay(self, service: str, boundaries: Sequence[float], weights: Mapping[str, float] | None = None) -> RoutingReplay:
        self._policy(service)
        self.replayed.append((boundaries, weights))
        rows = tuple(WhatIf(boundary, 0.6, 0.9, None, 1.25, 0.1) for boundary in boundaries)
        return RoutingReplay(service, "rel_1", self.samples, rows if self.samples else ())

    def fit(self, service: str) -> Fit:
        self._policy(service)
        return Fit({"bias": -2.0, "code": 1.5}, 600, 70, 0.3, 0.35, better=True)

    def _policy(self, service: str) -> RoutingPolicy:
        if service != "support":
            raise CohortError("NOT_FOUND", f"there is no service {service}", hint="See `cohort service list`.")
        return RoutingPolicy("big", "small")


class MemoryCaches:
    """Of `support` alone. `other`: false hits among 200 drawn. `fallen`: questions of 1,000 that are found no more.

    `stuck`: a store cannot be erased. `away`: the gateway does not answer.
    """

    def __init__(self) -> None:
        self.other, self.fallen = 1, 0
        self.stuck = self.away = False
        self.erased: list[tuple[Person, str]] = []

    def keeps(self, service: str) -> bool:
        return service == "support"

    def view(self, service: str) -> CacheView:
        if service != "support":
            raise CohortError("NOT_FOUND", f"there is no service {service}", hint="See `cohort service list`.")
        policy = CachePolicy(disk=True, semantic=SemanticPolicy())
        bands = (
            BandCounts(0.74, 90, 0, 10, 2, 3),
            BandCounts(0.85, 300, 120, 250, 6, self.other),
            BandCounts(0.9, 200, 90, 240, 1, 0),
            BandCounts(0.95, 100, 80, 150, 0, 0),
            BandCounts(0.99, 60, 60, 90, 0, 0),
        )
        hits = DriftCounts(Counts(350, 1000), Counts(350 - self.fallen, 1000))
        drift = {"rel_1": {"hits": hits, "false_hits": DriftCounts(Counts(1, 120), Counts(0, 7))}}
        sample = {"same": 196 - self.other, "unclear": 4, "other": self.other}
        counts = SemanticCounts(2000, 350, 310, 3, {"numbers": 40, "polarity": 12}, sample, 2000, bands, drift)
        answered = {"l1": 1800, "l3": 120, "l4": 350, "miss": 1650, "bypass": 90}
        held = {"l1": Held(812, 1_900_000, 4), "l3": Held(2400, 3_100_000), "l4": Held(700, 9_400_000)}
        figures = cache_figures(service, "rel_1", policy, CacheState({service: answered}, held, {service: counts}))
        silent = ("worker 1: out of reach",) if self.away else ()
        return CacheView(service, "rel_1", policy, ("cache.semantic",), 1 - self.away, silent, None if self.away else figures)

    def erase(self, person: Person, actor: str) -> Erasure:
        assert actor
        assert (person.unit is None) != (person.subject is None)
        self.erased.append((person, actor))
        if self.stuck:
            rows = [StoreErased(1, "cache", 3, ""), StoreErased(1, "responses", None, "the directory cannot be read")]
            said = [asdict(row) for row in rows]
            raise CohortError("CACHE_NOT_ERASED", "1 of 2 stores did not", retry=Retry.SAFE, hint="Ask again.", stores=said)
        return Erasure(person.unit or "ab" * 16, (StoreErased(1, "cache", 3, ""), StoreErased(1, "responses", 2, "")))


@dataclass(slots=True)
class House:
    """Everything a test turns: hand `control` to the app."""

    registry: MemoryRegistry
    rollouts: MemoryRollouts
    access: MemoryAccess
    parts: list[Part]
    kernel: Kernel
    flags: MemoryFlags
    routing: MemoryRouting
    caches: MemoryCaches
    control: ControlFace


def house(rollouts: Sequence[RolloutView] | None = None, services: Sequence[ServiceView] | None = None) -> House:
    """A house with a running rollout, an ended one of each kind, and a service that nobody has called."""
    running = views.rollout()
    hour = 3600 * views.SECOND_US
    ended = replace(views.harmful(), created_us=views.NOW_US - 151 * views.SECOND_US)
    passed = replace(views.promoted(), created_us=views.NOW_US - hour)
    registry = MemoryRegistry(
        [views.release("support", "v2"), views.release("support", "v1", stable=True), views.release("billing", "v1", stable=True)]
    )
    memory = MemoryRollouts(
        [running, ended, passed] if rollouts is None else rollouts,
        [views.service("support", running), views.idle("billing")] if services is None else services,
    )
    access, parts = (
        MemoryAccess(),
        [Part("database", True, "answers"), Part("controller", True, "ticked 0.2 s ago"), Part("gateway", True, "reached")],
    )
    clock = ManualClock(views.NOW_US)
    kernel = Kernel().populated()
    flags, routing, caches = MemoryFlags(), MemoryRouting(), MemoryCaches()
    rooms = (kernel.face, flags, *late_rooms(clock), routing, caches)
    control = ControlFace(registry, memory, access, clock, lambda: tuple(parts), lambda: Ingest(20_115, 0.4, 3, 512), *rooms)
    return House(registry, memory, access, parts, kernel, flags, routing, caches, control)
