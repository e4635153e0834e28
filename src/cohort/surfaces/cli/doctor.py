"""`cohort doctor`."""

from __future__ import annotations

import dataclasses

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.options import config_options, examples, json_option, with_session
from cohort.surfaces.cli.session import Session

MARKS = {"good": "ok", "missing": "--", "broken": "!!"}


@click.command("doctor", epilog=examples("cohort doctor\ncohort doctor --json"))
@config_options
@json_option
@with_session
def command(session: Session) -> int:
    """Say what is missing on this machine, what works without it, and the one command that fixes it.

    Attacks a sandbox of its own to say how well commands of agents are contained here, which takes a second or two.

    Exit code 0: `cohort up` will work (optional things may be missing). 3: it will not.
    """
    from cohort.compose.probing import probe_here
    from cohort.ops.doctor import Grade, examine

    contained = probe_here()
    checks = examine(session.settings(), session.environment, contained)
    well = all(check.grade is not Grade.BROKEN for check in checks)
    if session.json:
        found = {"well": well, "checks": [dataclasses.asdict(check) for check in checks], "containment": dataclasses.asdict(contained)}
        session.data(found)
        return Exit.DONE if well else Exit.NO
    for check in checks:
        session.text(f"{MARKS[check.grade]}  {check.name}: {check.found}")
        if check.without:
            session.text(f"      without it: {check.without}" if check.grade is Grade.MISSING else f"      {check.without}")
        if check.fix:
            session.text(f"      fix: {check.fix}")
    return Exit.DONE if well else Exit.NO
