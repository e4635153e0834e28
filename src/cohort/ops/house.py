"""`cohort up` and `cohort down`: one supervisor per data directory, and what one that was killed left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import Entropy
from cohort.base.settings import DataDir, Settings
from cohort.ops.configurations import EMBEDDINGS, Listener, forget_samples, listeners
from cohort.ops.files import read_json, write_json
from cohort.ops.installation import ensure_admin_key, ensure_installation, open_folder
from cohort.ops.lock import DirectoryLock, held
from cohort.ops.ports import check_free
from cohort.ops.processes import Adopted, Found, end, own_processes, tell
from cohort.ops.supervisor import ProcessSpec, ProcessState, Supervisor, Wakeup

ADOPT_S = 5.0
"""How long a process that was left behind may take to say that it is ready before it is replaced."""
POLL_S = 0.05


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
    embeddings_url: str | None = None


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
    specs = [listener.spec for listener in chosen]
    orphaned = orphans(specs)
    served = bool(surplus(settings.data, specs)) or any(spec.name in orphaned for spec in specs if spec.listening is not None)
    for listener in {(listener.host, listener.port): listener for listener in chosen}.values():
        if not (served if listener.spec.listening is not None else listener.spec.name in orphaned):
            check_free(listener.host, listener.port, listener.setting)
    ensure_admin_key(settings.data, entropy, talk.show_key)
    forget_samples(settings.data, settings.gateway.workers)
    return chosen


def supervise(settings: Settings, chosen: Sequence[Listener], clock: Clock, talk: Talk) -> None:
    """Run `chosen` until told to stop; then stop them all."""
    data, started_us, ready_ms = settings.data, clock.now_us(), None

    def record(states: tuple[ProcessState, ...]) -> Running:
        urls = (settings.gateway_url, settings.control_url)
        embeddings_url = settings.embeddings.url if settings.embeddings else None
        running = Running(os.getpid(), started_us, ready_ms, str(data.root), *urls, states, embeddings_url)
        try:
            write_json(data.state, dataclasses.asdict(running))
        except (CohortError, OSError) as error:
            talk.say(f"{data.state} could not be written, `cohort status` may be out of date: {error}")
        return running

    supervisor = Supervisor([listener.spec for listener in chosen], talk.say, record)
    with Wakeup() as wakeup:
        try:
            take_over(supervisor, [listener.spec for listener in chosen], talk.say, data)
            if supervisor.wait_ready(wakeup):
                ready_ms = (clock.now_us() - started_us) // 1000
                talk.ready(record(supervisor.states()))
                supervisor.run(wakeup)
            talk.say(f"stopping ({wakeup.stopped.name if wakeup.stopped else 'asked'})")
        finally:
            supervisor.stop()
            for listener in chosen:
                if listener.spec.listening is not None:
                    listener.spec.listening.close()
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
    matches = {spec.name: _serving(spec, [found for found in processes if spec.kin(found)]) for spec in specs}
    return {name: found for name, found in matches.items() if found is not None}


def _serving(spec: ProcessSpec, kin: Sequence[Found]) -> Found | None:
    """Of several the one that has the place; the others end what they had begun."""
    holder = spec.place.read_text(encoding="ascii", errors="replace").strip() if spec.place is not None and spec.place.exists() else ""
    return next((found for found in kin if str(found.pid) == holder), kin[0] if kin else None)


def surplus(data: DataDir, specs: Sequence[ProcessSpec]) -> list[Found]:
    """Processes of a supervisor that was killed which no spec stands for: the settings have fewer by now. Nobody would tell them of a new table."""
    folders = {Path(spec.argv[-1]).parent for spec in specs}
    return [found for found in left_behind(data) if Path(found.argv[-1]).parent not in folders]


def take_over(supervisor: Supervisor, specs: Sequence[ProcessSpec], say: Callable[[str], None], data: DataDir) -> None:
    """Adopt an orphan with exactly this configuration that is ready; end any other, so that it is started afresh where it is still wanted."""
    orphaned, fresh = orphans(specs), list[ProcessSpec]()
    unfit: list[tuple[Adopted, float]] = []
    for spec in specs:
        found = orphaned.get(spec.name)
        if found is not None and found.argv == spec.argv and _answers(spec, Adopted(found)):
            supervisor.adopt(spec.name, found)
            continue
        fresh.append(spec)
        if found is not None:
            say(f"{spec.name}: process {found.pid} was left with another configuration or does not answer; ending it")
            unfit.append((Adopted(found), spec.stop_s))
    for found in surplus(data, specs):
        say(f"{Path(found.argv[-1]).parent.name}: process {found.pid} was left, and the settings no longer have it; ending it")
        unfit.append((Adopted(found), max(spec.stop_s for spec in specs)))
    if unfit:
        _end_all(unfit, fresh)


def _end_all(unfit: Sequence[tuple[Adopted, float]], fresh: Sequence[ProcessSpec]) -> None:
    """End them side by side, each within its seconds.

    Their sockets go with them, so that of those which are started next is bound before: who connects meanwhile waits in its queue.
    """
    for spec in fresh:
        if spec.listening is not None:
            with contextlib.suppress(OSError):  # starting the successor says what is wrong
                spec.listening.fileno()
    for handle, _ in unfit:
        handle.send(signal.SIGTERM)
    for handle, stop_s in unfit:
        end(handle, stop_s)


def _answers(spec: ProcessSpec, handle: Adopted) -> bool:
    """Whether it says that it is ready, within ADOPT_S; a busy machine may be slow to answer."""
    deadline_s = time.monotonic() + ADOPT_S
    while not spec.ready():
        if handle.poll() is not None or time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


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
    folders = {str(folder) for folder in (data.run / "control", data.run / EMBEDDINGS, *data.run.glob("gateway*"))}
    found = [process for process in own_processes() if len(process.argv) > 2 and process.argv[-2] == "--config"]
    mine = [process for process in found if str(Path(process.argv[-1]).parent) in folders]
    return sorted(mine, key=lambda process: process.argv[-1])


def _end_left_behind(data: DataDir, within_s: float) -> int | None:
    found = left_behind(data)
    for process in found:
        end(Adopted(process), within_s)
    return found[0].pid if found else None
