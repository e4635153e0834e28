"""`cohort status`."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

if TYPE_CHECKING:
    from cohort.ops.condition import Condition

WATCH_S = 2.0


@click.command("status", epilog=examples("cohort status\ncohort status --watch\ncohort status --json"))
@click.option("--watch", is_flag=True, help="Look again every 2 seconds until Ctrl-C.")
@api_options
@with_session
def command(session: Session, watch: bool) -> int:
    """Say what runs and whether it is healthy: processes, ports, services.

    Exit code 0: healthy. 3: not healthy. 5: nothing runs, or nothing answers.
    """
    code = _look(session)
    while watch:
        time.sleep(WATCH_S)
        if session.on_terminal:
            click.clear()
        code = _look(session)
    return code


def _look(session: Session) -> int:
    from cohort.ops.condition import Health, look

    condition = look(session.settings())
    services, why = _services(session, condition)
    if session.json:
        session.data({**dataclasses.asdict(condition), "services": services})
    else:
        _show(session, condition)
        _show_services(session, services, why)
    return {Health.HEALTHY: Exit.DONE, Health.UNHEALTHY: Exit.NO, Health.UNKNOWN: Exit.UNKNOWN}[condition.health]


def _services(session: Session, condition: Condition) -> tuple[list[dict[str, Any]] | None, str]:
    """What serves where, or None and why that cannot be told."""
    if not any(part.name == "control" and part.ready == 200 for part in condition.parts):
        return None, ""
    from cohort.surfaces.cli.api import Api

    try:
        return Api(session).get("/services")["items"], ""
    except CohortError as error:
        return None, error.message


def _show_services(session: Session, services: list[dict[str, Any]] | None, why: str) -> None:
    from cohort.surfaces.cli.service import show_services

    if services is not None:
        session.text()
        show_services(session, services)
    elif why:
        session.text(f"  services: not known ({why})")


def _show(session: Session, condition: Condition) -> None:
    who = f"supervisor {condition.supervisor}" if condition.supervisor else "no supervisor"
    session.text(f"{condition.health.value}: {who}, {condition.data_dir}")
    for part in condition.parts:
        answer = "no answer" if part.ready is None else f"/ready answers {part.ready}"
        again = f", started again {'once' if part.deaths == 1 else f'{part.deaths} times'}" if part.deaths else ""
        session.text(f"  {part.name:<10} {part.phase:<9} process {part.pid or '-'}  {part.url}  {answer}{again}")
        for line in part.says:
            session.text(f"           {line}")
    if condition.left_behind:
        pids = ", ".join(str(pid) for pid in condition.left_behind)
        session.text(f"  left behind by a supervisor that was killed: {pids}; `cohort up` takes them over")
