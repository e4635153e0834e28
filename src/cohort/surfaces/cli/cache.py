"""`cohort cache`."""

from __future__ import annotations

from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

ERASE_S = 120.0
MEASURES = {"hits": "would be answered", "false_hits": "false hits"}
PLACES = {"l1": "memory", "l2": "Redis", "l3": "disk", "l4": "by meaning"}


@click.group("cache", cls=Verbs, epilog=examples("cohort cache show support\ncohort cache erase --subject anna@example.org"))
def command() -> None:
    """What the gateway's caches do, and forgetting a person in them."""


@command.command("show", epilog=examples("cohort cache show support\ncohort cache show support --json"))
@click.argument("service")
@api_options
@with_session
def show(session: Session, service: str) -> int:
    """Hits and false hits of a service's caches, and what other thresholds would change. Exit code 3: too many false hits, or drift."""
    from cohort.surfaces.cli.api import Api, part

    view = Api(session).get(f"/services/{part(service)}/cache")
    if session.json:
        session.data(view)
    else:
        _show(session, view)
    return Exit.NO if _too_many_false(view) or _drifted(view) else Exit.DONE


@command.command(
    "erase", epilog=examples("cohort cache erase --unit 0f8e2a7c41d95b360f8e2a7c41d95b36\ncohort cache erase --subject anna@example.org")
)
@click.option("--unit", metavar="PSEUDONYM", help="As `X-Cohort-Unit` of an answer says it.")
@click.option("--subject", metavar="NAME", help="As clients send it. Not recorded.")
@api_options
@with_session
def erase(session: Session, unit: str | None, subject: str | None) -> int:
    """Forget a person: caches and kept responses, on every worker. Exit code 5 when a store has not confirmed it: then ask again."""
    from cohort.surfaces.cli.api import Api

    if (unit is None) == (subject is None):
        raise click.UsageError("give --unit or --subject")
    named = {"unit": unit} if unit is not None else {"subject": subject}
    try:
        done = Api(session).post("/gateway/erase", named, ERASE_S)
    except CohortError as error:
        if not session.json and "stores" in error.details:
            _stores(session, error.details["stores"])
        raise
    if session.json:
        session.data(done)
    else:
        session.text(f"{done['unit']} is forgotten")
        _stores(session, done["stores"])
    return Exit.DONE


def _stores(session: Session, rows: list[dict[str, Any]]) -> None:
    from cohort.surfaces.cli.render import table

    shown = [(str(row["worker"]), row["store"], "-" if row["problem"] else str(row["erased"]), row["problem"] or "done") for row in rows]
    table(session, ("worker", "store", "erased", "state"), shown)


def _too_many_false(view: dict[str, Any]) -> bool:
    """Certainly: the interval lies above what is put up with."""
    figures, policy = view["figures"], view["policy"]["semantic"]
    if figures is None or figures["semantic"] is None or policy is None:
        return False
    return bool(figures["semantic"]["false"]["low"] > policy["false_hit_max"])


def _drifted(view: dict[str, Any]) -> bool:
    semantic = view["figures"]["semantic"] if view["figures"] is not None else None
    return semantic is not None and any(found["state"] == "drifted" for found in semantic["drift"])


def _show(session: Session, view: dict[str, Any]) -> None:
    from cohort.surfaces.cli.render import size, table

    figures = view["figures"]
    for flag in view["killed"]:
        session.text(f"switched off: {flag}")
    for said in view["silent"]:
        session.text(f"not counted: {said}")
    if figures is None:
        session.text(f"{view['service']}: the gateway does not answer")
        return
    session.text(f"{view['service']}: {_share(figures['hits'])} of {figures['calls']} calls answered, {figures['bypassed']} took no part")
    rows = [
        (
            *(tier["tier"], PLACES[tier["tier"]], str(tier["reached"]), _share(tier["hit_rate"]), _false(tier["false"])),
            *(_held(tier["entries"]), size(tier["bytes"]), _held(tier["evicted"])),
        )
        for tier in figures["tiers"]
    ]
    table(session, ("tier", "where", "asked", "hits", "false hits", "entries", "bytes", "evicted"), rows)
    if figures["semantic"] is not None:
        _semantic(session, figures["semantic"], view["policy"]["semantic"])


def _semantic(session: Session, found: dict[str, Any], policy: dict[str, Any]) -> None:
    from cohort.surfaces.cli.render import table

    session.text(f"by meaning: {_share(found['served'])} of {found['looked']} questions")
    session.text(
        f"false hits: {_share(found['false'])} of {found['sampled']} drawn, {found['unclear']} unclear; at most {policy['false_hit_max']:.1%}"
    )
    session.text(f"{found['unproven']} found and not proven yet, {found['without_vector']} without a vector")
    if found["objections"]:
        session.text("guards objected: " + ", ".join(f"{name} {count}" for name, count in sorted(found["objections"].items())))
    rows = [
        (MEASURES[row["measure"]], row["state"], _drift_share(row["baseline"]), _drift_share(row["recent"]), _difference(row))
        for row in found["drift"]
    ]
    table(session, ("drift", "state", "baseline", "now", "difference"), rows)
    if found["what_if"]:
        session.text(f"what if, of the newest {found['recorded']} questions:")
        rows = [
            (
                *(f"{row['threshold']:.2f}{' (now)' if row['in_force'] else ''}", _share(row["found"])),
                *(_share(row["served"]) if row["served"] is not None else "-", str(row["compared"]), _share(row["wrong"])),
            )
            for row in found["what_if"]
        ]
        table(session, ("threshold", "would be found", "answered", "compared", "wrong"), rows)


def _drift_share(value: dict[str, Any]) -> str:
    return f"{value['share']:.1%} of {value['total']}" if value["total"] else "none"


def _difference(row: dict[str, Any]) -> str:
    if row["state"] == "too few samples":
        return f"- ({row['needed']} of each are needed)"
    return f"{row['low'] * 100:+.1f} to {row['high'] * 100:+.1f} points"


def _false(value: dict[str, Any] | None) -> str:
    return "-" if value is None else _share(value)


def _held(entries: int | None) -> str:
    return "-" if entries is None else str(entries)


def _share(value: dict[str, Any]) -> str:
    return "none" if value["share"] is None else f"{value['share']:.1%} ({value['low']:.1%} to {value['high']:.1%})"
