"""The acts of the demo: each starts a rollout, lets the evidence decide, and notes what happened."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rehearsal.clients import Clients, Met, met_by
from rehearsal.outcomes import alarm_of, certificates, gate_is, outcome, taken_back_text
from rehearsal.processes import Failed, kill_at_once
from rehearsal.releases import BETTER, EQUAL, EXAMPLES, HARMFUL, SERVICE, SLOW_TAIL, Candidate
from rehearsal.stage import ROLLOUT_S_MAX, Stage

LADDER = EXAMPLES / "plans" / "ladder-5-25-100.yaml"
INCIDENT_RATE = 0.20
INCIDENT_AFTER_S = 3.0
INCIDENT_S_MAX = 60.0
KILL_STAGE = 1
RESTART_S_MAX = 20.0


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


def better(stage: Stage, _: Clients) -> None:
    """A better release climbs the whole ladder."""
    with act(stage, "A better release: shadow, 5 %, 25 %, 100 %"):
        began = time.monotonic()
        view = stage.ended(stage.start(BETTER, "shadow-5-25-100"))
        certified = [rung["certified"] for rung in view["stages"]]
        serves = stage.house.service(SERVICE)["stable"]["version"]
        ok = view["state"] == "promoted" and all(certified) and serves == BETTER.version
        stages = f"{sum(certified)} of {len(certified)} stages certified"
        text = f"{view['state']} after {time.monotonic() - began:.0f} s; {stages}; {serves} serves"
        stage.report.add("better_promoted", ok, text, **outcome(view), serving_now=serves, certificates=certificates(view))
        stage.teller.end(ok, text)


def harmful(stage: Stage, clients: Clients) -> None:
    """One that fails eight times as often is taken back from 5 %."""
    with act(stage, "A harmful release: 8 % failures instead of 1 %"):
        view, figures = _taken_back(stage, clients, HARMFUL)
        first = figures["stage"] == view["stages"][0]["name"] and view["stages"][0]["traffic_pct"] == 5
        ok = figures["taken_back"] and first and gate_is(view, "failures")
        stage.report.add("harmful_rolled_back", ok, taken_back_text(figures), **figures)
        stage.teller.end(ok, taken_back_text(figures))


def slow_tail(stage: Stage, clients: Clients) -> None:
    """One that is slow only now and then is taken back for its latency."""
    with act(stage, "A release that is slower at the tail only"):
        view, figures = _taken_back(stage, clients, SLOW_TAIL)
        ok = figures["taken_back"] and gate_is(view, "latency")
        stage.report.add("slow_tail_rolled_back", ok, taken_back_text(figures), **figures)
        stage.teller.end(ok, taken_back_text(figures))


def incident(stage: Stage, clients: Clients) -> None:
    """Both vendors fail alike while a rollout runs, and control is killed in the middle of it: neither stops the rollout."""
    with act(stage, "An incident that hits both arms alike, and SIGKILL to control under load"):
        before = clients.now()
        rollout = stage.start(EQUAL, str(LADDER))
        try:
            stage.until(rollout, _running_for(INCIDENT_AFTER_S), ROLLOUT_S_MAX, "the first seconds of the rollout")
            began_at = clients.now()
            stage.upstreams.incident(INCIDENT_RATE)
            stage.teller.note(f"both vendors now fail {INCIDENT_RATE:.0%} of all calls")
            process = stage.house.process_id("control")
            stage.until(rollout, lambda view: view["stage"] >= KILL_STAGE, INCIDENT_S_MAX, "the 25 % stage")
            _kill_control(stage, clients, rollout, process)
            stage.until(rollout, lambda view: view["state"] == "awaiting_approval", INCIDENT_S_MAX, "the question to a person")
        finally:
            stage.upstreams.incident(0.0)
        ended_at = clients.now()
        stage.teller.note("the incident is over; a person approves the last stage")
        if stage.look(rollout)["state"] == "awaiting_approval":
            stage.house.run("rollout", "approve", rollout, "--reason", "the incident is over")
        view = stage.ended(rollout)
        _note_incident(stage, view, began_at, ended_at, Met.between(before, clients.now()))


def replay(stage: Stage, _: Clients) -> None:
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


def _taken_back(stage: Stage, clients: Clients, candidate: Candidate) -> tuple[dict[str, Any], dict[str, Any]]:
    """Roll `candidate` out and let it be found out; the view and the figures."""
    serving = stage.house.service(SERVICE)["stable"]["version"]
    view = stage.ended(stage.start(candidate, str(LADDER)))
    after = clients.now()
    now = stage.house.service(SERVICE)
    theirs = met_by(after, candidate.version)
    summary, alarm = view["summary"], alarm_of(view)
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
        "clients_say": {name: theirs[name] for name in ("units", "units_failed", "requests", "failures", "p50_ms", "p95_ms")},
        "clients_agree": (theirs["units"], theirs["units_failed"])
        == (summary.get("candidate_units"), summary.get("candidate_units_failed")),
        "clients_last_answer_after_verdict_ms": round((theirs["last_answer_at"] - verdict_at) * 1000, 1) if verdict_at else None,
    }
    return view, figures | outcome(view)


def _kill_control(stage: Stage, clients: Clients, rollout: str, process: int | None) -> None:
    """SIGKILL to control; what clients met until it was back, and whether the rollout is where it was."""
    was, before = stage.look(rollout), clients.latest
    if process is None:
        raise Failed("`cohort status` does not say which process control is")
    kill_at_once(process)
    killed = time.monotonic()
    stage.teller.note(f"SIGKILL to control, process {process}")
    back = stage.house.get(f"/rollouts/{rollout}", RESTART_S_MAX)
    back_s = time.monotonic() - killed
    restarted = _other_process(stage, process)
    met = Met.between(before, clients.now())
    same = back["events"][: len(was["events"])] == was["events"] and back["stage"] >= was["stage"] and back["state"] != "rolled_back"
    text = f"control is back after {back_s:.1f} s as process {restarted}; of {met.requests} requests meanwhile {met.other} failed for it"
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


def _other_process(stage: Stage, killed: int) -> int | None:
    """The process that control is now, once `cohort status` has noticed; None when it does not."""
    deadline = time.monotonic() + RESTART_S_MAX
    while time.monotonic() < deadline:
        process = stage.house.process_id("control")
        if process not in (None, killed):
            return process
    return None


def _note_incident(stage: Stage, view: dict[str, Any], began: dict[str, Any], ended: dict[str, Any], whole: Met) -> None:
    rates = {version: _rate_between(began, ended, version) for version in (BETTER.version, EQUAL.version)}
    hit = all(rate is not None and rate > INCIDENT_RATE / 2 for rate in rates.values())
    met = Met.between(began, ended)
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
        failures_other=whole.other,
        **outcome(view),
    )
    stage.teller.end(ok, text)


def _rate_between(before: dict[str, Any], after: dict[str, Any], version: str) -> float | None:
    first, last = met_by(before, version), met_by(after, version)
    requests = last["requests"] - first["requests"]
    return round((last["failures"] - first["failures"]) / requests, 3) if requests else None
