"""What was asked for, as one canonical action: the same request always has the same digest, however it was written.

Two halves, because who asks is proven in between: `parse` needs only the request, `bind` adds the agent, its session and its workspace.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.base.errors import CohortError
from cohort.base.ids import ActionId
from cohort.kernel.actions import arguments as values
from cohort.kernel.actions import catalogue, origins, schemas
from cohort.kernel.actions.catalogue import Kind, Row
from cohort.kernel.face import Request
from cohort.kernel.model import Action, Caller
from cohort.kernel.scopes import RESOURCE_CHARS_MAX
from cohort.kernel.workspaces.paths import canonical

WHY_CHARS_MAX = 2000
PATH_NAMES = ("path", "to")
SHELL = "/bin/sh"

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_CONNECTION_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "proxy-authorization",
        "proxy-connection",
    }
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A request whose arguments are right. `paths`: the arguments of `files.*` that name one, canonical."""

    row: Row
    arguments: Mapping[str, Any]
    paths: tuple[str, ...]
    resource: str | None

    def bind(self, action: ActionId, caller: Caller) -> Action:
        """The action of this caller. Errors: WORKSPACE_UNKNOWN (a file operation of an agent without a workspace)."""
        if self.row.kind is not Kind.FILE:
            return Action(action, self.row.name, caller.agent.id, caller.session, self.resource or "", self.arguments)
        workspace = self.arguments.get("workspace", caller.agent.workspace)
        if workspace is None:
            hint = "Name a workspace, or have one made for the agent."
            raise CohortError("WORKSPACE_UNKNOWN", f"{caller.agent.name} has no workspace", field="arguments.workspace", hint=hint)
        named = {**self.arguments, "workspace": workspace}
        return Action(action, self.row.name, caller.agent.id, caller.session, f"{workspace}/{self.paths[0]}", named)


def parse(request: Request) -> Parsed:
    """The request with its arguments checked, canonical and complete.

    Raises:
        CohortError OPERATION_UNKNOWN, ARGUMENT_INVALID, PATH_INVALID, PATH_ESCAPES: `field` names the place.
    """
    row = catalogue.find(request.operation)
    _check_envelope(request)
    values.plain(request.arguments)
    found = values.fitted(request.arguments, row.arguments, "arguments")
    if row.kind is Kind.FILE:
        return _file(row, found)
    if row.kind is Kind.PROGRAM:
        return _program(row, found)
    if row.kind is Kind.ORIGIN:
        return _origin(row, found)
    if row.name == "process.limit" and not found.keys() - {"process"}:
        raise _invalid("arguments", "no limit", "Give cpu_cores, memory_bytes or priority.")
    return Parsed(row, found, (), _other_resource(row, found))


def _check_envelope(request: Request) -> None:
    if len(request.why) > WHY_CHARS_MAX:
        raise _invalid("why", f"{len(request.why)} characters", f"Say it in {WHY_CHARS_MAX}.")
    values.plain(request.why, "why")
    if not 0 <= request.wait_s <= schemas.WAIT_S_MAX:
        raise _invalid("wait_s", f"found {request.wait_s}", f"Give 0 to {schemas.WAIT_S_MAX:g} seconds.")
    if request.idempotency_key is not None and not _KEY.fullmatch(request.idempotency_key):
        raise _invalid("idempotency_key", "not 1 to 128 printable ASCII characters", "Use a UUID, for instance.")


def _file(row: Row, found: dict[str, Any]) -> Parsed:
    names = [name for name in PATH_NAMES if name in found]
    if row.name == "files.write" and found["encoding"] == "base64":
        _check_base64(found["content"])
    paths: dict[str, Any] = {name: _path(found[name], f"arguments.{name}") for name in names}
    return Parsed(row, {**found, **paths}, tuple(paths.values()), None)


def _check_base64(content: str) -> None:
    try:
        base64.b64decode(content, validate=True)
    except ValueError as error:
        raise _invalid("arguments.content", f"not base64: {error}", "Use the standard alphabet with padding.") from error


def _path(text: str, field: str) -> str:
    path = canonical(text, field)
    if len(path) + len("ws_0123456789abcdef/") > RESOURCE_CHARS_MAX:
        raise CohortError("PATH_INVALID", f"{field}: {len(path)} characters", field=field, hint="Use a shorter path.")
    return path


def _program(row: Row, found: dict[str, Any]) -> Parsed:
    _check_environment(found["env"])
    found = {**found, "cwd": _path(found["cwd"], "arguments.cwd")}
    if row.name == "python.run":
        return Parsed(row, found, (), "python")
    if "shell" in found:
        if "argv" in found:
            raise _invalid("arguments.shell", "both a shell line and argv", "Give one of the two.")
        found = {**found, "argv": [SHELL, "-c", found["shell"]]}
    argv = found.get("argv")
    if argv is None:
        raise _invalid("arguments.argv", "it is missing", "Give the program and its arguments, one word each.")
    if any("\0" in word for word in argv):
        raise _invalid("arguments.argv", "it holds a NUL", "A command line cannot carry one.")
    if not argv[0] or not argv[0].isprintable() or len(argv[0]) > RESOURCE_CHARS_MAX:
        raise _invalid("arguments.argv[0]", "not a program's name", "Give a printable name or path of at most 1,024 characters.")
    return Parsed(row, found, (), argv[0])


def _check_environment(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name) or "\0" in value:
            raise _invalid(f"arguments.env.{name[:100]}", "not a variable", "Use letters, digits and `_` for names and no NUL in values.")


def _origin(row: Row, found: dict[str, Any]) -> Parsed:
    address = origins.parse(found["url"])
    if "headers" in found:
        found = {**found, "headers": _headers(found["headers"])}
    if found.get("method") in ("GET", "HEAD") and found.get("body"):
        raise _invalid("arguments.body", f"a {found['method']} with a body", "Use POST, PUT or PATCH to send one.")
    return Parsed(row, {**found, "url": address.url}, (), address.origin)


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    for name, value in lower.items():
        field = f"arguments.headers.{name[:100]}"
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable() or not value.isascii():
            raise _invalid(field, "not a header field", "Use a plain name and printable ASCII.")
        if name in _CONNECTION_HEADERS:
            raise _invalid(field, "it belongs to the connection", "Leave it out.")
    if len(lower) != len(headers):
        raise _invalid("arguments.headers", "a name twice in different case", "Give each once.")
    return lower


def _other_resource(row: Row, found: Mapping[str, Any]) -> str:
    """By kind: the id of a process, the part of the machine, the name of a device, database, agent or setting; `*` for a whole list."""
    name = {
        Kind.PROCESS: "process",
        Kind.SYSTEM: "what",
        Kind.DEVICE: "device",
        Kind.DATABASE: "database",
        Kind.AGENT: "agent",
        Kind.SETTING: "key" if row.name == "config.change" else "service",
    }.get(row.kind, "")
    resource = str(found.get(name, "")) or "own"
    if not resource.isprintable() or any(letter.isspace() for letter in resource):
        raise _invalid(f"arguments.{name}", "it holds a space or a control byte", "Use its plain name.")
    return resource


def _invalid(field: str, what: str, hint: str) -> CohortError:
    return CohortError("ARGUMENT_INVALID", f"{field}: {what}", field=field, hint=hint)
