"""Which sandbox this machine has, as shown by attack, for `cohort doctor`: whether or not Cohort runs, and beside it."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cohort.base.clock import Clock, SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy, WorkspaceId, new_id
from cohort.kernel.face import Containment
from cohort.kernel.model import Level, Place
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox import cgroups
from cohort.kernel.sandbox.backends import Choice, choose
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.probe import Surroundings, nothing_shown, probe
from cohort.kernel.sandbox.spawner import Spawn, Spawner
from cohort.kernel.workspaces.backend import Size
from cohort.kernel.workspaces.backend_image import ImageBackend, available
from cohort.kernel.workspaces.rows import UID_LAST

PROBE_UID = UID_LAST + 1
"""Whose workspace the probe's is where Cohort runs as root: no agent's."""
PROBE_SIZE = Size(bytes_max=8 << 20, files_max=500)
PROBE_NAME = "probe"
PASSABLE = 0o711


def choose_by_attack(parts: Parts, place: Place, folder: Path, clock: Clock, entropy: Entropy) -> tuple[Choice, Containment]:
    """The best sandbox here and what it has shown in `place`, which should be the probe's own. `folder`: see `probe.Surroundings`.

    What hindered a better one is among the soft limits.

    Raises:
        CohortError LEVEL_TOO_LOW: none has shown anything.
    """
    around = Surroundings(folder, clock, entropy, parts.cgroups is not None)
    found: dict[str, Containment] = {}

    def attacked(sandbox: Sandbox) -> Level:
        found[sandbox.name] = probe(sandbox, place, around)
        return found[sandbox.name].level

    choice = choose(parts, attacked)
    shown = found[choice.sandbox.name]
    return choice, replace(shown, soft=shown.soft + tuple(f"{one.backend}: {one.what}" for one in choice.obstacles))


def probe_here() -> Containment:
    """What agents' commands would run in on this machine, tried in a workspace that is made and removed for it. Takes one or two seconds.

    Where nothing can be tried, level 0, with the reason and the fix.
    """
    spawner, clock = Spawner(), SystemClock()
    hierarchy = cgroups.find(parent=f"cohort-probe-{os.getpid()}").hierarchy
    groups = None if hierarchy is None else cgroups.Cgroups(hierarchy)
    parts = Parts(spawner, clock, _unobserved, cgroups=groups)
    try:
        with tempfile.TemporaryDirectory(prefix="cohort-probe-") as name, probe_place(Path(name)) as place:
            return choose_by_attack(parts, place, Path(name), clock, secrets.token_bytes)[1]
    except CohortError as error:
        return nothing_shown(clock, error.message, error.hint)
    except OSError as error:
        return nothing_shown(
            clock, f"the probe has no folder to work in: {error}", "Make room in the folder for temporary files, or set TMPDIR."
        )
    finally:
        spawner.close()
        if groups is not None:
            groups.close()


@contextmanager
def probe_place(folder: Path) -> Iterator[Place]:
    """A workspace in `folder` with a hard quota where this machine can give one, and without where not."""
    folder.chmod(PASSABLE)
    images, mounts = str(folder / "images"), str(folder / "mounts")
    if os.geteuid() != 0 or available(images, mounts) is not None:
        yield _soft_place(folder)
        return
    backend = ImageBackend(images, mounts)
    try:
        backend.make(PROBE_NAME, PROBE_SIZE)
        backend.assign(PROBE_NAME, PROBE_UID)
        yield Place(_workspace(), backend.attach(PROBE_NAME, PROBE_SIZE), PROBE_UID, PROBE_UID, hard_quota=True)
    finally:
        backend.remove(PROBE_NAME)


def _soft_place(folder: Path) -> Place:
    root = folder / PROBE_NAME
    root.mkdir(mode=0o700)
    uid, gid = (PROBE_UID, PROBE_UID) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(root, uid, gid)
    return Place(_workspace(), str(root), uid, gid, hard_quota=False)


def _unobserved(spawn: Spawn) -> None:
    """Nobody keeps a journal of the probe's own commands."""
    del spawn


def _workspace() -> WorkspaceId:
    """Another each time: its control group must not be another probe's."""
    return WorkspaceId(new_id("ws", secrets.token_bytes))
