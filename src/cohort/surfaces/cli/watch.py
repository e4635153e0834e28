"""A rollout, live: redrawn on a terminal, a line per event elsewhere, a JSON object per change for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cohort.base.errors import CohortError, Exit, Retry
from cohort.surfaces.cli.api import Api, part
from cohort.surfaces.cli.rollout_text import (
    ARM_HEADINGS,
    EVENTS_SHOWN,
    GATE_HEADINGS,
    STAGE_HEADINGS,
    arm_rows,
    event_line,
    gate_rows,
    headline,
    stage_rows,
)
from cohort.surfaces.cli.session import Session

REDRAWS_PER_S = 4
WAITING = ("awaiting_approval", "paused")
ENDED = {"promoted": Exit.DONE, "rolled_back": Exit.NO, "aborted": Exit.NO}


def watch_rollout(session: Session, api: Api, rollout: str, exit_on_wait: bool) -> int:
    """Show every change until the rollout ends; the exit code says how it ended."""
    if session.json:
        return _follow(api, rollout, exit_on_wait, session.row)
    if session.on_terminal:
        return _redraw(session, api, rollout, exit_on_wait)
    return _follow(api, rollout, exit_on_wait, Lines(session).show)


def exit_code(view: dict[str, Any], exit_on_wait: bool) -> int | None:
    """None while it goes on."""
    if exit_on_wait and view["state"] in WAITING:
        return Exit.WAITING
    return ENDED.get(view["state"])


def _follow(api: Api, rollout: str, exit_on_wait: bool, show: Callable[[dict[str, Any]], None]) -> int:
    code = None
    for name, view in api.events(f"/rollouts/{part(rollout)}/events"):
        if name != "rollout":
            continue
        show(view)
        code = exit_code(view, exit_on_wait)
        if code is not None:
            return code
    raise CohortError(
        "OUTCOME_UNKNOWN", "the stream ended before the rollout", retry=Retry.SAFE, hint=f"Run `cohort rollout show {rollout}`."
    )


class Lines:
    """Prints the entries of the log that were not printed yet, and what is waited for when that changes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seq = -1
        self._heading = ""

    def show(self, view: dict[str, Any]) -> None:
        for event in view["events"]:
            if event["seq"] > self._seq:
                self._seq = event["seq"]
                self._session.text(event_line(event))
        heading = headline(view)
        if heading != self._heading:
            self._heading = heading
            self._session.text(heading)


def _redraw(session: Session, api: Api, rollout: str, exit_on_wait: bool) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    last: list[dict[str, Any]] = []

    def show(view: dict[str, Any]) -> None:
        last[:] = [view]
        live.update(picture(view), refresh=view["ended_us"] is not None)

    with Live(console=console, refresh_per_second=REDRAWS_PER_S, transient=False) as live:
        code = _follow(api, rollout, exit_on_wait, show)
    session.say(headline(last[0]))
    return code


def picture(view: dict[str, Any]) -> Any:
    """The whole rollout as something rich can draw."""
    from rich.console import Group
    from rich.text import Text

    from cohort.surfaces.cli.render import ruled

    style = {"promoted": "bold green", "rolled_back": "bold red", "aborted": "bold yellow"}.get(view["state"], "bold")
    parts: list[Any] = [Text(headline(view), style=style), ruled(STAGE_HEADINGS, stage_rows(view))]
    if view["waiting_for"]:
        parts.append(Text("waits for: " + "; ".join(view["waiting_for"]), style="dim"))
    for headings, rows in ((GATE_HEADINGS, gate_rows(view)), (ARM_HEADINGS, arm_rows(view))):
        if rows:
            parts.append(ruled(headings, rows))
    parts += [Text(event_line(event), style="dim") for event in view["events"][-EVENTS_SHOWN:]]
    return Group(*parts)
