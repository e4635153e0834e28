"""`cohort audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.audit_key import key
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

LINES_MAX = 200
KINDS = (
    "intent",
    "decision",
    "approval",
    "outcome",
    "quota",
    "key",
    "level",
    "agent",
    "token",
    "workspace",
    "policy",
    "checkpoint",
    "note",
)


@click.group(
    "audit",
    cls=Verbs,
    epilog=examples(
        """
cohort audit tail --follow
cohort audit search --kind decision --agent scribe
cohort audit verify
cohort audit prove 1204 > entry-1204.tlog-proof
"""
    ),
)
def command() -> None:
    """Look into the audit log; verify, prove, export and anchor it; change its keys."""


@command.command("tail", epilog=examples("cohort audit tail\ncohort audit tail -n 50 --follow\ncohort audit tail --follow --json"))
@click.option("-n", "--lines", type=click.IntRange(0, LINES_MAX), default=20, show_default=True, help="How many of the newest.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones until Ctrl-C.")
@click.option("--agent", help="Only of this agent, by name or id.")
@api_options
@with_session
def tail(session: Session, lines: int, follow: bool, agent: str | None) -> int:
    """The newest entries, oldest of them first. With --json one entry a line."""
    from cohort.surfaces.cli.api import Api, agent_id
    from cohort.surfaces.cli.audit_text import entry_line

    api, show = Api(session), session.row if session.json else (lambda entry: session.text(entry_line(entry)))
    agent = agent_id(api, agent)
    page = api.get("/audit/entries", {"limit": max(1, lines), "agent": agent})
    for entry in reversed(page["items"][:lines]):
        show(entry)
    if not follow:
        return Exit.DONE
    following = page["size"]
    for name, entry in api.events(f"/audit/events?after={following}"):
        if name == "entry" and entry["index"] >= following:  # a stream that broke begins again
            following = entry["index"] + 1
            if agent in (None, entry["body"]["agent"]):
                show(entry)
    return Exit.DONE


@command.command(
    "search",
    epilog=examples(
        """
cohort audit search --kind decision --text POLICY_DENIED
cohort audit search --agent ag_k3v9q2m7x4c8b5nt --since 2026-11-01 --until 2026-11-08T12:00 --limit 200
cohort audit search --action act_k3v9q2m7x4c8b5nt --json
"""
    ),
)
@click.option("--agent", help="Of this agent, by name or id.")
@click.option("--kind", type=click.Choice(KINDS), metavar="KIND", help=f"Of this kind: {', '.join(KINDS)}.")
@click.option("--action", help="About this action.")
@click.option("--text", help="With this text somewhere in the entry.")
@click.option("--since", help="From this time on: 2026-11-01 or 2026-11-01T12:00, local time.")
@click.option("--until", help="Before this time.")
@click.option("--limit", type=click.IntRange(1, LINES_MAX), default=50, show_default=True, help="At most so many, the newest.")
@api_options
@with_session
def search(session: Session, /, since: str | None, until: str | None, **query: Any) -> int:
    """Entries for which everything given holds, newest first. Exit code 3 when there is none."""
    from cohort.surfaces.cli.api import Api, agent_id
    from cohort.surfaces.cli.audit_text import entry_line, time_us

    api, times = Api(session), {"since_us": time_us(since, "since"), "until_us": time_us(until, "until")}
    page = api.get("/audit/entries", query | times | {"agent": agent_id(api, query["agent"])})
    if session.json:
        session.data(page)
    else:
        for entry in page["items"]:
            session.text(entry_line(entry))
        if not page["items"]:
            session.say(f"none of the log's {page['size']} entries is like that")
        if page["next"] is not None:
            session.say(f"there are older ones; --limit takes up to {LINES_MAX}")
    return Exit.DONE if page["items"] else Exit.NO


@command.command("show", epilog=examples("cohort audit show 1204"))
@click.argument("index", type=click.IntRange(min=0))
@api_options
@with_session
def show(session: Session, index: int) -> int:
    """One entry, whole."""
    from cohort.surfaces.cli.api import Api

    entry = Api(session).get(f"/audit/entries/{index}")
    session.data(entry if session.json else entry["body"])
    return Exit.DONE


@command.command("verify", epilog=examples("cohort audit verify\ncohort audit verify --json\ncohort audit verify --offline"))
@click.option("--quick", is_flag=True, help="Only what is new since the last check.")
@click.option("--offline", is_flag=True, help="Read the log's own files, and ask nobody.")
@api_options
@with_session
def verify(session: Session, quick: bool, offline: bool) -> int:
    """Recompute the whole log against its signed checkpoints; from its own files when nothing runs here.

    Exit code 0: verified. 3: broken; says at which entry and why. 5: no data: an empty log is not a verified one.
    Says apart whether it is whole, whether every allowed action has an outcome, and how much of it another place vouches for.
    """
    from cohort.surfaces.cli.audit_offline import verified
    from cohort.surfaces.cli.audit_text import INTEGRITY_CODES, show_verification

    found = verified(session, full=not quick, offline=offline)
    if session.json:
        session.data(found)
    else:
        show_verification(session, found)
    return INTEGRITY_CODES[found["integrity"]]


@command.command("prove", epilog=examples("cohort audit prove 1204 > entry-1204.tlog-proof\ncohort audit prove 1204 --json"))
@click.argument("index", type=click.IntRange(min=0))
@api_options
@with_session
def prove(session: Session, index: int) -> int:
    """That an entry is in the log: a C2SP tlog-proof on standard output, with the signed checkpoint."""
    from cohort.surfaces.cli.api import Api

    proof = Api(session).get(f"/audit/entries/{index}/proof")
    if session.json:
        session.data(proof)
    else:
        session.text(proof["text"].rstrip("\n"))
    return Exit.DONE


@command.command("export", epilog=examples("cohort audit export backup/audit-2026-11\ncohort audit export --tar audit.tar"))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--tar", "tar_file", type=click.Path(path_type=Path), help="Write one tar file instead of a folder.")
@api_options
@with_session
def export(session: Session, folder: Path | None, tar_file: Path | None) -> int:
    """The log with tiles, checkpoint, public key and a stand-alone verifier, into a new FOLDER or a tar file."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.audit_export import to_folder, to_tar

    if (folder is None) == (tar_file is None):
        raise CohortError("FIELD_INVALID", "one place is needed", field="folder", hint="Name a new folder, or --tar FILE.")
    files, size = to_folder(Api(session), folder) if folder is not None else to_tar(Api(session), tar_file or Path())
    place = str(folder or tar_file)
    if session.json:
        session.data({"place": place, "files": files, "bytes": size})
    else:
        session.text(f"{place}: {files} files, {size} bytes")
        session.say("to verify it without Cohort: `python3 verifier.py . --key VKEY` in it; `cohort audit key` says the key")
    return Exit.DONE


@command.command("anchor", epilog=examples("cohort audit anchor"))
@api_options
@with_session
def anchor(session: Session) -> int:
    """Send the newest checkpoint to every configured anchor now. Exit code 1 when one did not take it, 5 when none is configured."""
    from cohort.surfaces.cli.api import Api

    page = Api(session).post("/audit/anchor", {})
    if session.json:
        session.data(page)
    for item in page["items"] if not session.json else ():
        session.text(f"{'ok' if item['ok'] else '--'}  {item['anchor']}: {item['detail']}")
    if not page["items"]:
        session.say("no anchor is configured; see `kernel.anchors` in the configuration")
        return Exit.UNKNOWN
    return Exit.DONE if all(item["ok"] for item in page["items"]) else Exit.FAILED


@command.command("note", epilog=examples('cohort audit note "rotated the signing key after the drill"'))
@click.argument("text")
@api_options
@with_session
def note(session: Session, text: str) -> int:
    """Put a remark into the log, for good."""
    from cohort.surfaces.cli.api import Api

    noted = Api(session).post("/audit/notes", {"text": text})
    session.data(noted) if session.json else session.text(json.dumps(noted["index"]))
    return Exit.DONE


command.add_command(key)
