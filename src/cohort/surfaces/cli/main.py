"""`cohort`: the table of commands, and how every one of them ends."""

from __future__ import annotations

import os
import sys

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import LazyGroup
from cohort.surfaces.cli.options import examples
from cohort.surfaces.cli.session import Session

HERE = "cohort.surfaces.cli"
INTERRUPTED = 130
COMMANDS = {
    "init": (f"{HERE}.init", "Write a commented cohort.yaml and an example release."),
    "up": (f"{HERE}.up", "Start the gateway and control, and keep them running."),
    "down": (f"{HERE}.down", "Stop what `up` started."),
    "status": (f"{HERE}.status", "Say what runs and whether it is healthy."),
    "doctor": (f"{HERE}.doctor", "Say what is missing on this machine and how to fix it."),
    "release": (f"{HERE}.release", "Create, list and show releases."),
    "service": (f"{HERE}.service", "List and show services."),
    "rollout": (f"{HERE}.rollout", "Plan, start, watch and steer rollouts."),
    "routing": (f"{HERE}.routing", "How a service chooses between a strong and a weak model."),
    "cache": (f"{HERE}.cache", "What the gateway's caches do; forget a person."),
    "embeddings": (f"{HERE}.embeddings", "A local model of embeddings for the semantic cache: try one, serve one."),
    "flag": (f"{HERE}.flag", "Turn flags off everywhere at once."),
    "rollback": (f"{HERE}.rollback", "Put a service back on its previous release, at once."),
    "agent": (f"{HERE}.agent", "Register agents; grant, suspend and revoke."),
    "workspace": (f"{HERE}.workspace", "What agents' files are and how they changed; commit, discard, restore."),
    "action": (f"{HERE}.action", "Try one action as an agent, by hand."),
    "exec": (f"{HERE}.execute", "Run one command as an agent, contained, at once."),
    "approval": (f"{HERE}.approval", "What waits for a person, and the answer."),
    "policy": (f"{HERE}.policy", "Check a policy file; put a changed one in force."),
    "audit": (f"{HERE}.audit", "Look into the audit log; verify, prove and export it."),
    "gateway": (f"{HERE}.gateway", "Keys and budgets of the programs that call models."),
    "request": (f"{HERE}.request", "What calls met: the newest, step by step."),
    "key": (f"{HERE}.key", "Make, list and revoke people's keys."),
    "mcp": (f"{HERE}.mcp", "Serve an agent's tools to an MCP client."),
    "completion": (f"{HERE}.completion", "Print the shell's completion script."),
}


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from cohort import __version__

        click.echo(f"cohort {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    commands_in=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        """
cohort init
cohort up --detach
cohort release create releases/support-v2.yaml
cohort rollout start support --to 2.0.0 --plan shadow-5-25-100
cohort rollout watch support
cohort rollback support --reason "customers complain"
"""
    ),
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version.")
def command() -> None:
    """Runs AI agents on real machines, contained, and ships changes to them, proven.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the answer is no, 4 waiting for a person, 5 unknown.
    """


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:], Session(os.environ)))


def run(arguments: list[str], session: Session) -> int:
    """Run one command line; returns its exit code."""
    try:
        code = command.main(arguments, prog_name="cohort", standalone_mode=False, obj=session)
        return code if isinstance(code, int) else Exit.DONE
    except CohortError as error:
        return session.fail(error)
    except click.exceptions.Abort:
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        session.say(error.format_message())
        return Exit.USAGE
    except click.ClickException as error:
        return _usage(error, session)
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        return session.fail(CohortError("FIELD_INVALID", "the command line holds text that is not UTF-8", hint="Write it as UTF-8."))
    except BrokenPipeError:
        # The reader of our output left; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED


def _usage(error: click.ClickException, session: Session) -> int:
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "cohort"
    return session.fail(CohortError("FIELD_INVALID", " ".join(error.format_message().split()), hint=f"See `{where} --help`."))
