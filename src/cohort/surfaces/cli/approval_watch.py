"""The inbox on a terminal: each question is put once, and one key answers it. Elsewhere, a line for each."""

from __future__ import annotations

import time
from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.api import Api, part
from cohort.surfaces.cli.approval_text import answer_line, show_question
from cohort.surfaces.cli.asking import on_terminal
from cohort.surfaces.cli.session import Session

KEYS = "[a]pprove once, [d]eny, [s]kip, [q]uit"


def watch_approvals(session: Session, api: Api) -> int:
    """Until the stream ends or a person quits."""
    session.say("watching; Ctrl-C ends it")
    put: set[str] = set()
    for name, page in api.events("/approvals/events"):
        if name != "approvals":
            continue
        if session.json:
            session.row(page)
            continue
        for approval in reversed(page["items"]):
            if approval["id"] not in put:
                put.add(approval["id"])
                if _put(session, api, approval) is Quit:
                    return Exit.DONE
    return Exit.DONE


class Quit:
    """What a person said who has seen enough."""


def _put(session: Session, api: Api, listed: dict[str, Any]) -> type[Quit] | None:
    """Show one question and, on a terminal, take the answer. The list may be old by now, so the question is looked up again."""
    approval = api.get(f"/approvals/{part(listed['id'])}")
    if approval["state"] != "pending":
        return None
    show_question(session.text, approval)
    if not on_terminal():
        return None
    began_s = time.monotonic()
    session.say(KEYS)
    key = click.getchar()
    looked_ms = round((time.monotonic() - began_s) * 1000)
    verb = {"a": "approve", "d": "deny"}.get(key.lower())
    if verb is not None:
        _answer(session, api, approval["id"], verb, looked_ms)
    return Quit if key.lower() == "q" else None


def _answer(session: Session, api: Api, approval: str, verb: str, looked_ms: int) -> None:
    """Somebody else may have been quicker; that ends nothing."""
    try:
        session.text(answer_line(api.post(f"/approvals/{part(approval)}/{verb}", {"looked_ms": looked_ms})))
    except CohortError as error:
        if error.http_status != 409:
            raise
        session.say(f"{approval}: {error.message}")
