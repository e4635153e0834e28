"""What `cohort up` runs: the gateway and control, from the settings; one supervisor per data directory."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort import __version__
from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import Entropy
from cohort.base.settings import DataDir, Settings
from cohort.ops.files import read_json, write_json, write_private
from cohort.ops.installation import Installation, compact, ensure_admin_key, ensure_installation, open_folder
from cohort.ops.lock import DirectoryLock, held
from cohort.ops.ports import answers, check_free
from cohort.ops.processes import Adopted, Found, end, own_processes, tell
from cohort.ops.supervisor import ProcessSpec, ProcessState, Supervisor, Wakeup

CONTROL_STOP_S = 15.0
GATEWAY_DRAIN_S = 30.0
"""The gateway's own default for how long calls in flight may go on."""
STOP_MARGIN_S = 10.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Listener:
    """One process and the port that must be free before it starts. `setting` is what to change when it is not."""

    spec: ProcessSpec
    host: str
    port: int
    setting: str


@dataclass(frozen=True, slots=True)
class Running:
    """The supervisor's own account, as `status` and `down` read it. `started_us` is the supervisor's start."""

    pid: int
    started_us: int
    ready_ms: int | None
    data_dir: str
    gateway_url: str
    control_url: str
    processes: tuple[ProcessState, ...]


# --- what is run ---------------------------------------------------------------------------------------------------------------


def listeners(settings: Settings, installation: Installation) -> tuple[Listener, Listener]:
    """Control and the gateway, in the order in which they are stopped. Writes the configuration each reads at start."""
    data = settings.data
    gateway = _config_file(data, "gateway", gateway_config(settings, installation))
    _check_limits(settings, gateway)
    control = _config_file(data, "control", control_config(settings, installation))
    return (
        _listener("control", "cohort.surfaces.http", control, settings.control, data, CONTROL_STOP_S),
        _listener("gateway", "cohort.gateway", gateway, settings.gateway, data, _gateway_stop_s(settings)),
    )


def _check_limits(settings: Settings, written: Path) -> None:
    """Have the gateway's own reader look at its configuration, so that a wrong limit is told now and not in a log.

    Raises:
        CohortError CONFIG_INVALID: names the limit.
    """
    if settings.gateway.limits:
        from cohort.gateway.settings import load_settings

        try:
            load_settings(written)
        except CohortError as error:
            field = f"gateway.{error.field}" if error.field else "gateway.limits"
            raise CohortError("CONFIG_INVALID", f"{settings.source}: gateway: {error.message}", field=field, hint=error.hint) from error


def gateway_config(settings: Settings, installation: Installation) -> dict[str, Any]:
    """What `python -m cohort.gateway --config FILE` reads."""
    data = settings.data
    return {
        "gateway_id": installation.gateway,
        "host": settings.gateway.host,
        "port": settings.gateway.port,
        "expose": settings.gateway.expose,
        "data_dir": str(data.gateway),
        "unit_key_file": str(data.unit_key),
        "link_token_file": str(data.link_token),
        "limits": dict(settings.gateway.limits),
    }


def control_config(settings: Settings, installation: Installation) -> dict[str, Any]:
    """What `python -m cohort.surfaces.http --config FILE` reads. `database_url` may be a reference: `env:NAME`, `file:/path`."""
    data = settings.data
    return {
        "installation": installation.id,
        "host": settings.control.host,
        "port": settings.control.port,
        "expose": settings.control.expose,
        "data_dir": str(data.root),
        "database_url": _database_reference(settings),
        "gateway_id": installation.gateway,
        "gateway_url": settings.gateway_url,
        "link_token_file": str(data.link_token),
        "unit_key_file": str(data.unit_key),
        "operator_key_file": str(data.operator_key),
        "admin_key_sha256_file": str(data.admin_key_sha256),
    }


def _gateway_stop_s(settings: Settings) -> float:
    """Longer than its drain, so that calls in flight may end."""
    return settings.gateway.limits.get("drain_s", GATEWAY_DRAIN_S) + STOP_MARGIN_S


def stop_bound_s(settings: Settings) -> float:
    """How long stopping everything may take."""
    return CONTROL_STOP_S + _gateway_stop_s(settings) + STOP_MARGIN_S


def _database_reference(settings: Settings) -> str:
    url = settings.database.url
    if url is None:
        return f"sqlite:///{settings.data.database}"
    if url.startswith(("env:", "file:", "sqlite:")):
        return url
    write_private(settings.data.database_url, url.encode())
    return f"file:{settings.data.database_url}"


def _config_file(data: DataDir, name: str, body: dict[str, Any]) -> Path:
    """Named by its contents and the program's version, so that equal command lines mean equal configuration."""
    folder = data.run / name
    folder.mkdir(mode=0o700, exist_ok=True)
    content = compact(body)
    path = folder / f"{hashlib.sha256(__version__.encode() + content).hexdigest()[:16]}.json"
    write_private(path, content)
    for old in folder.glob("*.json"):
        if old != path:
            old.unlink()
    return path


def _listener(name: str, module: str, config: Path, where: Any, data: DataDir, stop_s: float) -> Listener:
    spec = ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", module, "--config", str(config)),
        log=data.log(name),
        ready=lambda: answers(_local(where.host), where.port, "/ready"),
        stop_s=stop_s,
    )
    return Listener(spec, where.host, where.port, f"{name}.port")


def _local(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


# --- up ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Talk:
    """Where a start reports. `say`: one line for people. `show_key`: the admin key, once, at the first start."""

    say: Callable[[str], None]
    show_key: Callable[[str], None]
    ready: Callable[[Running], None]


def up(settings: Settings, clock: Clock, entropy: Entropy, talk: Talk) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP.

    Raises:
        CohortError ALREADY_RUNNING, PORT_IN_USE, BIND_REFUSED, DISK_FULL, CONFIG_INVALID: nothing was started.
        CohortError PROCESS_FAILED: what had started was stopped again.
    """
    open_folder(settings.data)
    lock = locked(settings.data)
    try:
        chosen = prepare(settings, clock, entropy, talk)
        supervise(settings, chosen, clock, talk)
    finally:
        lock.release()


def prepare(settings: Settings, clock: Clock, entropy: Entropy, talk: Talk) -> tuple[Listener, ...]:
    """Everything before the first process: checks, secrets, configuration. The lock must be held."""
    installation = ensure_installation(settings.data, clock, entropy)
    chosen = listeners(settings, installation)
    orphaned = orphans([listener.spec for listener in chosen])
    for listener in chosen:
        if listener.spec.name not in orphaned:
            check_free(listener.host, listener.port, listener.setting)
    ensure_admin_key(settings.data, entropy, talk.show_key)
    return chosen


def supervise(settings: Settings, chosen: Sequence[Listener], clock: Clock, talk: Talk) -> None:
    """Run `chosen` until told to stop; then stop them all."""
    data, started_us, ready_ms = settings.data, clock.now_us(), None

    def record(states: tuple[ProcessState, ...]) -> Running:
        running = Running(os.getpid(), started_us, ready_ms, str(data.root), settings.gateway_url, settings.control_url, states)
        try:
            write_json(data.state, dataclasses.asdict(running))
        except (CohortError, OSError) as error:
            talk.say(f"{data.state} could not be written, `cohort status` may be out of date: {error}")
        return running

    supervisor = Supervisor([listener.spec for listener in chosen], talk.say, record)
    with Wakeup() as wakeup:
        try:
            take_over(supervisor, [listener.spec for listener in chosen], talk.say)
            if supervisor.wait_ready(wakeup):
                ready_ms = (clock.now_us() - started_us) // 1000
                talk.ready(record(supervisor.states()))
                supervisor.run(wakeup)
            talk.say(f"stopping ({wakeup.stopped.name if wakeup.stopped else 'asked'})")
        finally:
            supervisor.stop()
            _forget(data)


def _forget(data: DataDir) -> None:
    """Without a lock the account means nothing; where it cannot be removed it does no harm."""
    with contextlib.suppress(OSError):
        data.state.unlink()


def locked(data: DataDir) -> DirectoryLock:
    """The data directory's lock, taken.

    Raises:
        CohortError ALREADY_RUNNING: with the other supervisor's process id and ports.
    """
    lock = DirectoryLock(data.lock)
    if lock.acquire():
        _forget(data)  # what a supervisor that was killed had written
        return lock
    now = read_running(data)
    where = f" as process {now.pid}: gateway {now.gateway_url}, dashboard {now.control_url}" if now else ""
    details: dict[str, Any] = {"pid": now.pid, "gateway_url": now.gateway_url, "control_url": now.control_url} if now else {}
    hint = "Use it, or run `cohort down` first."
    raise CohortError("ALREADY_RUNNING", f"Cohort already runs on {data.root}{where}", hint=hint, **details)


# --- orphans -------------------------------------------------------------------------------------------------------------------


def orphans(specs: Sequence[ProcessSpec]) -> Mapping[str, Found]:
    """Processes of a supervisor that was killed, by name. While they run, the gateway serves as before."""
    processes = own_processes()
    matches = {spec.name: next((found for found in processes if spec.kin(found)), None) for spec in specs}
    return {name: found for name, found in matches.items() if found is not None}


def take_over(supervisor: Supervisor, specs: Sequence[ProcessSpec], say: Callable[[str], None]) -> None:
    """Adopt an orphan with exactly this configuration that is ready; end any other, so that it is started afresh."""
    orphaned = orphans(specs)
    for spec in specs:
        found = orphaned.get(spec.name)
        if found is None:
            continue
        if found.argv == spec.argv and spec.ready():
            supervisor.adopt(spec.name, found)
        else:
            say(f"{spec.name}: process {found.pid} was left with another configuration or does not answer; ending it")
            end(Adopted(found), spec.stop_s)


# --- down, status --------------------------------------------------------------------------------------------------------------


def read_running(data: DataDir) -> Running | None:
    """What the supervisor wrote last; None when it has written nothing. It may be dead: see `running`."""
    body = read_json(data.state)
    if body is None:
        return None
    return Running(**{**body, "processes": tuple(ProcessState(**entry) for entry in body["processes"])})


def running(data: DataDir) -> Running | None:
    """The supervisor that holds the data directory now; None when none does."""
    return read_running(data) if held(data.lock) else None


def down(data: DataDir, within_s: float) -> int | None:
    """End the supervisor and everything it runs; its process id, or None when nothing ran.

    Also ends what a killed supervisor left behind.

    Raises:
        CohortError OUTCOME_UNKNOWN: it still runs after `within_s`.
    """
    if not held(data.lock):
        return _end_left_behind(data, within_s)
    deadline_s, told = time.monotonic() + within_s, None
    while held(data.lock):
        now = read_running(data)  # a supervisor that has only just started has written nothing yet
        if told is None and now is not None:
            told = now.pid
            tell(told, signal.SIGTERM)
        if time.monotonic() >= deadline_s:
            what = f"process {told or '(unknown)'} still runs after {within_s:g} s"
            raise CohortError("OUTCOME_UNKNOWN", what, retry=Retry.CHECK_FIRST, hint="Run `cohort status`; then `cohort down` again.")
        time.sleep(POLL_S)
    return told


def left_behind(data: DataDir) -> list[Found]:
    """Processes of this data directory without a supervisor, control first."""
    folders = {str(data.run / name): name for name in ("control", "gateway")}
    found = [process for process in own_processes() if len(process.argv) > 2 and process.argv[-2] == "--config"]
    mine = [process for process in found if str(Path(process.argv[-1]).parent) in folders]
    return sorted(mine, key=lambda process: process.argv[-1])


def _end_left_behind(data: DataDir, within_s: float) -> int | None:
    found = left_behind(data)
    for process in found:
        end(Adopted(process), within_s)
    return found[0].pid if found else None
