"""Options that many commands share. Each sets its part of the session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cohort.surfaces.cli.session import Session

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
with_session = click.make_pass_decorator(Session)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> Any:
        if value is not None and value is not False:
            setattr(ctx.ensure_object(Session), name, value)
        return value

    return callback


WHY = click.option("--why", default="", help="Why, for whoever has to approve it.")
WAIT = click.option(
    "--wait", "wait_s", type=click.FloatRange(0, 86_400), default=0.0, metavar="SECONDS", help="Wait so long for a person's approval."
)


def json_option(function: Decorated) -> Decorated:
    return click.option(
        "--json", is_flag=True, expose_value=False, is_eager=True, callback=_set("json"), help="Answer in JSON on standard output."
    )(function)


def config_options(function: Decorated) -> Decorated:
    """--config and --data-dir: which installation."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_set("config"),
        help="Configuration file.  [default: cohort.yaml here, if there is one]",
    )
    data_dir = click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_set("data_dir"),
        help="Data directory.  [default: as configured, else .cohort here]",
    )
    return config(data_dir(function))


def url_option(function: Decorated) -> Decorated:
    return click.option(
        "--url", expose_value=False, callback=_set("url"), help="Control's address.  [default: COHORT_URL, else as configured]"
    )(function)


def api_options(function: Decorated) -> Decorated:
    """What every command that asks control takes."""
    return url_option(config_options(json_option(function)))


def examples(text: str) -> str:
    """An epilog for help: command lines, one per line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())
