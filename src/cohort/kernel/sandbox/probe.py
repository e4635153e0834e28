"""The start-up probe: some of the attacks, tried for real against the sandbox that will be used, through its port.

A level is what was shown here and now, never what a backend says of itself. Without evidence there is no level.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import Entropy
from cohort.kernel.face import Containment, ProbeRow
from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox import attacks_driver, landlock
from cohort.kernel.sandbox import attacks_files as files
from cohort.kernel.sandbox import attacks_floods as floods
from cohort.kernel.sandbox import attacks_kernel as kernel
from cohort.kernel.sandbox import attacks_processes as processes
from cohort.kernel.sandbox.attacks import Attack
from cohort.kernel.sandbox.probe_fixes import fixes_for
from cohort.kernel.sandbox.probe_level import Shown, level_of, soft_limits
from cohort.kernel.sandbox.probe_machine import look
from cohort.kernel.sandbox.probe_scene import FORKS_ALLOWED, MEMORY_ALLOWED_BYTES, Scene, scene

LIMITS = Limits(memory_bytes=MEMORY_ALLOWED_BYTES, processes=FORKS_ALLOWED, command_s=10.0)
LABEL = "probe"
"""Whose order the probe's commands are, in the journal of executions: no action's."""
ROW_WAIT_S = 1.0
DETAIL_CHARS_MAX = 200
PROBED: tuple[Attack, ...] = (
    files.HOME_SECRET,
    files.SHADOW_FILE,
    files.DOTDOT,
    files.SYMLINK,
    files.HARD_LINK,
    files.KERNEL_KNOBS,
    kernel.MOUNT,
    kernel.REMOUNT,
    kernel.NESTED,
    kernel.KEYRING,
    kernel.RISKY,
    processes.PROCESSES,
    processes.SIGNALS,
    processes.ABSTRACT,
    processes.TCP_LOOPBACK,
    processes.UDP,
    processes.FAMILIES,
    floods.FORK_BOMB,
    floods.MEMORY_BOMB,
)
"""Those that need nothing of the host but a file, a process and a socket, and no time."""
ROOTS = frozenset({files.SHADOW_FILE.name})
"""Rows that mean nothing unless Cohort itself runs as root."""
LINUX_ONLY = frozenset(attack.name for attack in PROBED if attack.name in {row.name for row in kernel.ROWS}) | {
    files.KERNEL_KNOBS.name,
    processes.PROCESSES.name,
    processes.ABSTRACT.name,
    processes.FAMILIES.name,
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the caller knows. `folder`: outside of every workspace, where the probe may put a file. `cgroups`: whether they limit this backend."""

    folder: Path
    clock: Clock
    entropy: Entropy
    cgroups: bool


def probe(sandbox: Sandbox, place: Place, around: Surroundings) -> Containment:
    """Attack `sandbox` from inside, in the workspace `place`, which should be the probe's own; it is left as it was. Takes a second or less.

    Raises:
        CohortError SANDBOX_UNAVAILABLE: the sandbox cannot be started, or the scene cannot be set; nothing was shown.
    """
    token = around.entropy(8).hex()
    impossible = _impossible(around.cgroups)
    tried = [attack for attack in PROBED if attack.name not in impossible]
    try:
        with scene(place, around.folder, token) as set_scene:
            said = _attack(sandbox, place, tried, set_scene)
            stopped = {attack.name: _stopped(attack, said, set_scene) for attack in tried}
    except OSError as error:
        raise CohortError(
            "SANDBOX_UNAVAILABLE", f"the probe cannot be set up: {error}", retry=Retry.SAFE, hint="Check the folder."
        ) from error
    shown = Shown(PROBED, stopped, impossible, place.hard_quota, around.cgroups)
    return _finding(sandbox, shown, said, around)


def nothing_shown(clock: Clock, why: str, hint: str) -> Containment:
    """What is known where no sandbox could be tried at all: level 0."""
    fixes = fixes_for(look(), Level.NONE)
    return Containment(
        "none", Level.NONE, clock.now_us(), (), (why,), (*([hint] if hint and not fixes else []), *fixes), _kernel(), landlock.abi()
    )


def _kernel() -> str:
    return f"{platform.system()} {platform.release()}"


def _attack(sandbox: Sandbox, place: Place, tried: Sequence[Attack], set_scene: Scene) -> dict[str, tuple[str, ...]]:
    """What each handed in. One that brings its own sandbox down has handed in nothing, but was tried."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        for group in ([attack for attack in tried if not attack.alone], *([attack] for attack in tried if attack.alone)):
            request = attacks_driver.request(group, set_scene.told, ROW_WAIT_S)
            done = sandbox.run(place, LIMITS, Command(attacks_driver.ARGV, stdin=request, label=LABEL))
            if done.stopped_by is not None:
                found |= {attack.name: () for attack in group if attack.alone}
            found |= attacks_driver.evidence(done.stdout)
    finally:
        sandbox.close(place)
    return found


def _stopped(attack: Attack, said: dict[str, tuple[str, ...]], set_scene: Scene) -> bool | None:
    if attack.name not in said:
        return None
    return not set_scene.succeeded(attack, said[attack.name])


def _impossible(cgroups: bool) -> frozenset[str]:
    """Rows that cannot be tried: root's where we are not, Linux's elsewhere, and the memory bomb where only a cgroup could stop it and there is none."""
    found: frozenset[str] = frozenset() if os.geteuid() == 0 else ROOTS
    if sys.platform != "linux":
        found |= LINUX_ONLY
    return found if cgroups else found | {floods.MEMORY_BOMB.name}


def _finding(sandbox: Sandbox, shown: Shown, said: dict[str, tuple[str, ...]], around: Surroundings) -> Containment:
    level = level_of(shown, sandbox.level)
    rows = tuple(_row(attack, shown, said) for attack in PROBED)
    if level < sandbox.level:
        through = ", ".join(row.name for row in rows if row.stopped is False)
        why = f"got through: {through}" if through else "; ".join(soft_limits(shown)) or "not every claim could be tried"
        _log.error("%s shows isolation level %d of %d: %s", sandbox.name, level, sandbox.level, why)
    return Containment(
        backend=sandbox.name,
        level=level,
        probed_us=around.clock.now_us(),
        rows=rows,
        soft=soft_limits(shown) if level >= Level.FILES else (),
        fixes=fixes_for(look(), level),
        kernel=_kernel(),
        landlock=landlock.abi(),
    )


def _row(attack: Attack, shown: Shown, said: dict[str, tuple[str, ...]]) -> ProbeRow:
    if attack.name in shown.impossible:
        return ProbeRow(attack.name, None, "cannot be tried here")
    stopped = shown.stopped.get(attack.name)
    if stopped is None:
        return ProbeRow(attack.name, None, "the attacker ended before it")
    if stopped:
        return ProbeRow(attack.name, True, attack.stopped_by)
    return ProbeRow(attack.name, False, f"got through: {attack.tries}; {' '.join(said.get(attack.name, ()))}"[:DETAIL_CHARS_MAX])
