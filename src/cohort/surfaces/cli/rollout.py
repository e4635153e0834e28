"""`cohort rollout`: plan, start, look. The verbs that steer are in `steer.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session
from cohort.surfaces.cli.steer import VERBS

PLAN_BYTES_MAX = 256 << 10
PLAN_SUFFIXES = (".yaml", ".yml", ".json")


@click.group(
    "rollout",
    cls=Verbs,
    epilog=examples(
        """
cohort rollout start support --to 2.0.0 --plan shadow-5-25-100
cohort rollout watch support
cohort rollout pause support --reason "campaign starts"
"""
    ),
)
def command() -> None:
    """Plan, start, watch and steer rollouts: a service moves from its stable release to a candidate, by a plan.

    ROLLOUT is an id (ro_...), or a service's name for its newest rollout.
    """


@command.command(
    "plan",
    epilog=examples(
        """
cohort rollout plan support --plan shadow-5-25-100
cohort rollout plan support --plan plans/mine.yaml --units-per-s 12 --failure-rate 0.01
"""
    ),
)
@click.argument("service")
@click.option("--plan", "plan_name", required=True, help="A preset's name, or a plan file.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Divide the stages' floors by this; evidence is never divided.")
@click.option("--units-per-s", type=float, help="Conversations per second.  [default: as seen]")
@click.option("--failure-rate", type=float, help="Share of them that fail, 0 to 1.  [default: as seen]")
@api_options
@with_session
def plan(session: Session, service: str, plan_name: str, speed: float, units_per_s: float | None, failure_rate: float | None) -> int:
    """What a plan can see with this traffic, before anything starts.

    Per stage: the smallest regression it detects, how many extra failed conversations one costs, and how long its certificate takes.
    """
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.rollout_text import show_forecast

    body = {"service": service, "plan": plan_text(plan_name), "speed": speed, "units_per_s": units_per_s, "failure_rate": failure_rate}
    with naming(plan_name):
        forecast = Api(session).post("/rollouts/plan", body)
    if session.json:
        session.data(forecast)
    else:
        show_forecast(session, forecast)
    return Exit.DONE


@command.command(
    "start",
    epilog=examples(
        """
cohort rollout start support --to 2.0.0 --plan shadow-5-25-100
cohort rollout start support --to 2.0.0 --plan fast-10-50-100 --at 50 --reason "second try" --watch
"""
    ),
)
@click.argument("service")
@click.option("--to", required=True, help="The candidate: a version, a tag or a digest.")
@click.option("--plan", "plan_name", required=True, help="A preset's name, or a plan file.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Divide the stages' floors by this, for rehearsals.")
@click.option("--at", "at_pct", type=float, help="Start at the first stage with at least this percentage.")
@click.option("--strict", is_flag=True, help="Refuse (exit 3) where the forecast warns.")
@click.option("--reason", default="", help="Why; kept in the log.")
@click.option("--watch", "then_watch", is_flag=True, help="Watch it until it ends; exit as `watch` does.")
@api_options
@with_session
def start(session: Session, /, service: str, to: str, plan_name: str, then_watch: bool, **asked: Any) -> int:
    """Start moving SERVICE to another release. One rollout per service at a time."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.rollout_text import headline, notes_of

    api = Api(session)
    with naming(plan_name):
        view = api.post("/rollouts", {"service": service, "to": to, "plan": plan_text(plan_name), **asked})
    if then_watch:
        from cohort.surfaces.cli.watch import watch_rollout

        return watch_rollout(session, api, view["id"], exit_on_wait=False)
    if session.json:
        session.data(view)
    else:
        session.text(headline(view))
        for note in notes_of(view):
            session.say(f"note: {note}")
        session.say(f"next: cohort rollout watch {view['id']}")
    return Exit.DONE


@command.command("list", epilog=examples("cohort rollout list\ncohort rollout list --service support --active --json"))
@click.option("--service", help="Only of this service.")
@click.option("--active/--ended", default=None, help="Only those that go on, or only those that have ended.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many.")
@click.option("--cursor", help="Where the page before said that the next begins.")
@api_options
@with_session
def list_(session: Session, service: str | None, active: bool | None, limit: int, cursor: str | None) -> int:
    """Rollouts, newest first."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.rollout_text import show_rows

    wanted = None if active is None else str(active).lower()
    page = Api(session).get("/rollouts", {"service": service, "active": wanted, "limit": limit, "cursor": cursor})
    if session.json:
        session.data(page)
    else:
        show_rows(session, page["items"])
        if page["next"] is not None:
            session.say(f"more: --cursor {page['next']}")
    return Exit.DONE


@command.command("show", epilog=examples("cohort rollout show support\ncohort rollout show ro_2fuxprg6pqrqqkgw --json"))
@click.argument("rollout")
@api_options
@with_session
def show(session: Session, rollout: str) -> int:
    """Everything about a rollout: ladder, gates with their evidence, both arms, the log."""
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.rollout_text import show_rollout

    view = Api(session).get(f"/rollouts/{part(rollout)}")
    if session.json:
        session.data(view)
    else:
        show_rollout(session, view)
    return Exit.DONE


@command.command(
    "watch",
    epilog=examples("cohort rollout watch support\ncohort rollout watch support --exit-on-wait\ncohort rollout watch support --json"),
)
@click.argument("rollout")
@click.option("--exit-on-wait", is_flag=True, help="End with exit code 4 when it waits for a person.")
@api_options
@with_session
def watch(session: Session, rollout: str, exit_on_wait: bool) -> int:
    """Watch a rollout live until it ends.

    On a terminal: the ladder, the evidence and the log, redrawn. Elsewhere: one line per event; with --json one JSON object per change.
    Exit code 0: promoted. 3: rolled back or aborted. 4: waits for a person (with --exit-on-wait).
    """
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.watch import watch_rollout

    return watch_rollout(session, Api(session), rollout, exit_on_wait)


@command.command("replay", epilog=examples("cohort rollout replay ro_2fuxprg6pqrqqkgw"))
@click.argument("rollout")
@api_options
@with_session
def replay(session: Session, rollout: str) -> int:
    """Recompute every verdict from the recorded log. Exit code 0: identical. 3: there is a difference, and it is shown."""
    from cohort.surfaces.cli.api import Api, part

    result = Api(session).get(f"/rollouts/{part(rollout)}/replay")
    if session.json:
        session.data(result)
    else:
        counted = f"{result['verdicts']} verdicts from {result['records']} records"
        answer = "identical" if result["identical"] else f"different: {result['first_difference']}"
        session.text(f"{answer} ({counted}, digest {result['digest'][:16]})")
    return Exit.DONE if result["identical"] else Exit.NO


for verb in VERBS:
    command.add_command(verb)


@contextmanager
def naming(plan_name: str) -> Iterator[None]:
    """Control is sent a plan's text and not its file, so its errors begin with `plan:LINE`; to a person they name the file."""
    try:
        yield
    except CohortError as error:
        if error.code == "PLAN_INVALID" and error.message.startswith("plan:"):
            raise CohortError(
                error.code, plan_name + error.message.removeprefix("plan"), retry=error.retry, hint=error.hint, field=error.field
            ) from error
        raise


def plan_text(name: str) -> str:
    """A preset's name as it is; a plan file as its text.

    Raises:
        CohortError FILE_MISSING, FILE_TOO_LARGE: it looks like a file and cannot be read.
    """
    path = Path(name)
    if not name.endswith(PLAN_SUFFIXES) and not path.is_file():
        return name
    try:
        if path.stat().st_size > PLAN_BYTES_MAX:
            raise CohortError("FILE_TOO_LARGE", f"plan {name} is larger than {PLAN_BYTES_MAX} bytes", hint="Keep plans short.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        hint = "Correct the path, or name a preset such as shadow-5-25-100."
        raise CohortError("FILE_MISSING", f"plan {name} cannot be read: {error.strerror}", hint=hint) from error
