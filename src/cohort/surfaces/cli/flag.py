"""`cohort flag`."""

from __future__ import annotations

import difflib
from typing import Any

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

PREFIX = click.option("--prefix", is_flag=True, help="Every flag that begins with FLAG.")
REASON = click.option("--reason", default="", help="Why; kept in the log.")


@click.group(
    "flag",
    cls=Verbs,
    epilog=examples('cohort flag list\ncohort flag kill routing.adaptive --reason "costs jump"\ncohort flag restore routing.adaptive'),
)
def command() -> None:
    """Turn flags off everywhere at once, whatever releases say, and let them be again."""


@command.command("list", epilog=examples("cohort flag list\ncohort flag list --json"))
@api_options
@with_session
def list_(session: Session) -> int:
    """The kill list, and the flags that the gateway itself obeys."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import table

    page = Api(session).get("/flags")
    if session.json:
        session.data(page)
        return Exit.DONE
    _show(session, page["items"])
    session.text("")
    table(session, ("flag of the gateway", "turns off"), list(page["gateway"].items()))
    return Exit.DONE


@command.command("kill", epilog=examples('cohort flag kill cache.semantic --reason "wrong answers"\ncohort flag kill --prefix v4.1'))
@click.argument("flag")
@PREFIX
@REASON
@api_options
@with_session
def kill(session: Session, flag: str, prefix: bool, reason: str) -> int:
    """Turn FLAG off everywhere. Asks no questions; exit code 5 when the gateway has not confirmed it yet."""
    return _change(session, "kill", flag, prefix, reason)


@command.command("restore", epilog=examples("cohort flag restore cache.semantic"))
@click.argument("flag")
@PREFIX
@REASON
@api_options
@with_session
def restore(session: Session, flag: str, prefix: bool, reason: str) -> int:
    """Take FLAG off the kill list: releases decide about it again."""
    return _change(session, "restore", flag, prefix, reason)


def _change(session: Session, verb: str, flag: str, prefix: bool, reason: str) -> int:
    from cohort.surfaces.cli.api import Api

    api = Api(session)
    done = api.post(f"/flags/{verb}", {"flag": flag, "prefix": prefix, "reason": reason})
    if session.json:
        session.data(done)
    else:
        _show(session, done["items"])
        if verb == "kill" and not prefix:
            _note_misspelt(session, flag, api.get("/flags")["gateway"])
        session.say("The gateway confirms this." if done["confirmed"] else f"Not confirmed by the gateway yet: {done['detail']}")
    return Exit.DONE if done["confirmed"] else Exit.UNKNOWN


def _note_misspelt(session: Session, flag: str, known: dict[str, str]) -> None:
    """Releases have flags of their own, so any name may be killed; one that is nearly the gateway's is more likely a slip."""
    near = difflib.get_close_matches(flag, known, n=1)
    if flag not in known and near:
        session.say(f"note: the gateway itself has no flag {flag}; did you mean `cohort flag kill {near[0]}`?")


def _show(session: Session, kills: list[dict[str, Any]]) -> None:
    from cohort.surfaces.cli.render import moment, table

    if not kills:
        session.text("No flag is killed.")
        return
    rows = [(kill["flag"], moment(kill["killed_us"]), kill["killed_by"], kill["reason"] or "-") for kill in kills]
    table(session, ("killed", "since", "by", "reason"), rows)
