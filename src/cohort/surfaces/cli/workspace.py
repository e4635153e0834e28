"""`cohort workspace`."""

from __future__ import annotations

from typing import Any

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.asking import REASON, YES, agreed, check_confirmed
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")


@click.group(
    "workspace",
    cls=Verbs,
    epilog=examples(
        """
cohort workspace diff scribe
cohort workspace commit scribe --reason "the report is right"
cohort workspace discard scribe --dry-run
"""
    ),
)
def command() -> None:
    """What agents' files are and how they changed; commit, discard, restore.

    WORKSPACE is its id (ws_...) or the agent's name.
    """


@command.command("list", epilog=examples("cohort workspace list"))
@api_options
@with_session
def list_(session: Session) -> int:
    """Every workspace, what it uses of its quota, and when it was last committed. What changed since is told by `show` and `diff`."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import moment, number, size, table

    api = Api(session)
    page = api.get_all("/workspaces")
    if session.json:
        session.data(page)
        return Exit.DONE
    if not page["items"]:
        session.text("No workspaces yet. `cohort agent register` makes an agent with one.")
        return Exit.DONE
    names = {agent["id"]: agent["name"] for agent in api.get_all("/agents")["items"]}
    rows = [
        (
            item["id"],
            names.get(item["agent"], item["agent"]),
            f"{size(item['usage']['bytes_used'])} of {size(item['usage']['bytes_max'])}",
            f"{number(item['usage']['files_used'])} of {number(item['usage']['files_max'])}",
            "hard" if item["usage"]["hard"] else "soft",
            moment(item["committed_us"]),
            item["backend"],
        )
        for item in page["items"]
    ]
    table(session, ("workspace", "agent", "disk", "files", "quota", "committed", "backend"), rows)
    return Exit.DONE


@command.command("show", epilog=examples("cohort workspace show scribe"))
@click.argument("workspace")
@api_options
@with_session
def show(session: Session, workspace: str) -> int:
    """One workspace."""
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.render import facts, moment, number, size

    api = Api(session)
    view = api.get(f"/workspaces/{part(workspace)}")
    if session.json:
        session.data(view)
        return Exit.DONE
    usage, owner = view["usage"], api.get(f"/agents/{part(view['agent'])}")["name"]
    facts(
        session,
        [
            ("workspace", f"{view['id']} of {owner}, {view['backend']}"),
            ("on the host", view["root"]),
            ("disk", f"{size(usage['bytes_used'])} of {size(usage['bytes_max'])}"),
            ("files", f"{number(usage['files_used'])} of {number(usage['files_max'])}"),
            ("quota", "hard: held by the file system" if usage["hard"] else "soft: held by Cohort's own accounting"),
            ("changed", f"{number(view['changes'])} since {moment(view['committed_us']) if view['committed_us'] else 'it was made'}"),
        ],
    )
    return Exit.DONE


@command.command("diff", epilog=examples("cohort workspace diff scribe\ncohort workspace diff scribe notes/plan.md"))
@click.argument("workspace")
@click.argument("path", required=False)
@api_options
@with_session
def diff(session: Session, workspace: str, path: str | None) -> int:
    """What changed since the last commit; with PATH how that text file changed. Exit code 3 when something did."""
    from cohort.surfaces.cli.api import Api, part

    api = Api(session)
    if path is not None:
        found = api.get(f"/workspaces/{part(workspace)}/diff/text", {"path": path})
        if session.json:
            session.data(found)
        else:
            session.text(found["diff"].rstrip("\n"))
        return Exit.NO if found["diff"] else Exit.DONE
    page = api.get(f"/workspaces/{part(workspace)}/diff")
    if session.json:
        session.data(page)
    else:
        show_changes(session, page["items"])
    return Exit.NO if page["items"] else Exit.DONE


@command.command("commit", epilog=examples('cohort workspace commit scribe --reason "the report is right"'))
@click.argument("workspace")
@REASON
@api_options
@with_session
def commit(session: Session, workspace: str, reason: str) -> int:
    """Take the workspace as it is for the new base that `diff` and `discard` go by."""
    return _turn(session, workspace, "commit", reason, "committed")


@command.command("discard", epilog=examples("cohort workspace discard scribe --dry-run\ncohort workspace discard scribe --yes"))
@click.argument("workspace")
@REASON
@DRY_RUN
@YES
@api_options
@with_session
def discard(session: Session, workspace: str, reason: str, dry_run: bool, yes: bool) -> int:
    """Go back to the last commit. What is lost by it is kept in a snapshot."""
    from cohort.surfaces.cli.api import Api, part

    if dry_run or not yes:
        page = Api(session).get(f"/workspaces/{part(workspace)}/diff")
        if session.json and dry_run:
            session.data({"dry_run": True, "would": page["items"]})
        elif not session.json:
            show_changes(session, page["items"])
        if dry_run:
            return Exit.DONE
    if not agreed("Discard these changes?", yes):
        session.say("nothing was changed")
        return Exit.NO
    return _turn(session, workspace, "discard", reason, "discarded; what was lost is in")


@command.command("snapshot", epilog=examples('cohort workspace snapshot scribe --reason "before the migration"'))
@click.argument("workspace")
@REASON
@api_options
@with_session
def snapshot(session: Session, workspace: str, reason: str) -> int:
    """Keep the workspace as it is, to go back to."""
    return _turn(session, workspace, "snapshot", reason, "kept as")


@command.command("snapshots", epilog=examples("cohort workspace snapshots scribe"))
@click.argument("workspace")
@api_options
@with_session
def snapshots(session: Session, workspace: str) -> int:
    """What can be gone back to, newest first."""
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.render import moment, number, size, table

    page = Api(session).get(f"/workspaces/{part(workspace)}/snapshots")
    if session.json:
        session.data(page)
        return Exit.DONE
    rows = [
        (item["id"], moment(item["created_us"]), number(item["files"]), size(item["bytes"]), item["reason"] or "-")
        for item in page["items"]
    ]
    table(session, ("snapshot", "taken", "files", "size", "reason"), rows)
    return Exit.DONE


@command.command("restore", epilog=examples("cohort workspace restore scribe sn_k3v9q2m7x4c8b5nt --yes"))
@click.argument("workspace")
@click.argument("snapshot")
@REASON
@YES
@api_options
@with_session
def restore(session: Session, workspace: str, snapshot: str, reason: str, yes: bool) -> int:
    """Put the workspace back as SNAPSHOT holds it."""
    from cohort.surfaces.cli.api import Api, part

    if not agreed(f"Replace everything in {workspace} by {snapshot}?", yes):
        session.say("nothing was changed")
        return Exit.NO
    kept = Api(session).post(f"/workspaces/{part(workspace)}/restore", {"snapshot": snapshot, "reason": reason})
    return _kept(session, kept, "restored from")


@command.command("remove", epilog=examples("cohort workspace remove scribe --confirm scribe"))
@click.argument("workspace")
@click.option("--confirm", metavar="WORKSPACE", help="The workspace again, as named.")
@REASON
@api_options
@with_session
def remove(session: Session, workspace: str, confirm: str | None, reason: str) -> int:
    """Remove a workspace and everything in it, for good."""
    from cohort.surfaces.cli.api import Api, part

    check_confirmed(workspace, confirm, f"everything in the workspace {workspace} is lost")
    Api(session).post(f"/workspaces/{part(workspace)}/remove", {"reason": reason})
    if session.json:
        session.data({"removed": workspace})
    else:
        session.text(f"removed {workspace}")
    return Exit.DONE


def show_changes(session: Session, items: list[dict[str, Any]]) -> None:
    from cohort.surfaces.cli.render import size, table

    if not items:
        session.text("Nothing has changed since the last commit.")
        return
    rows = [(item["kind"], item["path"], size(item["bytes_before"]), size(item["bytes_after"])) for item in items]
    table(session, ("change", "path", "before", "after"), rows)


def _turn(session: Session, workspace: str, verb: str, reason: str, word: str) -> int:
    from cohort.surfaces.cli.api import Api, part

    return _kept(session, Api(session).post(f"/workspaces/{part(workspace)}/{verb}", {"reason": reason}), word)


def _kept(session: Session, kept: dict[str, Any], word: str) -> int:
    from cohort.surfaces.cli.render import number, size

    if session.json:
        session.data(kept)
    else:
        session.text(f"{word} {kept['id']}: {number(kept['files'])} file{'s' if kept['files'] != 1 else ''}, {size(kept['bytes'])}")
    return Exit.DONE
