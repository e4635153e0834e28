"""The verbs that steer a rollout."""

from __future__ import annotations

import sys
from typing import Any

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
YES = click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
REASON = click.option("--reason", default="", help="Why; kept in the log.")
REVISION = click.option("--revision", type=int, help="Refuse when the rollout has moved on since this revision.")


@click.command("pause", epilog=examples('cohort rollout pause support --reason "campaign starts"'))
@click.argument("rollout")
@REASON
@REVISION
@api_options
@with_session
def pause(session: Session, rollout: str, reason: str, revision: int | None) -> int:
    """Hold a rollout at its present share. Evidence is still taken, and an alarm still rolls back."""
    return _steer(session, rollout, "pause", reason, revision)


@click.command("resume", epilog=examples("cohort rollout resume support"))
@click.argument("rollout")
@REASON
@REVISION
@api_options
@with_session
def resume(session: Session, rollout: str, reason: str, revision: int | None) -> int:
    """Let a paused rollout go on."""
    return _steer(session, rollout, "resume", reason, revision)


@click.command("approve", epilog=examples('cohort rollout approve support --reason "read the transcripts"'))
@click.argument("rollout")
@REASON
@REVISION
@api_options
@with_session
def approve(session: Session, rollout: str, reason: str, revision: int | None) -> int:
    """Answer a rollout that waits for approval: go on."""
    return _steer(session, rollout, "approve", reason, revision)


@click.command("promote", epilog=examples('cohort rollout promote support --reason "night traffic is too low" --yes'))
@click.argument("rollout")
@click.option("--reason", required=True, help="Why the certificate is waived; kept in the log.")
@REVISION
@DRY_RUN
@YES
@api_options
@with_session
def promote(session: Session, rollout: str, reason: str, revision: int | None, dry_run: bool, yes: bool) -> int:
    """Go one stage on by a person's word: the certificate is waived. An alarm cannot be waived."""
    return _dangerous(session, rollout, "promote", reason, revision, dry_run, yes)


@click.command("rollback", epilog=examples('cohort rollout rollback support --reason "wrong tone"'))
@click.argument("rollout")
@click.option("--reason", required=True, help="Why; kept in the log.")
@REVISION
@DRY_RUN
@api_options
@with_session
def rollback(session: Session, rollout: str, reason: str, revision: int | None, dry_run: bool) -> int:
    """End a rollout: everybody gets the stable release again. Asks no questions."""
    return _dangerous(session, rollout, "rollback", reason, revision, dry_run, yes=True)


@click.command("abort", epilog=examples('cohort rollout abort support --reason "built from the wrong branch" --yes'))
@click.argument("rollout")
@REASON
@REVISION
@DRY_RUN
@YES
@api_options
@with_session
def abort(session: Session, rollout: str, reason: str, revision: int | None, dry_run: bool, yes: bool) -> int:
    """End a rollout without a judgement on its release; everybody gets the stable release."""
    return _dangerous(session, rollout, "abort", reason, revision, dry_run, yes)


VERBS = (pause, resume, approve, promote, rollback, abort)


def _steer(session: Session, rollout: str, verb: str, reason: str, revision: int | None) -> int:
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.rollout_text import headline

    view = Api(session).post(f"/rollouts/{part(rollout)}/{verb}", {"reason": reason, "revision": revision})
    if session.json:
        session.data(view)
    else:
        session.text(headline(view))
    return Exit.DONE


def _dangerous(session: Session, rollout: str, verb: str, reason: str, revision: int | None, dry_run: bool, yes: bool) -> int:
    """Look first where a person decides on what they see: the change is then refused if the rollout has moved on meanwhile."""
    ask = not yes and sys.stdin.isatty() and sys.stderr.isatty()
    if not dry_run and not ask:
        return _steer(session, rollout, verb, reason, revision)
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.rollout_text import headline

    view = Api(session).get(f"/rollouts/{part(rollout)}")
    session.say(headline(view))
    session.say(f"{verb} would: {consequence(verb, view)}")
    if dry_run:
        if session.json:
            session.data({"dry_run": True, "verb": verb, "would": consequence(verb, view), "rollout": view})
        return Exit.DONE
    if not click.confirm("Go on?", err=True):
        session.say("nothing was changed")
        return Exit.NO
    return _steer(session, view["id"], verb, reason, view["revision"] if revision is None else revision)


def consequence(verb: str, view: dict[str, Any]) -> str:
    """What `verb` does to the rollout as seen, in words."""
    stable, candidate, stages, stage = view["stable"]["version"], view["candidate"]["version"], view["stages"], view["stage"]
    if view["state"] in ("promoted", "rolled_back", "aborted"):
        return f"be refused, the rollout has ended ({view['state']})"
    if verb != "promote":
        return f"end the rollout; everybody gets {stable} again"
    if stage + 1 >= len(stages):
        return f"end the last stage; everybody gets {candidate} for good"
    following = stages[stage + 1]
    return f"leave stage {stages[stage]['name']} without its certificate and enter {following['name']} ({following['traffic_pct']:g} % on {candidate})"
