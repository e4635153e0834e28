"""Which sandbox this machine can have: the best one whose level a probe has shown."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.kernel.model import Level
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.confined import GAPS as CONFINED_GAPS
from cohort.kernel.sandbox.confined import confined
from cohort.kernel.sandbox.limits import GAPS as LIMITS_GAPS
from cohort.kernel.sandbox.limits import limited
from cohort.kernel.sandbox.seatbelt import GAPS as SEATBELT_GAPS
from cohort.kernel.sandbox.seatbelt import Seatbelt
from cohort.kernel.sandbox.windows import GAPS as WINDOWS_GAPS
from cohort.kernel.sandbox.windows import JobObject

TRIAL_WAIT_S = 10.0
TRIAL_UID = 200_000
"""Whom root becomes for the trial: nobody's private uid, which begin above."""
SOFT_GAPS = (
    "memory is limited softly, by a watchdog that looks ten times a second",
    "disk is limited only where the workspace's quota is hard",
)

Probe = Callable[[Sandbox], Level]
"""Runs attacks against a backend and says which level it has shown."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend this system may have. `claims`: the most it could show; `make`: builds it at the level it has shown."""

    name: str
    claims: Level
    make: Callable[[Level], Sandbox]
    gaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a better backend is not to be had, and the exact way to change that."""

    backend: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The sandbox. `gaps`: what it does not hold; `obstacles`: why it is not a better one."""

    sandbox: Sandbox
    gaps: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]


def choose(parts: Parts, probe: Probe | None = None, isolation_min: Level = Level.NONE) -> Choice:
    """The best backend here. Without a probe each is taken for what it claims.

    Raises:
        CohortError LEVEL_TOO_LOW: the best one has shown less than `isolation_min`.
    """
    obstacles: list[Obstacle] = []
    best: tuple[Level, Candidate] | None = None
    for candidate in candidates(parts, obstacles):
        try:
            shown = candidate.claims if probe is None else min(candidate.claims, probe(candidate.make(candidate.claims)))
        except CohortError as error:
            obstacles.append(Obstacle(candidate.name, str(error), error.hint))
            continue
        if best is None or shown > best[0]:
            best = (shown, candidate)
        if shown == candidate.claims:
            break
        obstacles.append(Obstacle(candidate.name, f"has shown level {shown.value} of {candidate.claims.value}", "Run `cohort doctor`."))
    if best is None or best[0] < isolation_min:
        raise _too_low(Level.NONE if best is None else best[0], isolation_min, obstacles)
    return Choice(best[1].make(best[0]), best[1].gaps, tuple(obstacles))


def candidates(parts: Parts, obstacles: list[Obstacle]) -> Sequence[Candidate]:
    """What may run here, best first; what cannot goes to `obstacles`."""
    if sys.platform == "darwin":
        return [Candidate("seatbelt", Level.FILES, lambda level: Seatbelt(parts.clock, parts.on_spawn, level), SEATBELT_GAPS)]
    if sys.platform == "win32":
        return [Candidate("job-object", Level.LIMITS, lambda level: JobObject(parts.clock, parts.on_spawn, level), WINDOWS_GAPS)]
    found = []
    hindrance = obstacle(parts.binary)
    if hindrance is None:
        most = Level.NAMESPACES if parts.cgroups is None else Level.FULL
        found.append(Candidate("bubblewrap", most, lambda level: Bubblewrap(parts, level), SOFT_GAPS if parts.cgroups is None else ()))
    else:
        obstacles.append(hindrance)
    confine = Candidate("confined", Level.FILES, lambda level: confined(parts, level), CONFINED_GAPS)
    return [*found, confine, Candidate("limits", Level.LIMITS, lambda level: limited(parts, level), LIMITS_GAPS)]


def obstacle(binary: str) -> Obstacle | None:
    """Why bubblewrap does not run here; None when it does. Tries it, as somebody who is not root."""
    if not os.access(binary, os.X_OK):
        return Obstacle("bubblewrap", f"{binary} is not there", "Install the package `bubblewrap`.")
    argv = [binary, "--unshare-user", "--unshare-all", "--disable-userns", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib"]
    argv += ["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "/usr/bin/true"]
    who = TRIAL_UID if os.geteuid() == 0 else None
    try:
        done = subprocess.run(
            argv, env={}, cwd="/", capture_output=True, timeout=TRIAL_WAIT_S, user=who, group=who, extra_groups=None if who is None else []
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Obstacle("bubblewrap", f"it cannot be run: {error}", "Reinstall the package `bubblewrap`.")
    if done.returncode == 0:
        return None
    return Obstacle("bubblewrap", done.stderr.decode(errors="replace").strip()[:300] or f"it exits with {done.returncode}", _fix())


def _fix() -> str:
    """The setting that most likely forbids user namespaces."""
    settings = (
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "Install an AppArmor profile for bwrap that allows `userns`"),
    )
    for path, forbids, fix in settings:
        if _text(path) == forbids:
            return f"{fix}."
    return f"Allow user namespaces to ordinary users on this {platform.system()}; in a container, run it with them allowed."


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _too_low(shown: Level, wanted: Level, obstacles: Sequence[Obstacle]) -> CohortError:
    why = "; ".join(f"{one.backend}: {one.what}" for one in obstacles)
    hint = obstacles[0].fix if obstacles else "Lower `isolation_min`, knowing what that gives up."
    return CohortError("LEVEL_TOO_LOW", f"isolation level {shown.value} here, {wanted.value} is demanded ({why})", hint=hint)
