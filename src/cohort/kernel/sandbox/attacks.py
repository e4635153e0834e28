"""The list of attacks: what a sandbox has to hold, and what each level of isolation claims of it. spec/kernel.md, attack rows.

Every row succeeds without a sandbox, or it does not count; the tests show both. The start-up probe tries a part of them.
"""

from __future__ import annotations

from cohort.kernel.model import Level
from cohort.kernel.sandbox import attacks_files, attacks_floods, attacks_kernel, attacks_processes
from cohort.kernel.sandbox.attacks_row import Attack, Oracle

__all__ = ["ADDED", "ATTACKS", "LISTED", "Attack", "Oracle", "claimed"]

LISTED: tuple[Attack, ...] = (*attacks_files.ROWS, *attacks_kernel.ROWS, *attacks_processes.ROWS, *attacks_floods.ROWS)
"""The 42 rows that the figures count."""
ADDED: tuple[Attack, ...] = (*attacks_files.ADDED, *attacks_processes.ADDED)
ATTACKS = (*LISTED, *ADDED)


def claimed(level: Level) -> tuple[Attack, ...]:
    """The rows that a sandbox of this level says it stops."""
    return tuple(attack for attack in ATTACKS if level in attack.stopped_at)
