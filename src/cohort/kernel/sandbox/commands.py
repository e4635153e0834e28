"""What may be asked of a sandbox, and how it is understood: arguments, variables, folder. Pure; the same on every system."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from cohort.base.errors import CohortError
from cohort.kernel.model import Command

WORKSPACE = "/workspace"
PATH = "/usr/local/bin:/usr/bin:/bin"
VARIABLES = {"HOME": WORKSPACE, "LANG": "C.UTF-8", "PATH": PATH, "TMPDIR": "/tmp"}  # noqa: S108
"""All that a command finds in its environment, beside what it was given."""
PROXY_PORT = 3128
PROXY_NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
ARGUMENTS_MAX = 4096
PATHS_MAX = 64


def variables(command: Command) -> dict[str, str]:
    """Everything in the environment of `command`. The proxy's address is not the command's to choose."""
    found = dict(VARIABLES) | dict(command.env)
    if command.hosts:
        found |= dict.fromkeys(PROXY_NAMES, f"http://127.0.0.1:{PROXY_PORT}")
    return found


def environment(command: Command) -> tuple[str, ...]:
    """The same as `NAME=value`."""
    return tuple(f"{name}={value}" for name, value in sorted(variables(command).items()))


def folder(command: Command, root: str = WORKSPACE) -> str:
    """Where the command starts, absolute.

    Raises:
        CohortError PATH_ESCAPES: not below the workspace.
    """
    joined = posixpath.normpath(posixpath.join(root, command.cwd))
    if joined != root and not joined.startswith(root.rstrip("/") + "/"):
        raise CohortError("PATH_ESCAPES", f"{command.cwd!r} is not in the workspace", field="cwd", hint="Name a folder of the workspace.")
    return joined


def candidates(program: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where the program may be, in order, as a shell would look."""
    if "/" in program:
        return (program,)
    return tuple(f"{part or '.'}/{program}" for part in environment.get("PATH", PATH).split(":"))[:PATHS_MAX]


def check(command: Command) -> None:
    """Errors: ARGUMENT_INVALID."""
    texts = [*command.argv, command.cwd, *command.env, *command.env.values()]
    wrong = ""
    if not command.argv or not command.argv[0]:
        wrong = "there is no program to execute"
    elif len(command.argv) > ARGUMENTS_MAX:
        wrong = f"{len(command.argv)} arguments, more than {ARGUMENTS_MAX}"
    elif any("\0" in one for one in texts) or any("=" in one or not one for one in command.env):
        wrong = "a NUL character, or a variable without a proper name"
    if wrong:
        raise CohortError("ARGUMENT_INVALID", wrong, field="argv", hint="Give the program and its arguments as text.")
