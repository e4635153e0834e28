"""What a rollout's view says, as figures. Pure."""

from __future__ import annotations

from typing import Any


def gate_is(view: dict[str, Any], metric: str) -> bool:
    alarm = alarm_of(view)
    asked = str(alarm["detail"].get("check", alarm["reason"])) if alarm else ""
    return metric in asked


def alarm_of(view: dict[str, Any]) -> dict[str, Any] | None:
    return next((event for event in view["events"] if event["kind"] == "alarm"), None)


def outcome(view: dict[str, Any]) -> dict[str, Any]:
    """What every rollout has to say of itself."""
    took_us = (view["ended_us"] or view["now_us"]) - view["created_us"]
    return {
        "rollout": view["id"],
        "state": view["state"],
        "plan": view["plan"],
        "took_s": round(took_us / 1e6, 1),
        "stage": view["stages"][view["stage"]]["name"],
        "stages": [
            {"name": rung["name"], "certified": rung["certified"], "took_s": _rung_s(rung, view), "certificate": rung["certificate_text"]}
            for rung in view["stages"]
        ],
        "summary": view["summary"],
    }


def _rung_s(rung: dict[str, Any], view: dict[str, Any]) -> float | None:
    if rung["entered_us"] is None:
        return None
    return round(float((rung["left_us"] or view["ended_us"] or view["now_us"]) - rung["entered_us"]) / 1e6, 1)


def certificates(view: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"stage": event["stage"], "reason": event["reason"], **event["detail"]}
        for event in view["events"]
        if event["kind"] == "certificate"
    ]


def taken_back_text(figures: dict[str, Any]) -> str:
    if not figures["taken_back"]:
        return f"{figures['state']} at {figures['stage']}; {figures['serving_now']} serves: {figures['reason']}"
    met, units = figures["users_that_met_a_failure"], figures["units_on_the_candidate"]
    moved_ms, last_ms = figures["verdict_to_traffic_moved_ms"], figures["verdict_to_last_candidate_ms"]
    when = f"{last_ms:.0f} ms after the verdict" if last_ms else "before the verdict"
    return (
        f"rolled back from {figures['stage']} on {figures['check']} after {units} units; {met} users met a failure; traffic moved"
        f" {moved_ms:.0f} ms after the verdict, the last candidate assignment was {when}; {figures['serving_now']} serves"
    )
