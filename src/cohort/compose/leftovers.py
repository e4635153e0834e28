"""What an installation leaves on the machine beside its data: control groups, and the folder of mounts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cohort.kernel.sandbox import cgroups

MOUNTS = Path("/run/cohort")


def forget(installation: str) -> None:
    """Take the folder of mounts away once nothing is mounted in it."""
    with suppress(OSError):  # something is, or it was never made
        (MOUNTS / installation).rmdir()


def tidy(installation: str) -> None:
    """Take away what an installation that does not run, and may have been killed, left here."""
    hierarchy = cgroups.find(parent=f"cohort-{installation}").hierarchy
    if hierarchy is not None:
        cgroups.Cgroups(hierarchy).close()
    forget(installation)
