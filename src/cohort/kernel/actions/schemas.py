"""The arguments of every operation as JSON Schema, in the few words of it that `arguments.py` understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PATH_CHARS_MAX = 4096
CONTENT_CHARS_MAX = 1 << 20
READ_BYTES_MAX = 1 << 20
LIST_ENTRIES_MAX = 1000
ARGV_MAX = 256
ARGUMENT_CHARS_MAX = 32_768
WAIT_S_MAX = 300.0

Schema = Mapping[str, Any]


def text(description: str, chars_max: int, **more: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": chars_max, "description": description, **more}


def whole(description: str, low: int, high: int, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high, "description": description, **more}


def flag(description: str, default: bool = False) -> dict[str, Any]:
    return {"type": "boolean", "default": default, "description": description}


def choice(description: str, *values: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "enum": list(values), "description": description, **more}


def texts(description: str, items_max: int, chars_max: int, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "maxLength": chars_max}, "maxItems": items_max, "description": description, **more}


def arguments(*required: str, **properties: dict[str, Any]) -> Schema:
    """An object of exactly these; an unknown name is refused."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_WORKSPACE = text("Whose files; the agent's own workspace when not given.", 40, pattern="^ws_[a-z0-9]{16}$")
_PATH = text("Relative to the workspace, parts separated by `/`; empty for the workspace itself.", PATH_CHARS_MAX)
_ENCODING = choice("How the content is written here: text, or base64 for any bytes.", "utf-8", "base64", default="utf-8")
_ENV = {
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": ARGUMENT_CHARS_MAX},
    "maxProperties": 64,
    "default": {},
    "description": "Variables added to the sandbox's own few.",
}
_CWD = text("Where to start, relative to the workspace.", PATH_CHARS_MAX, default="")
_STDIN = text("What it reads from standard input, as text.", CONTENT_CHARS_MAX, default="")
_NETWORK = flag("Let it reach the origins on the agent's allow-list through the egress proxy; without it there is no network at all.")
_ARGV = texts("The program and its arguments, one word each.", ARGV_MAX, ARGUMENT_CHARS_MAX, minItems=1)
_PROCESS = text("Its id.", 40, pattern="^pr_[a-z0-9]{16}$")
_URL = text("Where to: `https://host[:port]/path?query`.", 4096, minLength=1)
_BODY = text("The request's body, as text.", CONTENT_CHARS_MAX, default="")
_HEADERS = {
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": 4096},
    "maxProperties": 32,
    "default": {},
    "description": "Header fields to add; the connection's own cannot be set.",
}
_ANY = {"type": "object", "additionalProperties": True, "default": {}, "description": "What the operation needs."}

FILES_READ = arguments(
    "path",
    path=_PATH,
    workspace=_WORKSPACE,
    offset=whole("First byte.", 0, 1 << 50, default=0),
    limit=whole("At most so many bytes.", 1, READ_BYTES_MAX, default=READ_BYTES_MAX),
    encoding=_ENCODING,
)
FILES_LIST = arguments(
    path={**_PATH, "default": ""},
    workspace=_WORKSPACE,
    after=text("Go on behind this name, from the answer before.", 255, default=""),
    limit=whole("At most so many entries.", 1, LIST_ENTRIES_MAX, default=LIST_ENTRIES_MAX),
)
FILES_SEARCH = arguments(
    "text",
    text=text("What to look for, literally, in every text file below the path.", 1000, minLength=1),
    path={**_PATH, "default": ""},
    workspace=_WORKSPACE,
    names=text("Only in files whose names match, such as `*.py`.", 255, minLength=1, default="*"),
    limit=whole("At most so many places.", 1, LIST_ENTRIES_MAX, default=100),
)
FILES_STAT = arguments("path", path=_PATH, workspace=_WORKSPACE)
FILES_WRITE = arguments(
    "path",
    "content",
    path=_PATH,
    workspace=_WORKSPACE,
    content=text("What to write.", CONTENT_CHARS_MAX),
    encoding=_ENCODING,
    mode=choice("`replace` the file, `create` it where none is, or `append` to it.", "replace", "create", "append", default="replace"),
)
FILES_MOVE = arguments("path", "to", path=_PATH, to=text("The new path.", PATH_CHARS_MAX), workspace=_WORKSPACE)
FILES_MKDIR = arguments("path", path=_PATH, workspace=_WORKSPACE)
FILES_DELETE = arguments("path", path=_PATH, workspace=_WORKSPACE, recursive=flag("Also a directory with everything in it."))

TERMINAL_RUN = arguments(
    argv=_ARGV,
    shell=text("One line for `/bin/sh -c`, instead of `argv`; always rated as a shell.", ARGUMENT_CHARS_MAX, minLength=1),
    cwd=_CWD,
    env=_ENV,
    stdin=_STDIN,
    network=_NETWORK,
)
PYTHON_RUN = arguments(
    "code", code=text("The program.", CONTENT_CHARS_MAX, minLength=1), cwd=_CWD, env=_ENV, stdin=_STDIN, network=_NETWORK
)
PROCESS_START = arguments("argv", argv=_ARGV, cwd=_CWD, env=_ENV, network=_NETWORK)
PROCESS_LIST = arguments()
PROCESS_OUTPUT = arguments(
    "process",
    process=_PROCESS,
    stream=choice("Which of the two.", "stdout", "stderr", default="stdout"),
    offset=whole("First byte.", 0, 1 << 50, default=0),
    limit=whole("At most so many bytes.", 1, READ_BYTES_MAX, default=65_536),
    wait_s={"type": "number", "minimum": 0, "maximum": 60, "default": 0, "description": "Wait so long for its end first."},
)
PROCESS_SIGNAL = arguments(
    "process",
    process=_PROCESS,
    signal=choice("To its whole process group.", "TERM", "INT", "HUP", "KILL", "STOP", "CONT", "USR1", "USR2", default="TERM"),
)
PROCESS_LIMIT = arguments(
    "process",
    process=_PROCESS,
    cpu_cores={"type": "number", "minimum": 0.01, "maximum": 1024, "description": "At most so many cores."},
    memory_bytes=whole("At most so much memory, for what it asks for from now on.", 1 << 20, 1 << 50),
    priority=choice("Whose turn it is when there are not enough cores; it can only become lower.", "low", "idle"),
)
SYSTEM_READ = arguments("what", what=choice("Which part of the machine.", "cpu", "memory", "disk", "network", "processes"))

HTTP_REQUEST = arguments(
    "url",
    url=_URL,
    method=choice("The method.", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", default="GET"),
    headers=_HEADERS,
    body=_BODY,
)
NETWORK_WEBHOOK = arguments(
    "url", "payload", url=_URL, payload={"type": "object", "additionalProperties": True, "description": "Sent as JSON."}
)

BROWSER_PAGE = arguments("url", url=_URL)
BROWSER_ACT = arguments(
    "url", url=_URL, steps={"type": "array", "maxItems": 100, "items": _ANY, "default": [], "description": "What to do."}
)
MOBILE_ACT = arguments(
    "device",
    "kind",
    device=text("Which device.", 200, minLength=1),
    kind=choice("What kind of act.", "tap", "type", "swipe", "open", "read", "delete", "pay", "send"),
    detail=_ANY,
)
DATABASE = arguments(
    "database",
    "statement",
    database=text("Its name.", 200, minLength=1),
    statement=text("One SQL statement.", 65_536, minLength=1),
    parameters={"type": "array", "maxItems": 1000, "items": {}, "default": [], "description": "Its parameters."},
)
MEMORY_READ = arguments(
    "query", query=text("What to recall.", 4096, minLength=1), limit=whole("At most so many memories.", 1, 100, default=10)
)
MEMORY_WRITE = arguments("text", text=text("What to remember.", 65_536, minLength=1), about=text("A name for it.", 200, default=""))
AGENT_DELEGATE = arguments(
    "agent",
    "scopes",
    agent=text("Who shall act: name or id.", 63, minLength=1),
    scopes=texts("What it may do; inside the scopes of this token.", 100, 1100, minItems=1),
    audience=text("Where its token is for beside the gate, such as the address of /mcp.", 200, minLength=1, default="cohort"),
)
RELEASE_PROPOSE = arguments(
    "service", "manifest", service=text("Which service.", 63, minLength=1), manifest=text("The release manifest.", 262_144, minLength=1)
)
CONFIG_CHANGE = arguments("key", "value", key=text("Which setting, such as `flags.new_search`.", 200, minLength=1), value={})
