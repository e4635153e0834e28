"""`cohort approval`."""

from __future__ import annotations

import time
from typing import Any

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.asking import YES, agreed
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

STATES = ("pending", "approved", "denied", "expired", "consumed", "withdrawn")
GRANTS = ("once", "task", "session", "standing")
NOTE = click.option("--note", default="", help="A word to go with the answer; kept in the audit log.")


@click.group(
    "approval",
    cls=Verbs,
    epilog=examples(
        """
cohort approval list
cohort approval show ap_k3v9q2m7x4c8b5nt
cohort approval approve ap_k3v9q2m7x4c8b5nt
cohort approval watch
"""
    ),
)
def command() -> None:
    """What waits for a person, and the answer. An approval is for one exact action, once, unless it says more."""


@command.command("list", epilog=examples("cohort approval list\ncohort approval list --state all"))
@click.option("--state", type=click.Choice((*STATES, "all")), default="pending", show_default=True, help="Which.")
@api_options
@with_session
def list_(session: Session, state: str) -> int:
    """Approvals, newest first. Exit code 4 when something waits for a person."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import risk_word, seconds, table

    page = Api(session).get("/approvals", {"state": None if state == "all" else state, "limit": 200})
    waits = any(item["state"] == "pending" for item in page["items"])
    if session.json:
        session.data(page)
    elif not page["items"]:
        session.text("Nothing waits for a person." if state == "pending" else "None.")
    else:
        now_us = time.time() * 1e6
        rows = [
            (
                item["id"],
                item["state"],
                risk_word(item["risk"]),
                item["asked_by"],
                item["plain"],
                seconds((now_us - item["created_us"]) / 1e6),
            )
            for item in page["items"]
        ]
        table(session, ("approval", "state", "risk", "asked by", "to do what", "age"), rows)
    return Exit.WAITING if waits else Exit.DONE


@command.command("show", epilog=examples("cohort approval show ap_k3v9q2m7x4c8b5nt"))
@click.argument("approval")
@api_options
@with_session
def show(session: Session, approval: str) -> int:
    """The exact action, what it will touch, how risky it is, who asks and why."""
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.approval_text import show_question

    found = Api(session).get(f"/approvals/{part(approval)}")
    if session.json:
        session.data(found)
    else:
        show_question(session.text, found)
    return Exit.WAITING if found["state"] == "pending" else Exit.DONE


@command.command(
    "approve",
    epilog=examples(
        """
cohort approval approve ap_k3v9q2m7x4c8b5nt
cohort approval approve ap_k3v9q2m7x4c8b5nt --for session
cohort approval approve ap_k3v9q2m7x4c8b5nt --for standing --command "git status" --hours 8 --uses 50 --yes
"""
    ),
)
@click.argument("approval")
@click.option("--for", "grant", type=click.Choice(GRANTS), default="once", show_default=True, help="How far it reaches.")
@click.option(
    "--pattern", "resource", help="Of more than once: the resources it covers, such as ws_.../reports/**.  [default: this very one]"
)
@click.option("--command", "words", help="Of more than once: commands that begin with these words.  [default: this very command]")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Of more than once: how long it holds.")
@click.option("--uses", type=click.IntRange(min=1), help="Of more than once: how often it may be used.")
@NOTE
@YES
@api_options
@with_session
def approve(
    session: Session,
    approval: str,
    grant: str,
    resource: str | None,
    words: str | None,
    hours: float | None,
    uses: int | None,
    note: str,
    yes: bool,
) -> int:
    """Let an action happen. Shows exactly what, and asks."""
    from cohort.surfaces.cli.words import split_words

    body = {
        "grant": grant,
        "resource": resource,
        "argv_prefix": split_words(words, "command") if words else None,
        "life_s": hours * 3600 if hours is not None else None,
        "uses": uses,
        "note": note,
    }
    reach = "this once" if grant == "once" else f"for this {grant}" if grant != "standing" else "as a standing rule"
    return _answer(session, approval, "approve", body, f"Approve {reach}?", yes)


@command.command("deny", epilog=examples('cohort approval deny ap_k3v9q2m7x4c8b5nt --note "not on a Friday"'))
@click.argument("approval")
@NOTE
@api_options
@with_session
def deny(session: Session, approval: str, note: str) -> int:
    """Refuse an action. Asks no questions."""
    return _answer(session, approval, "deny", {"note": note}, "", yes=True)


@command.command("watch", epilog=examples("cohort approval watch\ncohort approval watch --json"))
@api_options
@with_session
def watch(session: Session) -> int:
    """What waits for a person, live, until Ctrl-C. On a terminal each question is put, and one key answers it."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.approval_watch import watch_approvals

    return watch_approvals(session, Api(session))


@command.command("rules", epilog=examples("cohort approval rules\ncohort approval rules --revoke gr_k3v9q2m7x4c8b5nt"))
@click.option("--revoke", metavar="RULE", help="End this rule, from the next action on.")
@api_options
@with_session
def rules(session: Session, revoke: str | None) -> int:
    """Approvals that reach further than one action."""
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.render import moment, number, table

    api = Api(session)
    if revoke:
        api.post(f"/approval-rules/{part(revoke)}/revoke", {})
    page = api.get("/approval-rules")
    if session.json:
        session.data(page)
    elif not page["items"]:
        session.text("No rule is in force: every question is put to a person.")
    else:
        rows = [
            (
                item["id"],
                _rule_state(item),
                item["plain"],
                number(item["uses_left"]),
                moment(item["expires_us"]),
                item["created_by"],
            )
            for item in page["items"]
        ]
        table(session, ("rule", "reach", "permits", "uses left", "until", "by"), rows)
    return Exit.DONE


def _rule_state(rule: dict[str, Any]) -> str:
    """How far it reaches, or why it does not any more."""
    if rule["revoked_us"]:
        return "revoked"
    if rule["uses_left"] == 0:
        return "used up"
    return "expired" if rule["expires_us"] <= time.time() * 1e6 else str(rule["grant"])


def _answer(session: Session, approval: str, verb: str, body: dict[str, Any], question: str, yes: bool) -> int:
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.approval_text import answer_line, show_question

    api, began_s = Api(session), None
    if not yes:
        show_question(session.say, api.get(f"/approvals/{part(approval)}"))
        if body.get("grant", "once") != "once":
            session.say(f"  permits     {api.post(f'/approvals/{part(approval)}/preview', body)['words']}")
        began_s = time.monotonic()
        if not agreed(question, yes):
            session.say("nothing was answered")
            return Exit.NO
        body["looked_ms"] = round((time.monotonic() - began_s) * 1000)
    answered = api.post(f"/approvals/{part(approval)}/{verb}", body)
    if session.json:
        session.data(answered)
    else:
        session.text(answer_line(answered))
    return Exit.WAITING if answered["state"] == "pending" else Exit.DONE
