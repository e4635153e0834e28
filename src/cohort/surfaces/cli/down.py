"""`cohort down`."""

from __future__ import annotations

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.options import config_options, examples, json_option, with_session
from cohort.surfaces.cli.session import Session


@click.command("down", epilog=examples("cohort down\ncohort down --data-dir /var/lib/cohort"))
@config_options
@json_option
@with_session
def command(session: Session) -> int:
    """Stop control, let the gateway finish the calls in flight, and stop it.

    Also stops what a killed `cohort up` left behind. Nothing running is not an error.
    """
    from cohort.compose.leftovers import tidy
    from cohort.ops import house
    from cohort.ops.configurations import stop_bound_s
    from cohort.ops.installation import known_installation

    settings = session.settings()
    data = settings.data
    pid = house.down(data, stop_bound_s(settings))
    installation = known_installation(data)
    if installation is not None:
        tidy(installation)
    if session.json:
        session.data({"data_dir": str(data.root), "stopped": pid is not None, "pid": pid})
    elif pid is None:
        session.text(f"Nothing ran on {data.root}.")
    else:
        session.text(f"Stopped (process {pid}, {data.root}).")
    return Exit.DONE
