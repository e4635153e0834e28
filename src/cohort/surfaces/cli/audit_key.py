"""`cohort audit key`: what signs the log's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session


@click.group(
    "key",
    cls=Verbs,
    invoke_without_command=True,
    epilog=examples("cohort audit key > audit.vkey\ncohort audit key rotate\ncohort audit key retire"),
)
@api_options
@with_session
def key(session: Session) -> int:
    """The public keys that sign checkpoints, one line each, the newest first: `VKEY [since SIZE] [until SIZE]`.

    Keep a copy where nobody who can change the log can change it. `rotate` adds a key, and both sign; write the new one down wherever the old
    one is; `retire` then ends the old one. Changing keys needs a key of one's own with the role admin, in COHORT_KEY.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return Exit.DONE
    from cohort.surfaces.cli.api import Api

    items = Api(session).get("/audit/keys")["items"]
    if not items:
        raise CohortError("NOT_FOUND", "the log's public key is missing", hint="Look into control's log.")
    if session.json:
        session.data({"vkey": items[0]["vkey"], "keys": items})
    for item in items if not session.json else ():
        session.text(item["line"])
    return Exit.DONE


@key.command("list", epilog=examples("cohort audit key list"))
@api_options
@with_session
def list_(session: Session) -> int:
    """Every key the log has had, the newest first."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import table

    page = Api(session).get("/audit/keys")
    if session.json:
        session.data(page)
        return Exit.DONE
    rows = [(item["id"], "active" if item["active"] else "retired", *_sizes(item)) for item in page["items"]]
    table(session, ("key", "state", "signs from size", "to"), rows)
    return Exit.DONE


@key.command("rotate", epilog=examples("cohort audit key rotate"))
@api_options
@with_session
def rotate(session: Session) -> int:
    """Sign checkpoints with a new key as well; the old one signs on until it is retired. Recorded in the log."""
    from cohort.surfaces.cli.api import Api

    made = Api(session).post("/audit/keys", {})
    if session.json:
        session.data(made)
    else:
        session.text(made["line"])
        session.say("write it down where you keep the old one, give it to your witnesses, then `cohort audit key retire`")
    return Exit.DONE


@key.command("retire", epilog=examples("cohort audit key retire\ncohort audit key retire 03782b96"))
@click.argument("key_id", required=False)
@api_options
@with_session
def retire(session: Session, key_id: str | None) -> int:
    """End one of two active keys, the older one unless KEY_ID says otherwise: it signs nothing more, and its secret is removed.

    Checkpoints it has signed stay valid up to the size the log then had. Recorded in the log.
    """
    from cohort.surfaces.cli.api import Api, part

    ended = Api(session).post(f"/audit/keys/{part(key_id or 'oldest')}/retire", {})
    session.data(ended) if session.json else session.text(ended["line"])
    return Exit.DONE


def _sizes(item: Mapping[str, Any]) -> tuple[str, str]:
    return str(item["since"]), "" if item["until"] is None else str(item["until"])
