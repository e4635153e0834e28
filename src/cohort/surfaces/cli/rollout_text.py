"""Rollouts and forecasts as text."""

from __future__ import annotations

from typing import Any

from cohort.surfaces.cli.render import NOTHING, bar, moment, number, percent, rate, release, seconds, table
from cohort.surfaces.cli.session import Session

EVENTS_SHOWN = 12
MARKS = {"done": "✓", "present": "▶", "ahead": " ", "skipped": "–"}
STAGE_HEADINGS = ("", "stage", "share", "shadow", "floor", "certificate")
GATE_HEADINGS = ("gate", "verdict", "towards harmful", "towards safe", "finding")
ARM_HEADINGS = ("arm", "release", "units", "failed", "calls", "failed", "p50", "p95", "p99", "cost")


def headline(view: dict[str, Any]) -> str:
    stage = view["stages"][view["stage"]]
    where = "" if view["ended_us"] else f", stage {stage['name']} ({stage['traffic_pct']:g} %)"
    why = f": {view['reason']}" if view["reason"] else ""
    return (
        f"{view['id']}  {view['service']} {view['stable']['version']} -> {view['candidate']['version']}  {words(view['state'])}{where}{why}"
    )


def notes_of(view: dict[str, Any]) -> list[str]:
    """What was to be known when it started."""
    return [note for event in view["events"] if event["kind"] == "started" for note in event["detail"].get("notes", ())]


def words(state: str) -> str:
    return state.replace("_", " ")


def stage_rows(view: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            MARKS.get(stage["status"], "?"),
            stage["name"],
            percent(stage["traffic_pct"]),
            percent(stage["shadow_pct"]) if stage["shadow_pct"] else NOTHING,
            seconds(stage["floor_s"]),
            stage["certificate_text"] or NOTHING,
        )
        for stage in view["stages"]
    ]


def scale(value: dict[str, Any] | None) -> str:
    """`████░░ 2.1 of 4.6`: natural logarithms of e-values."""
    return NOTHING if value is None else f"{bar(value['part'], 10)} {value['log_e']:.1f} of {value['threshold']:.1f}"


def gate_rows(view: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            gate["name"] + (" (dry run)" if gate["dry_run"] else ""),
            words(gate["verdict"]),
            scale(gate["harmful"]),
            scale(gate["safe"]),
            gate["text"],
        )
        for gate in view["gates"]
    ]


def arm_rows(view: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            arm["arm"],
            arm["release"]["version"],
            f"{arm['units']:,}",
            f"{arm['units_failed']:,}",
            f"{arm['calls']:,}",
            f"{arm['calls_failed']:,}",
            number(arm["p50_ms"], "ms"),
            number(arm["p95_ms"], "ms"),
            number(arm["p99_ms"], "ms"),
            NOTHING if arm["cost_usd"] is None else f"${arm['cost_usd']:.4g}",
        )
        for arm in view["arms"]
    ]


def event_line(event: dict[str, Any]) -> str:
    reason = f"  {event['reason']}" if event["reason"] else ""
    actor = "" if event["actor"] == "control" else f" by {event['actor']}"
    return f"{moment(event['at_us'])}  {words(event['kind'])}{actor}{reason}"


def show_rollout(session: Session, view: dict[str, Any]) -> None:
    session.text(headline(view))
    who = "serves" if view["ended_us"] is not None else "serves everybody else"
    session.text(f"{who}: {release(view['serving'])}; plan {view['plan']}, speed {view['speed']:g}")
    session.text(f"started {moment(view['created_us'])} by {view['created_by']}; revision {view['revision']}")
    session.text()
    table(session, STAGE_HEADINGS, stage_rows(view))
    if view["waiting_for"]:
        session.text()
        session.text("waits for: " + "; ".join(view["waiting_for"]))
    for headings, rows in ((GATE_HEADINGS, gate_rows(view)), (ARM_HEADINGS, arm_rows(view))):
        if rows:
            session.text()
            table(session, headings, rows)
    session.text()
    for event in view["events"][-EVENTS_SHOWN:]:
        session.text(event_line(event))


def show_rows(session: Session, items: list[dict[str, Any]]) -> None:
    headings = ("rollout", "service", "from", "to", "state", "stage", "share", "started", "why")
    rows = [
        (
            item["id"],
            item["service"],
            item["stable"]["version"],
            item["candidate"]["version"],
            words(item["state"]),
            item["stage_name"],
            percent(item["traffic_pct"]),
            moment(item["created_us"]),
            item["reason"] or NOTHING,
        )
        for item in items
    ]
    table(session, headings, rows)


def show_forecast(session: Session, forecast: dict[str, Any]) -> None:
    source = " (assumed: no traffic was seen)" if forecast["assumed"] else ""
    traffic = f"{number(forecast['units_per_s'])} conversations/s, {rate(forecast['failure_rate'])} fail{source}"
    session.text(f"{forecast['plan']} for {forecast['service']}: {traffic}")
    headings = ("stage", "share", "floor", "units", "smallest seen", "2x found in", "2x costs", "5x found in", "certificate in")
    rows = [
        (
            stage["name"],
            percent(stage["traffic_pct"]),
            seconds(stage["floor_s"]),
            number(stage["units"]),
            NOTHING if stage["smallest_ratio"] is None else f"{stage['smallest_ratio']:.3g}x",
            seconds(stage["detect_s"].get("2")),
            NOTHING if stage["extra_failed"].get("2") is None else f"{stage['extra_failed']['2']:.3g} failed",
            seconds(stage["detect_s"].get("5")),
            seconds(stage["certificate_s"]),
        )
        for stage in forecast["stages"]
    ]
    table(session, headings, rows)
    session.say("2x: a candidate that fails twice as often. Seen: found with a probability of 80 % or more before the floor has passed.")
    for warning in forecast["warnings"]:
        session.text(f"warning: {warning}")
    for note in forecast["notes"]:
        session.text(f"note: {note}")
