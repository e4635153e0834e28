"""The gateway process: put the parts together, serve, drain. The one place here that chooses clocks, randomness and environment."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.gateway.adaptive.router import AdaptiveRouter
from cohort.gateway.addresses import AddressGuard
from cohort.gateway.answering import Answering
from cohort.gateway.cache.assembly import assemble
from cohort.gateway.cache.caches import Caches
from cohort.gateway.cache.door import CacheDoor
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.chat import ChatDoor
from cohort.gateway.condition_door import ConditionDoor
from cohort.gateway.consulting import Consulting
from cohort.gateway.deadlines import Deadlines
from cohort.gateway.doors import Doors
from cohort.gateway.hosts import Hosts, bracketed
from cohort.gateway.http_server import Server
from cohort.gateway.inherited import inherited_socket
from cohort.gateway.kept_responses import KeptResponses
from cohort.gateway.keys import Keys
from cohort.gateway.link import Link
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.randomness import Randomness
from cohort.gateway.records import Recorder
from cohort.gateway.reliability.attempts import Attempts
from cohort.gateway.reliability.breakers import Breakers, log_circuit
from cohort.gateway.responses_door import ResponsesDoor
from cohort.gateway.settings import Settings, read_secret, read_unit_key
from cohort.gateway.shared.face import open_shared
from cohort.gateway.siblings import Siblings
from cohort.gateway.spend.allowances import Allowances
from cohort.gateway.spend.callers import Guard
from cohort.gateway.spend.door import SpendDoor
from cohort.gateway.spend.ledger import Ledger
from cohort.gateway.spool import Spool
from cohort.gateway.spool_reading import epoch_after
from cohort.gateway.table import Table
from cohort.gateway.telemetry.access import AccessLog
from cohort.gateway.telemetry.contents import Contents
from cohort.gateway.telemetry.contents_door import ContentsDoor
from cohort.gateway.telemetry.onward import onward
from cohort.gateway.turns import Turn
from cohort.gateway.upstreams import Upstreams

ADAPTIVE_VARIABLE = "COHORT_ADAPTIVE"
"""0: this process chooses nothing between a strong and a weak model; routes are asked as they are written."""
SWEEP_S = 5.0
PLACE_TRIES, PLACE_WAIT_S = 5, 0.02
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What numpy asks how many threads multiply. One: a worker has one core, and threads that wait for each other hold it up."""
YOUNG_OBJECTS_MAX = 10_000
"""Objects before the collector looks for cycles. Calls make none, but at the usual 700 it looked in every other turn: 2 us of 45 per call."""


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        CohortError PORT_IN_USE, BIND_REFUSED, ALREADY_RUNNING, CONFIG_INVALID: nothing was served.
    """
    for name in BLAS_THREADS:
        os.environ.setdefault(name, "1")
    clock = SystemClock()
    log = Log(settings.gateway_id, clock)
    unit_key = read_unit_key(settings.unit_key_file)
    token = read_secret(settings.link_token_file, "link_token_file")
    place = _place(settings.data_dir)
    try:
        epoch = epoch_after(settings.data_dir / "spool", clock.now_us())
        spool = Spool(settings.data_dir / "spool", settings.gateway_id, epoch, settings.limits, clock, log)
        parts = _assemble(settings, epoch, unit_key, token, spool, clock, log)
        await _serve(settings, epoch, parts, spool, log, place.give_up)
    finally:
        place.give_up()


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a process is made of, as far as it is started and stopped."""

    table: Table
    recorder: Recorder
    upstreams: Upstreams
    deadlines: Deadlines
    caches: Caches
    guard: Guard
    allowances: Allowances
    contents: Contents
    chat: ChatDoor
    link: Link
    kept: KeptResponses
    server: Server


def _assemble(settings: Settings, epoch: int, unit_key: bytes, token: str, spool: Spool, clock: SystemClock, log: Log) -> _Parts:
    """Every part of a process, wired; nothing listens, nothing is read yet. For the loop."""
    limits = settings.limits
    keys = Keys(os.environ, clock, limits.key_fresh_s, own_places(settings))
    table = Table(
        settings.data_dir, epoch, log, Breakers(lambda breaker, before: log_circuit(log, breaker, before)), settings.gateway_id, keys.warm
    )
    metrics = Metrics(settings.gateway_id if settings.link_socket is not None else "")
    turn = Turn(asyncio.get_running_loop(), spool)
    recorder = Recorder(settings.gateway_id, epoch, spool, metrics, clock, limits.rollouts_remembered, turn.record)
    if settings.access_log:
        recorder.access = AccessLog(settings.data_dir / "access.ndjson", settings.gateway_id, clock)
    upstreams = Upstreams(limits, turn.send, AddressGuard(settings.private_upstreams), clock)
    deadlines = Deadlines(limits.loop_late_s_max)
    entropy = Randomness(os.urandom)
    shared = open_shared(settings.shared_dir or settings.data_dir, clock, log)
    erased = Erased(clock, shared.erasures)
    caches = assemble(settings, erased, table, upstreams, keys, deadlines, metrics, entropy, os.environ, clock, log)
    attempts = Attempts(
        upstreams, keys, deadlines, entropy, clock, limits.answer_bytes_max, onward(settings.traceparent, settings.gateway_id, epoch)
    )
    guard = Guard(table.keys, clock, settings.expose, shared.lockout)
    allowances = Allowances(table.rules, lambda: Ledger(shared.directory / "spend", clock), clock, log)
    spool.before_write = allowances.settle_waiting
    answering = Answering(attempts, upstreams, deadlines, recorder, allowances, metrics)
    caches.consult(Consulting(table, recorder, answering, metrics, entropy, log).ask)
    router = AdaptiveRouter(os.environ.get(ADAPTIVE_VARIABLE) != "0", seen=shared.conversations)
    contents = Contents(settings.data_dir / "contents", epoch, limits, clock, log, erased, table.kills)
    doorway = (caches, deadlines, router, settings.gateway_id, guard, allowances, contents)
    chat = ChatDoor(table, recorder, answering, metrics, unit_key, entropy, limits, log, *doorway)
    link = Link(settings.gateway_id, epoch, token, table, spool, recorder, chat, limits)
    cache_door = CacheDoor(caches, unit_key)
    kept = KeptResponses(shared.directory / "responses", limits, clock, log, erased)
    responses = ResponsesDoor(kept, shared.given, entropy, unit_key)
    hosts = Hosts((bracketed(settings.host), *settings.hosts), anybody=settings.expose and not settings.hosts)
    spend, local = SpendDoor(guard, allowances), not settings.expose
    siblings = Siblings(settings.siblings, link.authorization)
    condition = ConditionDoor(table, chat, link, spool, upstreams, metrics, cache_door, attempts, spend, siblings, local)
    asked = (cache_door, unit_key, responses, spend, hosts, ContentsDoor(contents, unit_key))
    doors = Doors(table, chat, link, recorder, spool, metrics, condition, *asked, local)
    condition.server = server = Server(doors, limits, log, turn, metrics.refused)
    server.table_authorization = link.authorization
    return _Parts(table, recorder, upstreams, deadlines, caches, guard, allowances, contents, chat, link, kept, server)


async def _serve(settings: Settings, epoch: int, parts: _Parts, spool: Spool, log: Log, give_up: Callable[[], None]) -> None:
    """Listen until told to stop; then end what is under way, and let a successor take the place meanwhile."""
    spool.open()
    parts.table.load()
    parts.allowances.sweep()
    port = await _listen(parts.server, settings)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 10, 10)
    log.write("started", host=settings.host, port=port, pid=os.getpid(), epoch=epoch, table_version=parts.table.version)
    async with asyncio.TaskGroup() as group:
        syncing = group.create_task(
            _sync(_kept(spool, parts.allowances, parts.caches, parts.recorder.access), settings.limits.spool_sync_s, log)
        )
        keeping = group.create_task(parts.caches.run())
        sampling = group.create_task(parts.contents.run())
        sweeping = group.create_task(_sweep(parts.upstreams, parts.caches, parts.guard, parts.allowances, parts.kept, parts.contents))
        await _stop_signal()
        log.write("draining", in_flight=parts.chat.in_flight)
        parts.link.drain()
        parts.caches.retire()
        parts.contents.retire()
        await parts.server.take_no_more()
        spool.hand_over()
        give_up()  # from here on a successor may take the place, and accept from the socket they share
        await parts.server.drain()
        await parts.chat.close()
        keeping.cancel()
        sampling.cancel()
        syncing.cancel()
        sweeping.cancel()
    parts.upstreams.close()
    parts.caches.close()
    parts.deadlines.close()
    await asyncio.get_running_loop().shutdown_default_executor()
    parts.allowances.close()
    _last_lines(parts.recorder.access, log)
    spool.close()
    log.write("stopped")


def own_places(settings: Settings) -> list[Path]:
    """Files and folders of Cohort's own: whoever may create a release must not have one of them sent to its upstream as a key."""
    password = settings.cache_redis_password_file
    places = [settings.link_token_file.parent, settings.unit_key_file.parent, settings.data_dir]
    return places + ([password] if password is not None else []) + ([settings.shared_dir] if settings.shared_dir is not None else [])


class Place:
    """The data directory, for one process alone until it gives it up; the lock's file says whose."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def give_up(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _place(data_dir: Path) -> Place:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CohortError(
            "CONFIG_INVALID",
            f"data_dir {data_dir} cannot be used: {os.strerror(error.errno or 0)}",
            field="data_dir",
            hint="Choose another.",
        ) from error
    for _ in range(PLACE_TRIES):  # a supervisor looks now and then whether it is free, which takes microseconds
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PLACE_WAIT_S)
            continue
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        return Place(fd)
    os.close(fd)
    raise CohortError("ALREADY_RUNNING", f"another gateway uses {data_dir}", hint="Stop it, or give this one its own data_dir.")


async def _listen(server: Server, settings: Settings) -> int:
    where = f"{settings.host}:{settings.port}"
    try:
        if settings.link_socket is not None:
            await server.listen_beside(settings.link_socket)
        inherited = inherited_socket(os.environ, os.getpid())
        return await (server.listen_on(inherited) if inherited is not None else server.listen(settings.host, settings.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CohortError(
                "PORT_IN_USE", f"{where} is in use by another process", field="port", hint="Stop it, or set another `port`."
            ) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CohortError(
            "BIND_REFUSED", f"cannot listen on {where}: {reason}", field="host", hint="Use 127.0.0.1 and a free port."
        ) from error


async def _stop_signal() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _kept(spool: Spool, allowances: Allowances, caches: Caches, access: AccessLog | None) -> dict[str, Callable[[], None]]:
    """What is brought to disk now and then, by the name of the event that says it could not be."""
    kept = {"spool_not_synced": spool.sync, "ledger_not_synced": allowances.sync, "labels_not_synced": caches.sync}
    return kept if access is None else {**kept, "access_not_written": access.flush}


def _last_lines(access: AccessLog | None, log: Log) -> None:
    try:
        if access is not None:
            access.flush()
    except OSError as error:
        log.write("access_not_written", reason=os.strerror(error.errno or 0))


async def _sync(kept: dict[str, Callable[[], None]], every_s: float, log: Log) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        for event, keep in kept.items():
            try:
                await loop.run_in_executor(None, keep)
            except OSError as error:
                log.seldom(event, reason=os.strerror(error.errno or 0))


async def _sweep(
    upstreams: Upstreams, caches: Caches, guard: Guard, allowances: Allowances, kept: KeptResponses, contents: Contents
) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        kept.sweep()
        allowances.sweep()
        upstreams.sweep()
        caches.sweep()
        contents.sweep()
        guard.lockout.forget_old()
