"""`cohort routing`."""

from __future__ import annotations

from typing import Any

import click

from cohort.base.errors import Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session


@click.group(
    "routing", cls=Verbs, epilog=examples("cohort routing show support\ncohort routing replay support --boundary 0.5 --boundary 0.6")
)
def command() -> None:
    """How a service chooses between a strong and a weak model, and how it could."""


@command.command("show", epilog=examples("cohort routing show support\ncohort routing show support --json"))
@click.argument("service")
@api_options
@with_session
def show(session: Session, service: str) -> int:
    """The boundary in force, the shares, the drift, and what outcomes say. Exit code 3 when the drift is over what the release allows."""
    from cohort.surfaces.cli.api import Api, part

    view = Api(session).get(f"/services/{part(service)}/routing")
    if session.json:
        session.data(view)
    else:
        _show(session, view)
    state = view["state"]
    return Exit.NO if state is not None and state["drift"] > view["policy"]["drift_max"] else Exit.DONE


@command.command("replay", epilog=examples("cohort routing replay support\ncohort routing replay support --boundary 0.5 --weight code=2"))
@click.argument("service")
@click.option(
    "--boundary", "boundaries", type=click.FloatRange(0, 1), multiple=True, help="One to compare. Repeat it. Default: 0.05 to 0.95."
)
@click.option("--weight", "weights", multiple=True, metavar="NAME=VALUE", help="Another weight than the built-in one. Repeat it.")
@api_options
@with_session
def replay(session: Session, service: str, boundaries: tuple[float, ...], weights: tuple[str, ...]) -> int:
    """Other boundaries on the conversations that were seen. Changes nothing."""
    from cohort.surfaces.cli.api import Api, part

    body: dict[str, Any] = {"boundaries": list(boundaries)} if boundaries else {}
    if weights:
        body["weights"] = dict(_weight(entry) for entry in weights)
    found = Api(session).post(f"/services/{part(service)}/routing/replay", body)
    if session.json:
        session.data(found)
    else:
        _rows(session, found)
    return Exit.DONE if found["samples"] else Exit.UNKNOWN


@command.command("fit", epilog=examples("cohort routing fit support"))
@click.argument("service")
@api_options
@with_session
def fit(session: Session, service: str) -> int:
    """Weights of difficulty that the service's outcomes suggest, to be written into its next release. Exit code 3: no better than those in force."""
    from cohort.surfaces.cli.api import Api, part

    found = Api(session).get(f"/services/{part(service)}/routing/fit")
    if session.json:
        session.data(found)
    else:
        better = "better than" if found["better"] else "no better than"
        session.say(f"from {found['conversations']} outcomes of the weak model, {found['failures']} of them failures")
        session.say(f"log loss on what was kept back: {found['loss']:.4f}, {better} {found['loss_before']:.4f} with the weights in force")
        session.text("  weights: {" + ", ".join(f"{name}: {value:g}" for name, value in found["weights"].items()) + "}")
    return Exit.DONE if found["better"] else Exit.NO


def _weight(entry: str) -> tuple[str, float]:
    name, _, value = entry.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise click.BadParameter(f"{entry!r} is not NAME=VALUE", param_hint="--weight") from error


def _show(session: Session, view: dict[str, Any]) -> None:
    from cohort.surfaces.cli.render import moment, table

    state, policy, suggestion = view["state"], view["policy"], view["suggestion"]
    session.text(f"{view['service']}: {policy['strong']} from the boundary on, {policy['weak']} below")
    if state is None:
        session.text("the gateway has not said yet how it routes")
    else:
        limited = ", held back by drift_max" if state["limited"] else ""
        session.text(f"boundary {state['boundary']:.3f} (approved {policy['boundary']:g}{limited}), mode {state['mode']}")
        session.text(
            f"drift {state['drift']:.3f} of at most {policy['drift_max']:g}, {state['conversations']} conversations of this process"
        )
    session.text(f"wanted share of {policy['strong']}: {view['target_share']:.0%}")
    rows = [
        (b["bucket"], str(b["conversations"]), _share(b["strong_share"]), _rate(b["weak"]), _rate(b["strong"])) for b in view["buckets"]
    ]
    table(session, ("bucket", "conversations", "strong", "weak failed", "strong failed"), rows)
    session.text(f"outcomes: {suggestion['reason']}")
    if view["held"]:
        session.text(f"the wanted share stays: {view['held']}")
    for move in view["history"]:
        session.text(f"{moment(move['changed_us'])}  {move['strong_share']:.0%}: {move['reason']}")


def _rows(session: Session, found: dict[str, Any]) -> None:
    from cohort.surfaces.cli.render import table

    if not found["samples"]:
        session.text("No routed call was recorded yet.")
        return
    session.text(f"{found['service']}, on {found['samples']} routed calls:")
    rows = [
        (
            f"{row['boundary']:.2f}",
            f"{row['strong_share']:.0%}",
            "-" if row["failure_rate"] is None else f"{row['failure_rate']:.1%}",
            f"{row['known']:.0%}",
            "-" if row["cost_usd_per_1000"] is None else f"{row['cost_usd_per_1000']:.2f}",
            f"{row['drift']:.2f}",
        )
        for row in found["rows"]
    ]
    table(session, ("boundary", "strong", "failed", "known", "USD/1000", "drift"), rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _rate(value: dict[str, Any]) -> str:
    return "-" if value["rate"] is None else f"{value['rate']:.1%} ({value['low']:.1%} to {value['high']:.1%})"
