"""Level 1: rlimits, an empty environment and, when root, a private uid. Protects from accidents, not from intent."""

from __future__ import annotations

from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.direct import Direct, Dress

GAPS = (
    "files are held by ownership alone: whatever the user of the command may read or write, the command may",
    "the network is open",
    "other processes are visible, and those of the same user can be stopped",
    "system calls are not filtered",
    "protected paths of the workspace can be written",
    "memory is limited by a cgroup or softly; disk by the workspace's quota or not at all",
)


def limited(parts: Parts, level: Level = Level.LIMITS) -> Direct:
    """The backend."""

    def dress(place: Place, limits: Limits, command: Command) -> Dress:
        del place, limits
        return Dress(command.argv)

    return Direct(parts, "limits", level, dress)
