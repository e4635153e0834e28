"""`cohort exec`."""

from __future__ import annotations

import sys
from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.options import WAIT, WHY, api_options, examples, with_session
from cohort.surfaces.cli.session import Session

STDIN_BYTES_MAX = 1 << 20
SIGNAL_BASE = 128
"""As shells say it: a command that signal 9 ended exits with 137."""


@click.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        """
cohort exec builder -- python3 -c 'print(6 * 7)'
cohort exec --cwd src --why "what changed" builder -- git diff --stat
cohort exec --stdin builder -- sort
cohort exec --wait 600 builder -- make release
"""
    ),
)
@click.argument("agent")
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
@click.option("--cwd", default="", help="Where, relative to the agent's workspace.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the command. Repeat it.")
@click.option("--network", is_flag=True, help="Let it reach the agent's allow-listed origins through the proxy.")
@click.option("--stdin", "with_stdin", is_flag=True, help="Hand this command's standard input on.")
@WHY
@WAIT
@api_options
@with_session
def command(
    session: Session,
    agent: str,
    argv: tuple[str, ...],
    cwd: str,
    env: tuple[str, ...],
    network: bool,
    with_stdin: bool,
    why: str,
    wait_s: float,
) -> int:
    """Run one command as AGENT, in its workspace and sandbox: decided, contained and recorded.

    Options stand before AGENT. Its output is passed through, with control sequences taken out, and its exit code is this command's. Exit code 3 without
    output: refused; 4: it waits for a person. With --json the whole answer instead, and 0 when it was executed.
    """
    from cohort.surfaces.cli import acting

    arguments: dict[str, Any] = {"argv": list(_words(argv)), "cwd": cwd, "env": _variables(env), "network": network}
    if with_stdin:
        arguments["stdin"] = _input()
    answer = acting.perform(session, agent, "terminal.run", {name: value for name, value in arguments.items() if value}, why, wait_s)
    if session.json:
        session.data(answer)
        return {"done": Exit.DONE, "waiting": Exit.WAITING}.get(answer["outcome"], Exit.FAILED)
    if answer["outcome"] == "waiting":
        return acting.waiting_code(session, answer)
    return _passed_through(session, answer)


def _passed_through(session: Session, answer: dict[str, Any]) -> int:
    from cohort.surfaces.cli.acting import failed

    result = answer["result"]
    sys.stdout.write(result.get("stdout", ""))
    sys.stdout.flush()
    sys.stderr.write(result.get("stderr", ""))
    sys.stderr.flush()
    if result.get("truncated"):
        session.say("note: the output was cut at the agent's limit")
    if answer["outcome"] != "done":
        raise failed(answer)
    if result.get("exit_code") is None:
        return SIGNAL_BASE + int(result.get("signal") or 0)
    return int(result["exit_code"])


def _words(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command. An option behind AGENT would be run, and asked of a person, as a program of that name."""
    words = argv[1:] if argv[0] == "--" else argv
    if argv[0].startswith("-") and argv[0] != "--":
        hint = "Write options before AGENT, and the command behind `--`."
        raise CohortError("FIELD_INVALID", f"{argv[0]!r} stands where the command begins", field="argv", hint=hint)
    if not words:
        raise CohortError("FIELD_INVALID", "no command was given", field="argv", hint="Write it behind `--`.")
    return words


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise CohortError("FIELD_INVALID", f"--env: {pair!r}", field="env", hint="Write it as NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def _input() -> str:
    data = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    if len(data) > STDIN_BYTES_MAX:
        raise CohortError("FILE_TOO_LARGE", f"standard input is larger than {STDIN_BYTES_MAX} bytes", hint="Write it to a file first.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CohortError("FIELD_INVALID", "standard input is not UTF-8 text", hint="Write it to a file with files.write.") from error
