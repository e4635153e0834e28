"""`cohort key`."""

from __future__ import annotations

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

ROLES = ("viewer", "auditor", "approver", "operator", "manager", "admin")


@click.group(
    "key",
    cls=Verbs,
    epilog=examples(
        """
cohort key create nora --role approver
cohort key list
cohort key revoke key_k3v9q2m7x4c8b5nt
"""
    ),
)
def command() -> None:
    """Make, list and revoke people's keys; rotate the key that signs agents' tokens. This needs a key with the role admin in COHORT_KEY."""


@command.command("create", epilog=examples("cohort key create nora --role approver"))
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its holder may do.")
@api_options
@with_session
def create(session: Session, name: str, role: str) -> int:
    """A key for NAME, who is the actor in every log. It is shown once, on standard output."""
    from cohort.surfaces.cli.api import Api

    made = Api(session).post("/keys", {"name": name, "role": role})
    if session.json:
        session.data(made)
    else:
        session.say(f"{made['key']['id']} for {name}, {role}; shown this once:")
        session.text(made["text"])
    return Exit.DONE


@command.command("list", epilog=examples("cohort key list"))
@api_options
@with_session
def list_(session: Session) -> int:
    """Every key ever made, oldest first; never its text."""
    from cohort.surfaces.cli.api import Api

    return _show(session, Api(session).get("/keys"))


@command.command("revoke", epilog=examples("cohort key revoke key_k3v9q2m7x4c8b5nt"))
@click.argument("key")
@api_options
@with_session
def revoke(session: Session, key: str) -> int:
    """End a key and every browser session it opened."""
    from cohort.surfaces.cli.api import Api, part

    return _show(session, Api(session).post(f"/keys/{part(key)}/revoke", {}))


@command.command("rotate", epilog=examples("cohort key rotate"))
@api_options
@with_session
def rotate(session: Session) -> int:
    """Sign agents' tokens with a new key. Those of the key before stay good until they expire; a second rotation ends them at once."""
    from cohort.surfaces.cli.api import Api

    made = Api(session).post("/oauth/keys", {})
    if session.json:
        session.data(made)
    else:
        session.text(made["kid"])
    return Exit.DONE


def _show(session: Session, page: dict[str, list[dict[str, str]]]) -> int:
    from cohort.surfaces.cli.render import moment, table

    if session.json:
        session.data(page)
        return Exit.DONE
    rows = [
        (item["id"], item["name"], item["role"], moment(int(item["created_us"])), "revoked" if item["revoked_us"] else "active")
        for item in page["items"]
    ]
    table(session, ("key", "name", "role", "made", "state"), rows)
    return Exit.DONE
