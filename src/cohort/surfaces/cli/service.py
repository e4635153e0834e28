"""`cohort service`."""

from __future__ import annotations

from typing import Any

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session


@click.group(
    "service",
    cls=Verbs,
    epilog=examples(
        """
cohort service list
cohort service show support
"""
    ),
)
def command() -> None:
    """List and show services: what serves where, and how it goes."""


@command.command("list", epilog=examples("cohort service list\ncohort service list --json"))
@api_options
@with_session
def list_(session: Session) -> int:
    """Every service and what serves it."""
    from cohort.surfaces.cli.api import Api

    page = Api(session).get("/services")
    if session.json:
        session.data(page)
    else:
        show_services(session, page["items"])
    return Exit.DONE


@command.command("show", epilog=examples("cohort service show support"))
@click.argument("name")
@api_options
@with_session
def show(session: Session, name: str) -> int:
    """One service: stable release, candidate, rates of the last 5 minutes, releases."""
    from cohort.surfaces.cli.api import Api, part

    view = Api(session).get(f"/services/{part(name)}")
    if session.json:
        session.data(view)
    else:
        _show(session, view)
    return Exit.DONE


def show_services(session: Session, views: list[dict[str, Any]]) -> None:
    from cohort.surfaces.cli.render import number, percent, rate, release, table

    if not views:
        session.text("No services yet. `cohort release create FILE` makes the first.")
        return
    headings = ("service", "stable", "candidate", "share", "calls/min", "failed", "p50", "p95")
    rows = [
        (
            view["name"],
            release(view["stable"]),
            release(view["candidate"]),
            percent(view["traffic_pct"]),
            number(view["calls_per_minute"]),
            rate(view["failure_rate"]),
            number(view["p50_ms"], "ms"),
            number(view["p95_ms"], "ms"),
        )
        for view in views
    ]
    table(session, headings, rows)


def _show(session: Session, view: dict[str, Any]) -> None:
    from cohort.surfaces.cli.render import release

    show_services(session, [view])
    agrees = {True: "yes", False: "no", None: "not known"}[view["gateway_agrees"]]
    session.text(f"the gateway confirms this: {agrees}")
    if view["rollout"]:
        session.text(f"rollout: {view['rollout']['id']}, {view['rollout']['state']}, stage {view['rollout']['stage_name']}")
    session.text("releases, newest first: " + ", ".join(release(ref) for ref in view["releases"]))
