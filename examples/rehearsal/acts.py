"""The acts of the demo: each starts a rollout, lets the evidence decide, and notes what happened."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rehearsal.clients import Clients, Met, met_by
from rehearsal.house import House
from rehearsal.processes import Failed, kill_at_once
from rehearsal.releases import BETTER, EQUAL, EXAMPLES, HARMFUL, SERVICE, SLOW_TAIL, Candidate, write_release
from rehearsal.report import Report
from rehearsal.upstreams import Upstreams

SPEED = 100_000
LOOK_EVERY_S = 0.25
ROLLOUT_S_MAX = 100.0
SETTLED_S_MAX = 20.0
LADDER = EXAMPLES / "plans" / "ladder-5-25-100.yaml"
INCIDENT_RATE = 0.20
INCIDENT_AFTER_S = 3.0
INCIDENT_S_MAX = 30.0
KILL_STAGE = 1
RESTART_S_MAX = 20.0
ENDED = ("promoted", "rolled_back", "aborted")


class Teller(Protocol):
    """What shows the story."""

    def begin(self, title: str) -> None: ...
    def end(self, ok: bool, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def view(self, rollout: dict[str, Any] | None) -> None: ...


@dataclass(slots=True)
class Stage:
    """Everything the acts work with."""

    folder: Path
    house: House
    upstreams: Upstreams
    clients: Clients
    report: Report
    teller: Teller
    rollouts: list[str]

    def release(self, candidate: Candidate) -> None:
        """Create the release in the registry."""
        manifest = write_release(self.folder, candidate, self.upstreams.base_url(candidate.vendor))
        self.house.run("release", "create", str(manifest))

    def start(self, candidate: Candidate, plan: str) -> str:
        """Create the release and start its rollout; the rollout's id."""
        self.release(candidate)
        started = self.house.ask("rollout", "start", SERVICE, "--to", candidate.version, "--plan", plan, "--speed", str(SPEED))
        self.rollouts.append(started["id"])
        return str(started["id"])

    def look(self, rollout: str) -> dict[str, Any]:
        view = self.house.rollout(rollout)
        self.teller.view(view)
        return view

    def until(self, rollout: str, reached: Callable[[dict[str, Any]], bool], within_s: float, what: str) -> dict[str, Any]:
        """Look until `reached`, or the rollout has ended, and return the view.

        Raises:
            Failed: neither within `within_s`; `what` was waited for.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            view = self.look(rollout)
            if reached(view) or view["state"] in ENDED:
                return view
            time.sleep(LOOK_EVERY_S)
        raise Failed(f"{what}: not within {within_s:g} s; stage {view['stage']}, waiting for {'; '.join(view['waiting_for'])}")

    def ended(self, rollout: str) -> dict[str, Any]:
        """The rollout once it has ended and its last calls have come in."""
        self.until(rollout, lambda view: view["state"] in ENDED, ROLLOUT_S_MAX, f"the end of {rollout}")
        deadline = time.monotonic() + SETTLED_S_MAX
        while not (view := self.look(rollout))["summary"].get("settled") and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        return view


@contextlib.contextmanager
def act(stage: Stage, title: str) -> Iterator[None]:
    """One act on the screen; a failure inside is told and goes on up."""
    stage.teller.begin(title)
    try:
        yield
    except Failed as error:
        stage.teller.end(False, str(error))
        raise
    finally:
        stage.teller.view(None)


def better(stage: Stage) -> None:
    """A better release climbs the whole ladder."""
    with act(stage, "A better release: shadow, 5 %, 25 %, 100 %"):
        began = time.monotonic()
        view = stage.ended(stage.start(BETTER, "shadow-5-25-100"))
        certified = [rung["certified"] for rung in view["stages"]]
        serves = stage.house.service(SERVICE)["stable"]["version"]
        ok = view["state"] == "promoted" and all(certified) and serves == BETTER.version
        text = f"{view['state']} after {time.monotonic() - began:.0f} s; {sum(certified)} of {len(certified)} stages certified; {serves} serves"
        stage.report.add("better_promoted", ok, text, **_outcome(view), serving_now=serves, certificates=_certificates(view))
        stage.teller.end(ok, text)


def harmful(stage: Stage) -> None:
    """One that fails eight times as often is taken back from 5 %."""
    with act(stage, "A harmful release: 8 % failures instead of 1 %"):
        view, figures = _taken_back(stage, HARMFUL)
        first = figures["stage"] == view["stages"][0]["name"] and view["stages"][0]["traffic_pct"] == 5
        ok = figures["taken_back"] and first and _gate_is(view, "failures")
        stage.report.add("harmful_rolled_back", ok, _taken_back_text(figures), **figures)
        stage.teller.end(ok, _taken_back_text(figures))


def slow_tail(stage: Stage) -> None:
    """One that is slow only now and then is taken back for its latency."""
    with act(stage, "A release that is slower at the tail only"):
        view, figures = _taken_back(stage, SLOW_TAIL)
        ok = figures["taken_back"] and _gate_is(view, "latency")
        stage.report.add("slow_tail_rolled_back", ok, _taken_back_text(figures), **figures)
        stage.teller.end(ok, _taken_back_text(figures))


def incident(stage: Stage) -> None:
    """Both vendors fail alike while a rollout runs, and control is killed in the middle of it: neither stops the rollout."""
    with act(stage, "An incident that hits both arms alike, and SIGKILL to control under load"):
        before = stage.clients.now()
        rollout = stage.start(EQUAL, str(LADDER))
        try:
            stage.until(rollout, _running_for(INCIDENT_AFTER_S), ROLLOUT_S_MAX, "the first seconds of the rollout")
            began_at = stage.clients.now()
            stage.upstreams.incident(INCIDENT_RATE)
            stage.teller.note(f"both vendors now fail {INCIDENT_RATE:.0%} of all calls")
            stage.until(rollout, lambda view: view["stage"] >= KILL_STAGE, INCIDENT_S_MAX, "the 25 % stage")
            _kill_control(stage, rollout)
            stage.until(rollout, lambda view: view["stage"] > KILL_STAGE, INCIDENT_S_MAX, "the 100 % stage")
        finally:
            stage.upstreams.incident(0.0)
        ended_at = stage.clients.now()
        stage.teller.note("the incident is over")
        view = stage.ended(rollout)
        _note_incident(stage, view, before, began_at, ended_at)


def replay(stage: Stage) -> None:
    """Every verdict again, from the recorded log."""
    with act(stage, "Every verdict recomputed from the record"):
        answers = [stage.house.ask("rollout", "replay", rollout) for rollout in stage.rollouts]
        ok = bool(answers) and all(answer["identical"] for answer in answers)
        records, verdicts = (sum(answer[name] for answer in answers) for name in ("records", "verdicts"))
        text = f"{len(answers)} rollouts, {records} records, {verdicts} verdicts: {'identical' if ok else 'not identical'}"
        figures = [
            {name: answer[name] for name in ("rollout", "identical", "records", "verdicts", "first_difference")} for answer in answers
        ]
        stage.report.add("replay_identical", ok, text, rollouts=figures)
        stage.teller.end(ok, text)


def _running_for(seconds: float) -> Callable[[dict[str, Any]], bool]:
    return lambda view: (view["now_us"] - view["created_us"]) / 1e6 >= seconds


def _gate_is(view: dict[str, Any], metric: str) -> bool:
    alarm = _alarm(view)
    asked = str(alarm["detail"].get("check", alarm["reason"])) if alarm else ""
    return metric in asked


def _alarm(view: dict[str, Any]) -> dict[str, Any] | None:
    return next((event for event in view["events"] if event["kind"] == "alarm"), None)


def _outcome(view: dict[str, Any]) -> dict[str, Any]:
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
    return round(((rung["left_us"] or view["ended_us"] or view["now_us"]) - rung["entered_us"]) / 1e6, 1)


def _certificates(view: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"stage": event["stage"], "reason": event["reason"], **event["detail"]}
        for event in view["events"]
        if event["kind"] == "certificate"
    ]


def _taken_back(stage: Stage, candidate: Candidate) -> tuple[dict[str, Any], dict[str, Any]]:
    """Roll `candidate` out and let it be found out; the view and the figures."""
    serving = stage.house.service(SERVICE)["stable"]["version"]
    view = stage.ended(stage.start(candidate, str(LADDER)))
    after = stage.clients.now()
    now = stage.house.service(SERVICE)
    clients = met_by(after, candidate.version)
    summary, alarm = view["summary"], _alarm(view)
    verdict_at = (summary.get("verdict_us") or 0) / 1e6
    last_ms = summary.get("verdict_to_last_candidate_ms")
    taken_back = view["state"] == "rolled_back" and now["stable"]["version"] == serving and bool(summary.get("verified"))
    figures = {
        "taken_back": taken_back and last_ms is not None,
        "reason": view["reason"],
        "check": alarm["detail"].get("check") if alarm else None,
        "users_that_met_a_failure": summary.get("candidate_units_failed"),
        "units_on_the_candidate": summary.get("candidate_units"),
        "verdict_to_last_candidate_ms": last_ms,
        "verdict_to_traffic_moved_ms": summary.get("traffic_moved_ms"),
        "serving_now": now["stable"]["version"],
        "gateway_agrees": now["gateway_agrees"],
        "clients_say": {name: clients[name] for name in ("units", "units_failed", "requests", "failures", "p50_ms", "p95_ms")},
        "clients_last_answer_after_verdict_ms": round((clients["last_answer_at"] - verdict_at) * 1000, 1) if verdict_at else None,
    }
    return view, figures | _outcome(view)


def _taken_back_text(figures: dict[str, Any]) -> str:
    if not figures["taken_back"]:
        return f"{figures['state']} at {figures['stage']}; {figures['serving_now']} serves: {figures['reason']}"
    met, units = figures["users_that_met_a_failure"], figures["units_on_the_candidate"]
    return (
        f"rolled back from {figures['stage']} on {figures['check']}: {met} users met a failure, after {units} units; last candidate"
        f" assignment {figures['verdict_to_last_candidate_ms']:g} ms after the verdict; {figures['serving_now']} serves"
    )


def _kill_control(stage: Stage, rollout: str) -> None:
    """SIGKILL to control; what clients met until it was back, and whether the rollout is where it was."""
    was = stage.look(rollout)
    process, before = stage.house.process_id("control"), stage.clients.now()
    if process is None:
        raise Failed("`cohort status` does not say which process control is")
    kill_at_once(process)
    killed = time.monotonic()
    stage.teller.note(f"SIGKILL to control, process {process}")
    back = stage.house.get(f"/rollouts/{rollout}", RESTART_S_MAX)
    back_s = time.monotonic() - killed
    restarted = stage.house.process_id("control")
    met = Met.between(before, stage.clients.now())
    same = back["events"][: len(was["events"])] == was["events"] and back["stage"] >= was["stage"] and back["state"] != "rolled_back"
    text = f"control answers again after {back_s:.1f} s as process {restarted}; {met.requests} requests meanwhile, {met.other} failed because of it"
    stage.report.add(
        "control_killed_no_request_failed",
        met.other == 0 and met.connection_errors == 0 and met.requests > 0,
        text,
        requests=met.requests,
        failures_drawn_by_upstreams=met.failures - met.other,
        failures_other=met.other,
        connection_errors=met.connection_errors,
        errors=met.errors,
    )
    stage.report.add(
        "control_restarted_and_went_on",
        restarted not in (None, process) and same,
        f"stage {was['stage']} before, {back['stage']} after; {len(was['events'])} events kept",
        process_before=process,
        process_after=restarted,
        back_after_s=round(back_s, 2),
        stage_before=was["stage"],
        stage_after=back["stage"],
        revision_before=was["revision"],
        revision_after=back["revision"],
    )
    stage.teller.note(text)


def _note_incident(stage: Stage, view: dict[str, Any], before: dict[str, Any], began: dict[str, Any], ended: dict[str, Any]) -> None:
    rates = {version: _rate_between(began, ended, version) for version in (BETTER.version, EQUAL.version)}
    hit = all(rate is not None and rate > INCIDENT_RATE / 2 for rate in rates.values())
    met, after = Met.between(began, ended), stage.clients.now()
    ok = view["state"] == "promoted" and hit
    shown = ", ".join(f"{version}: {rate:.0%}" if rate is not None else f"{version}: no calls" for version, rate in rates.items())
    text = f"{view['state']}, not rolled back; failed calls during {ended['at'] - began['at']:.0f} s of incident: {shown}"
    stage.report.add(
        "incident_not_rolled_back",
        ok,
        text if ok else f"{view['state']}: {view['reason']}; {shown}",
        incident_s=round(ended["at"] - began["at"], 1),
        failure_rate_by_release=rates,
        requests_in_incident=met.requests,
        failures_in_incident=met.failures,
        failures_other=Met.between(before, after).other,
        **_outcome(view),
    )
    stage.teller.end(ok, text)


def _rate_between(before: dict[str, Any], after: dict[str, Any], version: str) -> float | None:
    first, last = met_by(before, version), met_by(after, version)
    requests = last["requests"] - first["requests"]
    return round((last["failures"] - first["failures"]) / requests, 3) if requests else None
