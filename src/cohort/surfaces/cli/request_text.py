"""Calls as text: a row, a line, and one of them with its bars on a line of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohort.surfaces.cli.session import Session

LANE = 32
HEADINGS = ("request", "when", "service", "result", "route", "attempts", "first byte", "total", "cost")


def name(call: dict[str, Any]) -> str:
    return f"{call['gateway']}/{call['epoch']}/{call['seq']}"


def row(call: dict[str, Any]) -> tuple[str, ...]:
    from cohort.surfaces.cli.render import moment

    return (
        name(call),
        moment(call["at_us"]),
        call["service"] + (f" ({call['arm']})" if call["arm"] != "stable" else ""),
        _result(call),
        _route(call),
        str(call["attempts"]),
        millis(call["first_us"]),
        millis(call["total_us"]),
        _cost(call),
    )


def line(call: dict[str, Any]) -> str:
    """One call of a live tail."""
    *_, first, total, cost = row(call)
    labels = "".join(f"  {label} {call[label]}" for label in ("run", "agent", "key") if call[label])
    tries = f"  {call['attempts']} attempts" if call["attempts"] > 1 else ""
    return f"{row(call)[1]}  {call['service']}  {_result(call)}  {_route(call)}{tries}  {first} / {total}  {cost}{labels}  {name(call)}"


def show_call(session: Session, call: dict[str, Any], timeline: dict[str, Any], names: Mapping[str, str]) -> None:
    """`names`: versions of releases by their digest, and what keys are called, by their id."""
    from cohort.surfaces.cli.render import NOTHING, facts, moment, table

    session.text(f"{'shadow copy of ' if call['arm'] == 'shadow' else ''}{name(call)}: {call['service']}, {_result(call)}")
    labels = ", ".join(f"{label} {names.get(call[label], call[label])}" for label in ("key", "run", "agent") if call[label])
    release = f"{names[call['release']]} ({call['release'][:16]})" if call["release"] in names else call["release"]
    held = ", ".join(_budget(budget, names) for budget in call["budgets"])
    facts(
        session,
        [
            ("when", moment(call["at_us"])),
            ("release", f"{release}, route {_route(call)}"),
            ("unit", call["unit"]),
            ("labels", labels or NOTHING),
            ("tokens", NOTHING if call["tokens_in"] is None else f"{call['tokens_in']} in, {call['tokens_out']} out"),
            ("cost", _cost(call) + (f", {_usd(call['held_usd_micro'])} held on {held}" if held else "")),
            ("trace", timeline["trace_id"] + (f", in the caller's span {timeline['parent_id']}" if timeline["parent_id"] else "")),
        ],
    )
    rows = [(bar["name"], lane(bar, timeline), millis(bar["start_us"]), millis(bar["total_us"]), bar["words"]) for bar in timeline["bars"]]
    table(session, ("step", "", "from", "took", "came of it"), rows)


def lane(bar: dict[str, Any], timeline: dict[str, Any]) -> str:
    """Where a bar lies on the call's line of time."""
    span = timeline["to_us"] - timeline["from_us"]
    start: int = min(int((bar["start_us"] - timeline["from_us"]) / span * LANE), LANE - 1)
    width: int = min(max(round(bar["total_us"] / span * LANE), 1), LANE - start)
    return "·" * start + ("░" if bar["kind"] == "wait" else "█") * width + "·" * (LANE - start - width)


def millis(value_us: int | None) -> str:
    from cohort.surfaces.cli.render import number

    text: str = number(None if value_us is None else value_us / 1000, "ms")
    return text


def _result(call: dict[str, Any]) -> str:
    return str(call["result"]).replace("_", " ") + (f" {call['status']}" if call["status"] not in (0, 200) else "")


def _route(call: dict[str, Any]) -> str:
    if call["cache"] not in ("", "none"):
        return f"cache {call['cache']}"
    return str(call["route"] or "-") + (" (degraded)" if call["degraded"] else "")


def _cost(call: dict[str, Any]) -> str:
    if call["cost_usd_micro"] is None:
        return "-"
    saved = f", {_usd(call['saved_usd_micro'])} saved" if call["saved_usd_micro"] else ""
    return _usd(call["cost_usd_micro"]) + (" est." if call["estimated"] else "") + saved


def _budget(budget: str, names: Mapping[str, str]) -> str:
    scope, _, name = budget.partition(":")
    return f"{scope} {names.get(name, name)}".strip()


def _usd(micro: int) -> str:
    return f"${micro / 1e6:.6f}"
