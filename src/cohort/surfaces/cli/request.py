"""`cohort request`."""

from __future__ import annotations

from typing import Any, TypeVar

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

LINES_MAX = 200
SEEN_MAX = 2_000
"""Calls remembered, so that a stream that broke shows none twice."""
RESULTS = ("ok", "upstream_error", "unreachable", "timeout", "interrupted", "client_gone", "lost")
Decorated = TypeVar("Decorated", bound=Any)


@click.group("request", cls=Verbs, epilog=examples("cohort request list --service support --failed\ncohort request tail --follow"))
def command() -> None:
    """What calls through the gateway met: the newest, each with its attempts and times. Their content only by `content`, where a release keeps samples of it."""


def filters(function: Decorated) -> Decorated:
    """Which calls."""
    for option in (
        click.option("--degraded", is_flag=True, help="Only those that another route than the first answered."),
        click.option("--failed", "trouble", is_flag=True, help="Only those that failed."),
        click.option("--trace", default="", metavar="ID", help="Of this trace: 32 hexadecimal digits."),
        click.option("--unit", default="", metavar="PSEUDONYM", help="Of this unit, as `X-Cohort-Unit` of an answer says it."),
        click.option("--agent", default="", help="Of this agent."),
        click.option("--run", default="", help="Of this run."),
        click.option("--cache", type=click.Choice(("l1", "l2", "l3", "l4")), help="Answered by this cache."),
        click.option("--result", type=click.Choice(RESULTS), help="With this result."),
        click.option("--route", default="", help="Of this route."),
        click.option("--model", default="", help="Of this model of the upstream."),
        click.option("--key", default="", metavar="ID", help="Of this client's key."),
        click.option("--service", default="", help="Of this service."),
    ):
        function = option(function)
    return function


@command.command("list", epilog=examples("cohort request list --service support --degraded\ncohort request list --run nightly-7 --json"))
@click.option("--limit", type=click.IntRange(1, LINES_MAX), default=20, show_default=True, help="At most so many.")
@filters
@api_options
@with_session
def list_(session: Session, /, limit: int, **wanted: Any) -> int:
    """The newest calls that fit, newest first. Exit code 3 when there is none."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import table
    from cohort.surfaces.cli.request_text import HEADINGS, row

    page = Api(session).get("/gateway/requests", {**_asked(wanted), "limit": limit})
    if session.json:
        session.data(page)
    elif page["items"]:
        table(session, HEADINGS, [row(call) for call in page["items"]])
    else:
        session.text("no call that fits")
    return Exit.DONE if page["items"] else Exit.NO


@command.command(
    "tail", epilog=examples("cohort request tail\ncohort request tail --follow --service support --failed\ncohort request tail -f --json")
)
@click.option("-n", "--lines", type=click.IntRange(0, LINES_MAX), default=20, show_default=True, help="How many of the newest.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones until Ctrl-C.")
@filters
@api_options
@with_session
def tail(session: Session, /, lines: int, follow: bool, **wanted: Any) -> int:
    """The newest calls that fit, oldest of them first. With --json one call a line."""
    from urllib.parse import urlencode

    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.request_text import line, name

    api, show = Api(session), session.row if session.json else (lambda call: session.text(line(call)))
    asked = _asked(wanted)
    if not follow:
        found = api.get("/gateway/requests", {**asked, "limit": max(lines, 1)})["items"][:lines]
        for call in reversed(found):
            show(call)
        return Exit.DONE
    seen: dict[str, None] = {}
    for event, call in api.events(f"/gateway/requests/events?{urlencode({**asked, 'newest': lines})}"):
        if event == "missed":
            session.say(f"note: {call['calls']} calls came faster than they could be shown")
        elif event == "call" and (known := f"{name(call)}/{call['arm']}") not in seen:  # a stream that broke begins again
            seen[known] = None
            if len(seen) > SEEN_MAX:
                del seen[next(iter(seen))]
            show(call)
    return Exit.DONE


@command.command("show", epilog=examples("cohort request show gw_k3v9q2m7x4c8b5nt/1763750000000000/17"))
@click.argument("request")
@api_options
@with_session
def show(session: Session, request: str) -> int:
    """One call step by step: REQUEST is its name, as `list` says it."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.request_text import show_call

    api = Api(session)
    found = api.get(_path(request))
    if session.json:
        session.data(found)
        return Exit.DONE
    names = {item["digest"]: item["version"] for item in api.get("/releases", {"service": found["items"][0]["service"]})["items"]}
    names |= {item["id"]: item["name"] for item in api.get("/gateway/keys")["items"]}
    for call, timeline in zip(found["items"], found["timelines"], strict=True):
        show_call(session, call, timeline, names)
    return Exit.DONE


@command.command("content", epilog=examples("cohort request content gw_k3v9q2m7x4c8b5nt/1763750000000000/17"))
@click.argument("request")
@api_options
@with_session
def content(session: Session, request: str) -> int:
    """What a call asked and was answered, redacted, where its release keeps samples. Needs the right to audit, and is recorded."""
    from cohort.surfaces.cli.api import Api

    found = Api(session).get(_path(request) + "/content")
    if session.json:
        session.data(found)
        return Exit.DONE
    for said in found["asked"]:
        session.text(f"{said['role'] or '...'}: {said['text']}")
    session.text(f"answered: {found['answered']}")
    if found["found"]:
        session.say("taken out: " + ", ".join(f"{kind} {count}" for kind, count in found["found"].items()))
    return Exit.DONE


def _path(request: str) -> str:
    from cohort.surfaces.cli.api import part

    parts = request.split("/")
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise CohortError("FIELD_INVALID", f"{request!r} names no call", hint="Take the name that `cohort request list` shows.")
    return "/gateway/requests/" + "/".join(part(each) for each in parts)


def _asked(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: "true" if value is True else value for name, value in wanted.items() if value}
