"""docs/reference/cli.md, from the commands themselves: `python -m cohort.surfaces.cli.reference`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from cohort.surfaces.cli.main import command as root

PREFACE = """\
# Commands

Written by `make docs` from the commands themselves; a test keeps it current. Do not edit.

| Exit code | Meaning |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | wrong usage, or wrong input |
| 3 | the answer is no (not healthy, rolled back, a difference) |
| 4 | waiting for a person |
| 5 | unknown: there is no answer |
| 130 | interrupted with Ctrl-C |

Data goes to standard output, talk and errors to standard error. An error is a line `error: ...` and, where there is something to do, a
line `hint: ...`. With `--json` standard output is one JSON document (`rollout watch`: one per line), and an error is a problem document
(RFC 9457) with `code`, `detail`, `retry` (`never`, `safe`, `check_first`), `hint` and `field`. Fields are only ever added.

Commands that ask control use the key in `COHORT_KEY`, else the key in the data directory, which is only ever sent to that installation's own
address. They wait up to ten seconds for a control that its supervisor is starting again, and repeat a change with the same idempotency key.
"""


def reference() -> str:
    """The whole page."""
    return PREFACE + "".join(_section(path, command) for path, command in _walk(root, ("cohort",)))


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            if found is not None:
                yield from _walk(found, (*path, name))


def _section(path: tuple[str, ...], command: click.Command) -> str:
    ctx = click.Context(command, info_name=" ".join(path))
    words = [_usage(path, command, ctx), inspect.cleandoc(command.help or "")]
    if rows := [row for row in map(_option, command.get_params(ctx)) if row]:
        words.append("\n".join(["| Option | Meaning |", "| --- | --- |", *rows]))
    if examples := _examples(command):
        words.append(f"```sh\n{examples}\n```")
    return f"\n{'#' * min(3, len(path) + 1)} {' '.join(path)}\n\n" + "\n\n".join(words) + "\n"


def _usage(path: tuple[str, ...], command: click.Command, ctx: click.Context) -> str:
    return f"`{' '.join([*path, *command.collect_usage_pieces(ctx)])}`"


def _option(parameter: click.Parameter) -> str:
    if not isinstance(parameter, click.Option) or parameter.hidden or "--help" in parameter.opts:
        return ""
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {(parameter.metavar or parameter.type.name).upper()}"
    default = f" [default: {parameter.default}]" if parameter.show_default else ""
    required = " [required]" if parameter.required else ""
    return f"| `{names}{value}` | {' '.join((parameter.help or '').split())}{default}{required} |"


def _examples(command: click.Command) -> str:
    lines = (command.epilog or "").splitlines()
    return "\n".join(line.strip() for line in lines if line.startswith("  "))


if __name__ == "__main__":
    sys.stdout.write(reference())
