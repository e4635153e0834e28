"""What one attack is: a small program, and how the host knows whether it succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cohort.kernel.model import Level


class Oracle(StrEnum):
    """Who says whether an attack succeeded."""

    SECRET = "secret"  # noqa: S105 -- the attacker has read something only the host knew
    STATE = "state"  # something on the host is other than it was
    REPORT = "report"  # the kernel did what was asked of it, as the program saw; there is nothing on the host to look at


NAMESPACED = frozenset({Level.NAMESPACES, Level.FULL})
FILES_UP = NAMESPACED | {Level.FILES}
LIMITS_UP = FILES_UP | {Level.LIMITS}
FULL_ONLY = frozenset({Level.FULL})
SOFTLY = frozenset({Level.LIMITS, Level.FILES, Level.NAMESPACES})


@dataclass(frozen=True, slots=True)
class Attack:
    """`tries` and `stopped_by` in words. `program`: Python for the system's own interpreter; it finds its parameters in `told` and hands in what
    it has got by `got(text)`. `stopped_at`: the levels whose claim includes this row. `soft_at`: the levels that may stop it
    or not, as it happens. `alone`: it may harm what runs beside it in a sandbox. `as_root`: without a sandbox it needs root's rights to succeed.
    """

    name: str
    tries: str
    stopped_by: str
    program: str
    oracle: Oracle
    stopped_at: frozenset[Level]
    alone: bool = False
    as_root: bool = False
    soft_at: frozenset[Level] = frozenset()
