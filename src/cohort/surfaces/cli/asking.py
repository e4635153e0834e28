"""Asking a person before something is done."""

from __future__ import annotations

import sys

import click

from cohort.base.errors import CohortError

YES = click.option("--yes", is_flag=True, help="Do not ask.")
REASON = click.option("--reason", default="", help="Why; kept in the audit log.")


def on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str, yes: bool) -> bool:
    """Whether to go on. Without a terminal, only `--yes` is an answer.

    Raises:
        CohortError FIELD_INVALID: there is nobody to ask.
    """
    if yes:
        return True
    if not on_terminal():
        raise CohortError("FIELD_INVALID", "there is no terminal to ask on", field="yes", hint="Add --yes if you have looked.")
    return click.confirm(question, err=True)


def check_confirmed(name: str, confirmed: str | None, effect: str) -> None:
    """Errors: FIELD_INVALID when `--confirm` does not name it."""
    if confirmed != name:
        raise CohortError(
            "FIELD_INVALID", f"this cannot be undone: {effect}", field="confirm", hint=f"Add `--confirm {name}` if you mean it."
        )
