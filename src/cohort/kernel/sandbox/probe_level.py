"""Which level a probe has shown: the highest whose every claim that could be tried was kept. What was not tried shows nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cohort.kernel.model import Level
from cohort.kernel.sandbox.attacks import Attack


@dataclass(frozen=True, slots=True)
class Shown:
    """What a probe saw. `stopped`: by row; None where the program ended without trying it. `impossible`: rows that cannot be tried by this user.

    `hard_quota`: of the workspace that was probed. `cgroups`: whether memory and processes are limited by control groups.
    """

    attacks: Sequence[Attack]
    stopped: Mapping[str, bool | None]
    impossible: frozenset[str]
    hard_quota: bool
    cgroups: bool


def level_of(shown: Shown, most: Level) -> Level:
    """`most`: what the backend itself claims at the most."""
    if not any(stopped is not None for stopped in shown.stopped.values()):
        return Level.NONE
    candidates = (level for level in (Level.FULL, Level.NAMESPACES, Level.FILES, Level.LIMITS) if level <= most)
    return next((level for level in candidates if _kept(shown, level)), Level.NONE)


def _kept(shown: Shown, level: Level) -> bool:
    if level is Level.FULL and not (shown.hard_quota and shown.cgroups):
        return False
    claimed = [attack.name for attack in shown.attacks if level in attack.stopped_at and attack.name not in shown.impossible]
    return all(shown.stopped.get(name) is True for name in claimed)


def soft_limits(shown: Shown) -> tuple[str, ...]:
    """What is limited, but not hard."""
    found = []
    if not shown.cgroups:
        found.append("memory: looked at several times a second and stopped, which a quick program outruns; no control groups")
    if not shown.hard_quota:
        found.append("disk: each file is limited, the workspace as a whole is counted; no file system of its own")
    return tuple(found)
