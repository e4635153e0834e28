"""`cohort agent`."""

from __future__ import annotations

from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.asking import REASON, check_confirmed
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

LIFE_S_MAX = 3600
AUTONOMIES = ("conservative", "standard", "aggressive")


@click.group(
    "agent",
    cls=Verbs,
    epilog=examples(
        """
cohort agent register scribe --scope files.read --scope files.write
cohort agent grant scribe 'files.delete:drafts/**'
cohort agent suspend scribe --reason "looks odd"
cohort agent revoke scribe --reason leaked --confirm scribe
"""
    ),
)
def command() -> None:
    """Register agents; grant, suspend and revoke.

    AGENT is a name or an id (ag_...).
    """


@command.command(
    "register",
    epilog=examples(
        """
cohort agent register scribe --scope files.read --scope files.write
cohort agent register builder --scope system.execute --scope files.read --limit memory_bytes=1000000000 --autonomy aggressive
cohort agent register crawler --scope network.http --egress https://api.example.com
"""
    ),
)
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, help="What it may attempt: `files.read`, or with a pattern `files.write:src/**`. Repeat it."
)
@click.option("--autonomy", type=click.Choice(AUTONOMIES), default="standard", show_default=True, help="Up to which risk it acts unasked.")
@click.option("--egress", multiple=True, help="An origin it may reach without asking, such as https://api.example.com. Repeat it.")
@click.option(
    "--limit", "limits", multiple=True, metavar="NAME=VALUE", help="A limit other than the default, such as files=200. Repeat it."
)
@click.option("--description", default="", help="What it is for.")
@api_options
@with_session
def register(
    session: Session, name: str, scopes: tuple[str, ...], autonomy: str, egress: tuple[str, ...], limits: tuple[str, ...], description: str
) -> int:
    """Register an agent with a workspace of its own. Its key is shown once, on the last line."""
    from cohort.surfaces.cli.api import Api

    body = {"name": name, "scopes": list(scopes), "autonomy": autonomy, "egress": list(egress), "description": description}
    made = Api(session).post("/agents", body | {"limits": _limits(limits)})
    if session.json:
        session.data(made)
        return Exit.DONE
    _show(session, made["agent"])
    session.say("Its key, shown this once:")
    session.text(made["key"])
    return Exit.DONE


@command.command("list", epilog=examples("cohort agent list\ncohort agent list --json"))
@api_options
@with_session
def list_(session: Session) -> int:
    """Agents, by name."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import moment, table

    page = Api(session).get_all("/agents")
    if session.json:
        session.data(page)
        return Exit.DONE
    if not page["items"]:
        session.text("No agents yet. `cohort agent register NAME --scope files.read` makes the first.")
        return Exit.DONE
    rows = [
        (item["name"], item["id"], item["state"], item["autonomy"], ", ".join(item["scopes"]) or "-", moment(item["created_us"]))
        for item in page["items"]
    ]
    table(session, ("agent", "id", "state", "autonomy", "scopes", "registered"), rows)
    return Exit.DONE


@command.command("show", epilog=examples("cohort agent show scribe"))
@click.argument("agent")
@api_options
@with_session
def show(session: Session, agent: str) -> int:
    """One agent: scopes, autonomy, limits."""
    from cohort.surfaces.cli.api import Api, part

    return _answer(session, Api(session).get(f"/agents/{part(agent)}"))


@command.command("grant", epilog=examples("cohort agent grant scribe files.delete\ncohort agent grant scribe 'files.write:reports/**'"))
@click.argument("agent")
@click.argument("scopes", nargs=-1, required=True)
@api_options
@with_session
def grant(session: Session, agent: str, scopes: tuple[str, ...]) -> int:
    """Give AGENT more scopes. Tokens that are out already keep what they have."""
    return _turn(session, agent, "scopes/grant", {"scopes": list(scopes)})


@command.command(
    "revoke",
    epilog=examples("cohort agent revoke scribe files.delete\ncohort agent revoke scribe --reason leaked --confirm scribe"),
)
@click.argument("agent")
@click.argument("scopes", nargs=-1)
@click.option("--confirm", metavar="AGENT", help="The agent's name, when the agent itself is revoked.")
@REASON
@api_options
@with_session
def revoke(session: Session, agent: str, scopes: tuple[str, ...], confirm: str | None, reason: str) -> int:
    """Take SCOPES from AGENT; without scopes revoke the agent itself, for ever: its keys, sessions and delegations."""
    if scopes:
        return _turn(session, agent, "scopes/revoke", {"scopes": list(scopes)})
    check_confirmed(agent, confirm, f"{agent} can never act again")
    return _turn(session, agent, "revoke", {"reason": reason})


@command.command("suspend", epilog=examples('cohort agent suspend scribe --reason "looks odd"'))
@click.argument("agent")
@REASON
@api_options
@with_session
def suspend(session: Session, agent: str, reason: str) -> int:
    """Do nothing AGENT asks for, from its next action on, until it is resumed."""
    return _turn(session, agent, "suspend", {"reason": reason})


@command.command("resume", epilog=examples("cohort agent resume scribe"))
@click.argument("agent")
@REASON
@api_options
@with_session
def resume(session: Session, agent: str, reason: str) -> int:
    """Let a suspended agent act again."""
    return _turn(session, agent, "resume", {"reason": reason})


@command.command("trust", epilog=examples('cohort agent trust scribe --reason "looked at the diff, restored the rest"'))
@click.argument("agent")
@REASON
@api_options
@with_session
def trust(session: Session, agent: str, reason: str) -> int:
    """Say that the workspace of a suspended AGENT holds nothing of strangers any more; recorded, with the reason."""
    return _turn(session, agent, "trust", {"reason": reason})


@command.command("key", epilog=examples("cohort agent key scribe"))
@click.argument("agent")
@api_options
@with_session
def key(session: Session, agent: str) -> int:
    """A new key for AGENT to sign in with, shown this once on standard output."""
    from cohort.surfaces.cli.api import Api, part

    made = Api(session).post(f"/agents/{part(agent)}/keys", {})
    if session.json:
        session.data(made)
    else:
        session.text(made["key"])
    return Exit.DONE


@command.command("limits", epilog=examples("cohort agent limits scribe"))
@click.argument("agent")
@api_options
@with_session
def limits(session: Session, agent: str) -> int:
    """Which limits of AGENT this machine enforces, which are soft, and which do not hold."""
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.render import table

    page = Api(session).get(f"/agents/{part(agent)}/limits")
    if session.json:
        session.data(page)
    else:
        rows = [(item["limit"], item["value"], item["held"], item["by"], item["gap"] or "-") for item in page["items"]]
        table(session, ("limit", "value", "holds", "by", "what that leaves open"), rows)
    return Exit.DONE


@command.command(
    "sessions", epilog=examples("cohort agent sessions scribe\ncohort agent sessions scribe --end se_k3v9q2m7x4c8b5nt --reason leaked")
)
@click.argument("agent")
@click.option("--end", metavar="SESSION", help="End this session and every one delegated from it.")
@REASON
@api_options
@with_session
def sessions(session: Session, agent: str, end: str | None, reason: str) -> int:
    """The sessions of AGENT: who began them, with which scopes, and what they have read."""
    from cohort.surfaces.cli.api import Api, part

    path = f"/agents/{part(agent)}/sessions"
    page = Api(session).post(f"{path}/{part(end)}/revoke", {"reason": reason}) if end else Api(session).get(path)
    if session.json:
        session.data(page)
    else:
        _show_sessions(session, page["items"])
    return Exit.DONE


@command.command("token", epilog=examples("cohort agent token scribe --scope files.read --life 300"))
@click.argument("agent")
@click.option("--scope", "scopes", multiple=True, help="A scope inside the agent's.  [default: all of them]")
@click.option("--task", help="The task it is for.")
@click.option("--life", "life_s", type=click.FloatRange(1, LIFE_S_MAX), help="Seconds until it ends.  [default: 900]")
@api_options
@with_session
def token(session: Session, agent: str, scopes: tuple[str, ...], task: str | None, life_s: float | None) -> int:
    """A token to act as AGENT with another tool; recorded with your name. It goes to standard output."""
    from cohort.surfaces.cli.api import Api, part

    made = Api(session).post(f"/agents/{part(agent)}/tokens", {"scopes": list(scopes) or None, "task": task, "life_s": life_s})
    if session.json:
        session.data(made)
    else:
        session.text(made["token"])
    return Exit.DONE


def _limits(pairs: tuple[str, ...]) -> dict[str, float]:
    """`name=value` as the API takes them. Errors: FIELD_INVALID."""
    limits: dict[str, float] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        try:
            limits[name] = int(value) if value.isdecimal() else float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise CohortError("FIELD_INVALID", f"--limit: {pair!r}", field="limit", hint="Write it like memory_bytes=1000000000.")
    return limits


def _turn(session: Session, agent: str, verb: str, body: dict[str, Any]) -> int:
    """One change of an agent; the agent afterwards."""
    from cohort.surfaces.cli.api import Api, part

    return _answer(session, Api(session).post(f"/agents/{part(agent)}/{verb}", body))


def _answer(session: Session, agent: dict[str, Any]) -> int:
    if session.json:
        session.data(agent)
    else:
        _show(session, agent)
    return Exit.DONE


def _show(session: Session, agent: dict[str, Any]) -> None:
    from cohort.surfaces.cli.render import NOTHING, facts, moment, number, seconds, size

    limits = agent["limits"]
    cores = f"{limits['cpu_cores']:g} core{'s' if limits['cpu_cores'] != 1 else ''}"
    rows = [
        ("agent", f"{agent['name']} ({agent['id']}), {agent['state']}"),
        ("registered", f"{moment(agent['created_us'])} by {agent['created_by']}"),
        ("workspace", agent["workspace"] or NOTHING),
        ("scopes", ", ".join(agent["scopes"]) or NOTHING),
        ("autonomy", f"{agent['autonomy']}: acts unasked up to a risk of {agent['risk_max']:g}"),
        ("egress", ", ".join(agent["egress"]) or NOTHING),
        ("disk", f"{size(limits['disk_bytes'])}, {number(limits['files'])} files"),
        (
            "a command",
            f"{seconds(limits['command_s'])}, {size(limits['memory_bytes'])}, {limits['processes']} processes, {cores}",
        ),
        (
            "at most",
            f"{limits['calls_per_minute']} actions a minute, {seconds(limits['cpu_s_per_day'])} CPU and {size(limits['egress_bytes_per_day'])} out a day",
        ),
    ]
    if agent["description"]:
        rows.insert(1, ("for", agent["description"]))
    facts(session, rows)


def _show_sessions(session: Session, items: list[dict[str, Any]]) -> None:
    from cohort.surfaces.cli.render import moment, table

    if not items:
        session.text("No sessions yet.")
        return
    rows = [
        (
            item["id"],
            "revoked" if item["revoked_us"] else "until " + moment(item["expires_us"]),
            item["created_by"],
            item["task"] or "-",
            ", ".join(item["scopes"]) or "-",
            _read(item),
        )
        for item in items
    ]
    table(session, ("session", "state", "begun by", "task", "scopes", "has read"), rows)


def _read(item: dict[str, Any]) -> str:
    return ", ".join(word for word in ("untrusted", "private") if item[word]) or "-"
