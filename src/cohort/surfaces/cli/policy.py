"""`cohort policy`."""

from __future__ import annotations

from pathlib import Path

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, json_option, with_session
from cohort.surfaces.cli.session import Session


@click.group(
    "policy",
    cls=Verbs,
    epilog=examples(
        """
cohort policy check policy.cedar
cohort policy reload
"""
    ),
)
def command() -> None:
    """Check a policy file on this machine; have control put a changed one in force."""


@command.command("check", epilog=examples("cohort policy check policy.cedar"))
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@with_session
def check(session: Session, file: Path) -> int:
    """Read FILE as control would, against the same schema. Needs no control; exit code 2 and the line when something is wrong."""
    from cohort.kernel.actions import policy_text

    found = [one for one in policy_text.read_file(file).statements if one.own]
    if session.json:
        session.data({"rules": [{"id": one.id, "effect": "ask" if one.asks else one.effect, "line": one.line} for one in found]})
        return Exit.DONE
    for one in found:
        session.text(f"{one.line:>5}  {'ask' if one.asks else one.effect:7} {one.id}")
    session.say(f"{len(found)} rule{'' if len(found) == 1 else 's'}, none wrong")
    return Exit.DONE


@command.command("reload", epilog=examples("cohort policy reload"))
@api_options
@with_session
def reload(session: Session) -> int:
    """Have control read its policy file again. One with an error changes nothing. This needs a key with the role admin in COHORT_KEY."""
    from cohort.surfaces.cli.api import Api

    made = Api(session).post("/policy/reload", {})
    if session.json:
        session.data(made)
    else:
        session.text(made["hash"])
    return Exit.DONE
