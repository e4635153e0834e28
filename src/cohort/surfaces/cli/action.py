"""`cohort action`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import WAIT, WHY, api_options, examples, with_session
from cohort.surfaces.cli.session import Session
from cohort.surfaces.cli.words import split_words

FILE_BYTES_MAX = 1 << 20


@click.group(
    "action",
    cls=Verbs,
    epilog=examples(
        """
cohort action list
cohort action run files.read path=plan.md --agent scribe
"""
    ),
)
def command() -> None:
    """Try one action as an agent, by hand: decided, contained and recorded as if the agent had asked."""


@command.command("list", epilog=examples("cohort action list\ncohort action list --json"))
@api_options
@with_session
def list_(session: Session) -> int:
    """Every operation: its scope, its risk, when it asks a person, and its arguments."""
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import table

    page = Api(session).get("/operations")
    if session.json:
        session.data(page)
        return Exit.DONE
    rows = [
        (
            item["name"],
            item["scope"],
            item["risk"],
            item["asks"],
            " ".join(_signature(item["arguments"])),
            "" if item["available"] else "nothing here can execute it",
        )
        for item in page["items"]
    ]
    table(session, ("operation", "scope", "risk", "asks", "arguments", ""), rows)
    return Exit.DONE


@command.command(
    "run",
    epilog=examples(
        """
cohort action run files.write path=plan.md content=@plan.md --agent scribe
cohort action run files.read path=plan.md --agent scribe --json
cohort action run terminal.run argv='["git", "status"]' --agent builder --why "before the release" --wait 600
"""
    ),
)
@click.argument("operation")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--agent", required=True, help="The agent to act as, by name or id.")
@WHY
@WAIT
@api_options
@with_session
def run(session: Session, operation: str, arguments: tuple[str, ...], agent: str, why: str, wait_s: float) -> int:
    """Do OPERATION as an agent.

    Values are read by the operation's own schema: text as it is, numbers, true or false, a list as JSON or as words, an object as JSON.
    `NAME=@FILE` takes the file's content; `NAME=@@text` is text that begins with @. Exit code 3: refused; 4: waits for a person.
    """
    from cohort.surfaces.cli import acting
    from cohort.surfaces.cli.api import Api

    schema = _schema(Api(session).get("/operations")["items"], operation)
    answer = acting.perform(session, agent, operation, parse_arguments(arguments, schema), why, wait_s)
    if session.json:
        session.data(answer)
        return {"done": Exit.DONE, "waiting": Exit.WAITING}.get(answer["outcome"], Exit.FAILED)
    if answer["outcome"] == "waiting":
        return acting.waiting_code(session, answer)
    _show(session, answer)
    if answer["outcome"] != "done":
        raise acting.failed(answer)
    return Exit.DONE


@command.command("show", epilog=examples("cohort action show act_k3v9q2m7x4c8b5nt"))
@click.argument("action")
@api_options
@with_session
def show(session: Session, action: str) -> int:
    """How a former action ended, from the audit log. ACTION is its id (act_...)."""
    from cohort.surfaces.cli.api import Api, part

    answer = Api(session).get(f"/actions/{part(action)}")
    if session.json:
        session.data(answer)
    else:
        _show(session, answer)
    return Exit.DONE


def parse_arguments(pairs: tuple[str, ...], schema: Mapping[str, Any]) -> dict[str, Any]:
    """`name=value` words as the operation's JSON Schema types them. Errors: FIELD_INVALID, FILE_MISSING, FILE_TOO_LARGE."""
    properties = schema.get("properties", {})
    known = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    for pair in pairs:
        name = pair.partition("=")[0]
        if "=" not in pair or name not in properties:
            names = ", ".join(properties) or "none"
            raise CohortError("FIELD_INVALID", f"{pair[:100]!r} is no argument of this operation", field=name, hint=f"It takes: {names}.")
    binary = known.get("encoding") == "base64"
    return {name: _typed(name, value, properties[name].get("type"), binary) for name, value in known.items()}


def _typed(name: str, text: str, kind: Any, binary: bool) -> Any:
    if text.startswith("@@"):
        text = text[1:]
    elif text.startswith("@"):
        text = _content(Path(text[1:]), binary)
    if kind == "string":
        return text
    if kind == "array" and not text.lstrip().startswith("["):
        return split_words(text, name)
    try:
        return json.loads(text)
    except ValueError as error:
        raise CohortError("FIELD_INVALID", f"{name}: {text[:100]!r} is no {kind}", field=name, hint="Write it as JSON.") from error


def _content(path: Path, binary: bool) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CohortError("FILE_TOO_LARGE", f"{path} is larger than {FILE_BYTES_MAX} bytes", hint="Keep it under 1 MiB.")
        data = path.read_bytes()
        return base64.b64encode(data).decode() if binary else data.decode()
    except OSError as error:
        raise CohortError("FILE_MISSING", f"{path} cannot be read: {error.strerror}", hint="Correct the path.") from error
    except UnicodeDecodeError as error:
        raise CohortError("FIELD_INVALID", f"{path} is not UTF-8 text", hint="Add encoding=base64.") from error


def _schema(operations: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for operation in operations:
        if operation["name"] == name:
            schema: dict[str, Any] = operation["arguments"]
            return schema
    raise CohortError("OPERATION_UNKNOWN", f"there is no operation {name!r}", hint="See `cohort action list`.")


def _signature(schema: Mapping[str, Any]) -> list[str]:
    needed = schema.get("required", [])
    return [name if name in needed else f"[{name}]" for name in schema.get("properties", {})]


def _show(session: Session, answer: dict[str, Any]) -> None:
    """The result on standard output, what it is about on standard error."""
    at = f", recorded at {answer['decision_index']}" if answer["decision_index"] is not None else ""
    level = f", isolation level {answer['level']}" if answer["level"] else ""
    session.say(f"{answer['outcome']}: {answer['action_id']}{level}, {answer['duration_us'] / 1000:.1f} ms{at}")
    if answer["reason"] and answer["outcome"] != "failed":
        session.say(answer["reason"])
    for name, value in answer["result"].items():
        if name in ("content", "stdout", "body", "output") and isinstance(value, str):
            session.text(value.rstrip("\n"))
        else:
            session.text(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
