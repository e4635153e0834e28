"""`cohort completion`."""

from __future__ import annotations

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.options import examples, with_session
from cohort.surfaces.cli.session import Session

VARIABLE = "_COHORT_COMPLETE"


@click.command(
    "completion",
    epilog=examples(
        """
cohort completion bash > ~/.local/share/bash-completion/completions/cohort
cohort completion zsh > ~/.zfunc/_cohort
cohort completion fish > ~/.config/fish/completions/cohort.fish
"""
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@with_session
def command(session: Session, shell: str) -> int:
    """Print the script that teaches SHELL to complete cohort's commands and options."""
    from click.shell_completion import get_completion_class

    from cohort.surfaces.cli.main import command as root

    kind = get_completion_class(shell)
    if kind is None:
        raise CohortError("FIELD_INVALID", f"no completion for {shell}", hint="Use bash, zsh or fish.")
    session.text(kind(root, {}, "cohort", VARIABLE).source())
    return Exit.DONE
