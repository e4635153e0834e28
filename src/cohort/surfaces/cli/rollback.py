"""`cohort rollback`: the emergency verb."""

from __future__ import annotations

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session


@click.command(
    "rollback",
    epilog=examples('cohort rollback support --reason "customers complain"\ncohort rollback support --to 1.4.2 --reason "known good"'),
)
@click.argument("service")
@click.option("--reason", required=True, help="Why; kept in the log.")
@click.option("--to", help="A version, tag or digest.  [default: the previous stable release]")
@api_options
@with_session
def command(session: Session, service: str, reason: str, to: str | None) -> int:
    """Put SERVICE back on its previous release at once; asks no questions.

    Ends the active rollout if there is one. Exit code 0 only after the gateway itself has confirmed what it serves;
    5 when the change was made and the gateway has not confirmed it.
    """
    from cohort.surfaces.cli.api import Api, part
    from cohort.surfaces.cli.render import release

    result = Api(session).post(f"/services/{part(service)}/rollback", {"to": to, "reason": reason})
    if session.json:
        session.data(result)
    else:
        confirmed = "the gateway confirms it" if result["verified"] else "the gateway has not confirmed it"
        replaced = f" instead of {release(result['replaced'])}" if result["replaced"] else ""
        session.text(f"{service} serves {release(result['serving'])}{replaced}; {confirmed}; took {result['took_ms']:.0f} ms")
    return Exit.DONE if result["verified"] else Exit.UNKNOWN
