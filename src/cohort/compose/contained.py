"""What contains agents on this machine: where their files are, and the sandbox that a probe by attack has shown to be the best there is."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import Entropy, WorkspaceId
from cohort.compose.leftovers import MOUNTS
from cohort.compose.probing import PROBE_SIZE, PROBE_UID, choose_by_attack
from cohort.kernel.face import Containment
from cohort.kernel.machine.holding import Mechanisms
from cohort.kernel.machine.priority import give
from cohort.kernel.model import Command, Completed, Held, Level, Limits, Place, Priority
from cohort.kernel.ports import Running, Sandbox
from cohort.kernel.sandbox import cgroups
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.egress import Proxy
from cohort.kernel.sandbox.spawner import OnSpawn, Spawner
from cohort.kernel.sandbox.ways_out import Fund
from cohort.kernel.workspaces.backend import Backend
from cohort.kernel.workspaces.backend_directory import DirectoryBackend
from cohort.kernel.workspaces.backend_image import ImageBackend, available
from cohort.kernel.workspaces.beneath import Opener

PROBE_WAIT_S = 30.0

_log = logging.getLogger(__name__)


def storage(root: Path, installation: str, clock: Clock, opener: Opener) -> Backend:
    """Images with a hard quota where they can be mounted, directories elsewhere. Errors: WORKSPACE_UNAVAILABLE."""
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return DirectoryBackend(str(root), clock, opener)
    mounts = MOUNTS / installation
    why = available(str(root / "images"), str(mounts))
    if why is None:
        return ImageBackend(str(root / "images"), str(mounts))
    _log.warning("workspaces have no hard quota here: %s", why)
    return DirectoryBackend(str(root), clock, opener)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told what runs. `on_egress`: the command's label, and the proxy's verdict. `fund`: pays for the bytes of a workspace."""

    on_spawn: OnSpawn
    on_egress: Callable[[str, Any], None]
    fund: Callable[[str, int], Fund]


class Contained:
    """The port `Sandbox`: the backend that the probe has chosen. Before that, whoever asks waits for it."""

    def __init__(
        self, backend: Backend, folder: Path, hooks: Hooks, clock: Clock, entropy: Entropy, installation: str, private: Sequence[str] = ()
    ) -> None:
        """`folder`: outside of every workspace. `installation`: names the control groups. `private`: as for `Proxy`. Errors: FIELD_INVALID."""
        hierarchy = cgroups.find(parent=f"cohort-{installation}").hierarchy
        self._backend = backend
        self._folder = folder
        self._clock = clock
        self._entropy = entropy
        self.private_uids = os.geteuid() == 0
        self._priority = Held.NOT_ENFORCED
        self._spawner = Spawner(begun=self._lower)
        self._proxy = Proxy(private)
        self._groups = None if hierarchy is None else cgroups.Cgroups(hierarchy)
        self._parts = Parts(self._spawner, clock, hooks.on_spawn, self._proxy, hooks.on_egress, hooks.fund, self._groups)
        self._probed = threading.Event()
        self._chosen: Sandbox | None = None
        self._found: Containment | None = None
        self._trouble = "the probe has not ended"
        self._lock = threading.Lock()
        self._waited_for: Counter[WorkspaceId] = Counter()
        self._started: dict[WorkspaceId, list[Running]] = {}

    @property
    def name(self) -> str:
        return self._chosen.name if self._chosen is not None else "none"

    @property
    def level(self) -> Level:
        """What the probe has shown; NONE when it could not be made, or does not end."""
        self._probed.wait(PROBE_WAIT_S)
        return self._found.level if self._found is not None else Level.NONE

    def mechanisms(self) -> Mechanisms:
        """What there is to hold limits with, as far as it is known: a backend that was not chosen holds nothing."""
        return Mechanisms(
            sys.platform,
            cgroup=self._groups is not None and self.name != "none",
            namespaces=self.name == "bubblewrap",
            rlimits=self.name in ("bubblewrap", "confined", "limits", "seatbelt"),
            job_object=self.name == "job-object",
            watchdog=self._groups is None and self.name in ("bubblewrap", "confined", "limits"),
            no_network=self.name in ("confined", "seatbelt"),
            hard_disk_quota=self._backend.hard,
            priority=self._priority is not Held.NOT_ENFORCED,
        )

    def found(self) -> Containment | None:
        """What was probed; None before, and when nothing could be."""
        return self._found

    @property
    def trouble(self) -> str:
        """Why there is no sandbox; empty when there is one."""
        return "" if self._chosen is not None else self._trouble

    def choose(self) -> Containment | None:
        """Probe what there is, best first, and take the best. Once, before anything else; takes a second or two."""
        try:
            with self._probe_place() as place:
                choice, self._found = choose_by_attack(self._parts, place, self._folder, self._clock, self._entropy)
                choice.sandbox.close(place)
            self._chosen = choice.sandbox
        except CohortError as error:
            self._trouble = error.message
            _log.error("agents' commands are refused: %s", error)
        finally:
            self._probed.set()
        return self._found

    def run(self, place: Place, limits: Limits, command: Command) -> Completed:
        sandbox = self._ready()
        with self._lock:
            self._waited_for[place.workspace] += 1
        try:
            return sandbox.run(place, limits, command)
        finally:
            with self._lock:
                self._waited_for[place.workspace] -= 1

    def start(self, place: Place, limits: Limits, command: Command) -> Running:
        running = self._ready().start(place, limits, command)
        with self._lock:
            before = self._started.get(place.workspace, [])
            self._started[place.workspace] = [*(one for one in before if one.wait(0) is None), running]
        return running

    def busy(self, workspace: WorkspaceId) -> bool:
        """Whether anything runs in `workspace`."""
        with self._lock:
            going_on = list(self._started.get(workspace, ()))
            if self._waited_for[workspace] > 0:
                return True
        return any(running.wait(0) is None for running in going_on)

    def close(self, place: Place) -> None:
        if self._chosen is not None:
            self._chosen.close(place)

    def stop(self) -> None:
        """End every sandbox: they are children of the spawner and end with it."""
        self._proxy.close()
        self._spawner.close()
        if self._groups is not None:
            self._groups.close()

    def _lower(self, pid: int) -> None:
        """Commands come after control and the gateway: what the spawner is given, all it starts inherits."""
        self._priority = give(pid, Priority.LOW)

    def _ready(self) -> Sandbox:
        self._probed.wait(PROBE_WAIT_S)
        if self._chosen is None:
            what = f"there is no sandbox: {self._trouble}"
            raise CohortError("SANDBOX_UNAVAILABLE", what, retry=Retry.SAFE, hint="Run `cohort doctor`.")
        return self._chosen

    @contextmanager
    def _probe_place(self) -> Iterator[Place]:
        """A workspace of the probe's own, as agents' are, made for it and removed. Errors: WORKSPACE_UNAVAILABLE, DISK_FULL."""
        name = f"probe{self._entropy(8).hex()}"
        uid, gid = (PROBE_UID, PROBE_UID) if self.private_uids else (os.geteuid(), os.getegid())
        try:
            self._backend.make(name, PROBE_SIZE)
            self._backend.assign(name, uid if self.private_uids else None)
            root = self._backend.attach(name, PROBE_SIZE)
            yield Place(WorkspaceId(name), root, uid, gid, self._backend.hard, self._backend.read_only)
        finally:
            try:
                self._backend.remove(name)
            except CohortError as error:
                _log.warning("the probe's workspace is left: %s", error)
