"""docs/reference/attack-list.md, from the attacks themselves: `python -m cohort.kernel.sandbox.attacks_page`."""

from __future__ import annotations

import sys

from cohort.kernel.model import Level
from cohort.kernel.sandbox.attacks import ADDED, LISTED, Attack
from cohort.kernel.sandbox.probe import PROBED

LEVELS = (Level.LIMITS, Level.FILES, Level.NAMESPACES, Level.FULL)
HEAD = """# Attack list

Written by `python -m cohort.kernel.sandbox.attacks_page` from the attacks themselves; a test keeps it current. Do not edit.

What an isolation level claims is that each attack marked in its column is stopped. Each attack is a small program, run for real: in the tests against every
sandbox that runs on the machine, started by root and by an ordinary user, and, for the rows marked *probed*, at every start of Cohort against the sandbox that it
will use. What decides is what the host sees, not what the attacker says: a secret only the host knew, a file that changed, a listener that was spoken to. Every
attack succeeds without a sandbox; one that does not, on some machine, is void there and counts for nothing.

| Mark | Meaning |
| --- | --- |
| yes | stopped |
| soft | stopped or not, as it happens; not claimed |
| no | not stopped, and the tests hold that this is so |

Level 1 is limits only, against accidents; at level 1 the agent is still not root, so much of what needs root fails there for that reason, which is not claimed.
Level 2 is Landlock, the system-call filter and limits; level 3 is bubblewrap; level 4 is bubblewrap with control groups and a file system of its own for each
workspace. [Fix containment](../how-to/fix-containment.md) says how to get from one to the next.
"""


def page() -> str:
    counts = " | ".join(f"{sum(level in attack.stopped_at for attack in LISTED)} of {len(LISTED)}" for level in LEVELS)
    titles = " | ".join(f"Level {level.value}" for level in LEVELS)
    top = f"| Attack | It tries to | What stops it | {titles} |\n|{' --- |' * (3 + len(LEVELS))}\n"
    total = f"| **stopped** | | | {counts} |\n"
    rows, added = ("".join(_line(attack) for attack in attacks) for attacks in (LISTED, ADDED))
    return f"{HEAD}\n## The {len(LISTED)} rows\n\n{top}{rows}{total}\n## Added\n\n{top}{added}"


def _line(attack: Attack) -> str:
    name = f"`{attack.name}`{' *probed*' if attack in PROBED else ''}"
    marks = " | ".join(_mark(attack, level) for level in LEVELS)
    return f"| {name} | {attack.tries} | {attack.stopped_by} | {marks} |\n"


def _mark(attack: Attack, level: Level) -> str:
    if level in attack.stopped_at:
        return "yes"
    return "soft" if level in attack.soft_at else "no"


if __name__ == "__main__":
    sys.stdout.write(page())
