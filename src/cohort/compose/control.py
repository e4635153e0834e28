"""The control process, put together: concrete classes are chosen and the environment is read here and nowhere below.

The gateway composes itself (`gateway/__main__.py`), because it must not import what stands here.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock, SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import ReleaseDigest
from cohort.base.settings import WORKERS_MAX, DataDir
from cohort.compose.health import Health
from cohort.compose.kernel import Kernel, build_kernel
from cohort.delivery.accounts import Accounts, Recent
from cohort.delivery.caches import Caches
from cohort.delivery.clients import Clients, spending
from cohort.delivery.contents import Contents
from cohort.delivery.controller import Controller
from cohort.delivery.damage import DamageWatch
from cohort.delivery.dataplane_http import HttpDataPlane
from cohort.delivery.dataplane_many import ManyPlanes, first_answer, trouble_words
from cohort.delivery.face import Registry
from cohort.delivery.flags import SqlFlags
from cohort.delivery.left_spools import LeftSpools
from cohort.delivery.manifests import release_routes
from cohort.delivery.otlp import Exporter, export_from
from cohort.delivery.otlp_spans import Upstream, UpstreamOf, upstream_in
from cohort.delivery.ports import Serving
from cohort.delivery.prices import day_of, priced
from cohort.delivery.reconciler import Reconciler
from cohort.delivery.registry import SqlRegistry
from cohort.delivery.rollouts import SqlRollouts
from cohort.delivery.routing_adapter import RoutingAdapter
from cohort.delivery.store_sql import RolloutStore
from cohort.gateway.contract import ReleaseRoute
from cohort.gateway.contract_cache import CachePolicy
from cohort.gateway.contract_routing import RoutingPolicy
from cohort.kernel.access import Access, Role, fingerprint
from cohort.storage.database import Database, open_database

CONTROLLER_LATE_S = 10.0
"""A controller that has not finished a round for this long is not well."""
GATEWAY_LATE_S = 10.0
STOP_S = 10.0
UNRECORDED = frozenset({"AUDIT_UNAVAILABLE", "AUDIT_BROKEN", "DISK_FULL"})
"""What the audit log says when it takes no record."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Control:
    """The control process without its surfaces. `start` begins the controller's loop, `stop` ends it and closes what was opened."""

    database: Database
    registry: SqlRegistry
    rollouts: SqlRollouts
    flags: SqlFlags
    routing: RoutingAdapter
    caches: Caches
    controller: Controller
    reconciler: Reconciler
    planes: list[HttpDataPlane]
    access: Access
    clients: Clients
    accounts: Accounts
    kernel: Kernel
    clock: Clock
    _stop: threading.Event
    _loop: threading.Thread
    _adapting: threading.Thread
    _spans: threading.Thread | None = None

    def start(self) -> None:
        self.kernel.start()
        self._loop.start()
        self._adapting.start()
        if self._spans is not None:
            self._spans.start()

    def stop(self) -> None:
        self._stop.set()
        if self._loop.is_alive():
            self._loop.join(STOP_S)
        if self._adapting.is_alive():
            self._adapting.join(STOP_S)
        if self._spans is not None and self._spans.is_alive():
            self._spans.join(STOP_S)
        self.kernel.stop()
        for plane in self.planes:
            plane.close()
        self.database.close()

    def health(self) -> list[Health]:
        """Readiness, part by part; answers within a second."""
        return [self._database_health(), self._controller_health(), self._gateway_health(), self._outcomes_health(), *self.kernel.health()]

    def _database_health(self) -> Health:
        try:
            self.database.check()
        except CohortError as error:
            return Health("database", False, error.message)
        return Health("database", True, "answers")

    def _controller_health(self) -> Health:
        ticked_us = self.controller.ticked_us
        if ticked_us is None:
            return Health("controller", False, f"has not finished a round yet ({self.controller.trouble or 'starting'})")
        age_s = (self.clock.now_us() - ticked_us) / 1e6
        late = age_s > CONTROLLER_LATE_S
        trouble = f" ({self.controller.trouble})" if self.controller.trouble else ""
        return Health("controller", not late, f"last round {age_s:.1f} s ago{trouble}")

    def _gateway_health(self) -> Health:
        reached_us, state = self.reconciler.reached_us, self.reconciler.state
        if reached_us is None or state is None:
            return Health("gateway", False, "not reached yet")
        age_s = (self.clock.now_us() - reached_us) / 1e6
        troubles = "".join(f"; {words}" for words in trouble_words(state.troubles))
        return Health("gateway", age_s <= GATEWAY_LATE_S, f"table {state.table_version}, reached {age_s:.1f} s ago{troubles}")

    def _outcomes_health(self) -> Health:
        """Never a reason not to serve: what could not be read is gone, and waiting does not bring it back. It is said until control restarts."""
        unknown, late = self.controller.passed_over
        taken = f"{self.controller.records_taken} taken, {self.controller.behind_bytes} bytes wait"
        taken += f"; in no evidence: {unknown} of unknown rollouts, {late} too late" if unknown or late else ""
        if self.controller.damage is not None:
            taken += f"; {self.controller.damages} places of the spool could not be read: {self.controller.damage}"
        left = self.controller.left.troubles
        return Health("outcomes", not left, "; ".join((taken, *left)))


def build_control(config: Mapping[str, Any], environ: Mapping[str, str]) -> Control:
    """Control from what the supervisor wrote (`ops.configurations.control_config`): opens and migrates the database, imports the first keys.

    Raises:
        CohortError CONFIG_INVALID, DATABASE_UNAVAILABLE, DATABASE_NEWER, DATABASE_DAMAGED: nothing was started.
    """
    clock = SystemClock()
    database = open_database(_resolved(str(config["database_url"]), environ))
    database.migrate()
    access = Access(
        database, clock, record=lambda body: kernel.record_key(body), ended=lambda connection, key: kernel.end_minted(connection, key)
    )
    registry = SqlRegistry(database, clock, changed=lambda: controller.tell_soon())
    store = RolloutStore(database)
    planes = _planes(config)
    serving: Serving = planes[0] if len(planes) == 1 else ManyPlanes(planes)
    damaged = DamageWatch(registry, clock)
    routes = _Routes(registry, clock)
    reconciler = Reconciler(store, serving, routes, clock, spending)
    left = LeftSpools(_left_folders(config, len(planes)))
    controller = Controller(store, planes[0], reconciler, clock, damaged, lambda: rollouts.changed(), planes[1:], left)
    rollouts = SqlRollouts(store, registry, controller, reconciler, clock, secrets.token_bytes, damaged)
    clients = Clients(database, clock, record=lambda body: kernel.record_key(body), changed=controller.tell_soon)
    contents = Contents(planes, lambda body: kernel.note(body))
    accounts = Accounts(database, controller.recent, first_answer([plane.balances for plane in planes]), contents)
    kernel = build_kernel(config, database, clock, environ)
    _import_keys(access, config)
    flags = SqlFlags(database, reconciler, clock, kernel.note)
    routing = RoutingAdapter(store, routes.policy, lambda: reconciler.state, clock, kernel.note)
    caches = Caches(store, routes.cache, planes, kernel.note)
    stop = threading.Event()
    adapting = threading.Thread(target=routing.run, args=(stop,), name="routing", daemon=True)
    loop = threading.Thread(target=controller.run, args=(stop,), name="controller", daemon=True)
    rooms = (database, registry, rollouts, flags, routing, caches, controller, reconciler, planes, access, clients, accounts, kernel)
    return Control(*rooms, clock, stop, loop, adapting, _exporting(accounts.recent, environ, stop, routes.upstream))


def _exporting(recent: Recent, environ: Mapping[str, str], stop: threading.Event, upstream_of: UpstreamOf) -> threading.Thread | None:
    """What posts calls as spans, where OpenTelemetry's variables say where to."""
    export = export_from(environ)
    if export is None:
        return None
    exporter = Exporter(export, upstream_of=upstream_of)
    recent.told = exporter.offer
    return threading.Thread(target=exporter.run, args=(stop,), name="spans", daemon=True)


def _planes(config: Mapping[str, Any]) -> list[HttpDataPlane]:
    """The gateway's workers: by its address where there is one, each by its socket where there are several."""
    url, token = str(config["gateway_url"]), _read(config["link_token_file"])
    return [HttpDataPlane(url, token, str(path)) for path in config.get("gateway_sockets", ())] or [HttpDataPlane(url, token)]


def _left_folders(config: Mapping[str, Any], workers: int) -> list[Path]:
    """Where workers beyond those there are would have their spools."""
    data = DataDir(Path(str(config["data_dir"])))
    return [data.worker_folder(number) / "spool" for number in range(workers + 1, WORKERS_MAX + 1)]


class _Routes:
    """A release as the gateway needs it, by digest, at today's prices; releases never change, so each is read once."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._known: dict[str, ReleaseRoute | None] = {}

    def __call__(self, digest: str) -> ReleaseRoute | None:
        if digest not in self._known:
            release = self._registry.find(ReleaseDigest(digest))
            self._known[digest] = None if release.kind == "http" else release_routes(release)
        known = self._known[digest]
        return None if known is None else priced(known, day_of(self._clock.now_us()))

    def policy(self, digest: str) -> RoutingPolicy | None:
        """How a release chooses between two of its routes; None when it does not, or cannot be read."""
        route = self._readable(digest)
        return route.routing if route is not None else None

    def cache(self, digest: str) -> CachePolicy | None:
        """Whose answers a release keeps; None when it keeps none, or cannot be read."""
        route = self._readable(digest)
        return route.cache if route is not None else None

    def upstream(self, digest: str, route: str) -> Upstream | None:
        """Where a release's route leads; None when it cannot be read."""
        return upstream_in(self._readable(digest), route)

    def _readable(self, digest: str) -> ReleaseRoute | None:
        try:
            return self(digest)
        except CohortError as error:
            if error.code not in ("RELEASE_DAMAGED", "RELEASE_UNKNOWN"):
                raise
            return None


def _import_keys(access: Access, config: Mapping[str, Any]) -> None:
    """The admin's key, of which only the hash was kept, and the one that commands on this machine use.

    One that cannot be recorded is not taken in: control starts without it, as it starts with a broken audit log.
    """
    admin, operator = _read(config["admin_key_sha256_file"]), fingerprint(_read(config["operator_key_file"]))
    for name, role, sha256 in (("admin", Role.ADMIN, admin), ("operator", Role.MANAGER, operator)):
        try:
            access.import_key(name, role, sha256)
        except CohortError as error:
            if error.code not in UNRECORDED:
                raise
            _log.error("the key %s was not taken in: %s", name, error)


def _resolved(reference: str, environ: Mapping[str, str]) -> str:
    """The database URL behind `env:NAME` or `file:/path`, or the URL itself."""
    if reference.startswith("env:"):
        name = reference.removeprefix("env:")
        if name not in environ:
            raise CohortError("CONFIG_INVALID", f"database.url: the environment has no {name}", field="database.url", hint=f"Set {name}.")
        return environ[name]
    return _read(reference.removeprefix("file:")) if reference.startswith("file:") else reference


def _read(path: Any) -> str:
    try:
        return Path(str(path)).read_text().strip()
    except OSError as error:
        raise CohortError(
            "CONFIG_INVALID", f"{path} cannot be read: {error.strerror}", hint="Start with `cohort up`, which creates it."
        ) from error
