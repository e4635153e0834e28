"""How a rollout moves from state to state. Pure: the rollout as it was, and the time, give the rollout as it is next and what to log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cohort.base.errors import CohortError, Retry
from cohort.delivery.model import Rollout, State
from cohort.delivery.rules import Decision, Step

CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry to log; `seq` and the idempotency key are given by the store."""

    kind: str
    stage: int
    actor: str
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


Moved = tuple[Rollout, list[Event]]


def follow(rollout: Rollout, decision: Decision, now_us: int, actor: str = CONTROL, detail: Mapping[str, Any] | None = None) -> Moved:
    """What a decision does. WAIT does nothing."""
    more = dict(detail or {})
    match decision.step:
        case Step.WAIT:
            return rollout, []
        case Step.HOLD:
            held = replace(rollout, state=State.PAUSED, paused_since_us=now_us, reason=decision.reason)
            return held, [Event("held", rollout.stage, actor, decision.reason, more)]
        case Step.ROLL_BACK:
            alarm = Event("alarm", rollout.stage, actor, decision.reason, {**more, "check": decision.check})
            ended, events = end(rollout, State.ROLLED_BACK, decision.reason, now_us, actor)
            return ended, [alarm, *events]
        case Step.ASK:
            asked = replace(rollout, state=State.AWAITING_APPROVAL)
            return asked, [Event("approval_asked", rollout.stage, actor, "every check passed; a person decides", more)]
        case Step.ADVANCE:
            return _advance(rollout, now_us, actor, more)
        case Step.PROMOTE:
            certificate = _certificate(rollout, actor, more)
            ended, events = end(rollout, State.PROMOTED, rollout.waived or "every stage passed", now_us, actor)
            return ended, [*certificate, *events]


def _advance(rollout: Rollout, now_us: int, actor: str, detail: Mapping[str, Any]) -> Moved:
    events = _certificate(rollout, actor, detail)
    entered = enter(rollout, rollout.stage + 1, now_us)
    return entered, [*events, *_entered(entered, actor)]


def _certificate(rollout: Rollout, actor: str, detail: Mapping[str, Any]) -> list[Event]:
    if rollout.waived is not None:
        return [Event("waived", rollout.stage, actor, rollout.waived, detail)]
    kind = "certificate" if rollout.present.certificate is not None else "passed"
    return [Event(kind, rollout.stage, actor, f"stage {rollout.present.name} passed", detail)]


def _entered(rollout: Rollout, actor: str) -> list[Event]:
    stage = rollout.present
    traffic = {"traffic_pct": stage.traffic_pct, "shadow_pct": stage.shadow_pct}
    paused = [Event("paused", rollout.stage, actor, "the plan pauses here")] if rollout.state is State.PAUSED else []
    return [Event("stage_entered", rollout.stage, actor, stage.name, traffic), *paused]


def enter(rollout: Rollout, stage: int, now_us: int) -> Rollout:
    """Into `stage`, with a stage run of its own."""
    paused = rollout.plan.stages[stage].pause
    return replace(
        rollout,
        state=State.PAUSED if paused else State.RUNNING,
        stage=stage,
        stage_run=rollout.stage_run + 1,
        stage_since_us=now_us,
        held_us=0,
        paused_since_us=now_us if paused else None,
        approved=False,
        waived=None,
        reason=None,
    )


def begin(rollout: Rollout, now_us: int, actor: str, detail: Mapping[str, Any]) -> Moved:
    """From planned into its first stage; `detail` holds what replay starts from."""
    running = enter(replace(rollout, stage_run=0), rollout.stage, now_us)
    return running, [Event("started", running.stage, actor, f"plan {rollout.plan.name}", detail), *_entered(running, actor)]


def pause(rollout: Rollout, now_us: int, actor: str, reason: str) -> Moved:
    _active(rollout)
    if rollout.state is State.PAUSED:
        return rollout, []
    paused = replace(rollout, state=State.PAUSED, paused_since_us=now_us, reason=reason or None)
    return paused, [Event("paused", rollout.stage, actor, reason)]


def resume(rollout: Rollout, now_us: int, actor: str, reason: str) -> Moved:
    """Go on; the time spent paused does not count towards the floor.

    Raises:
        CohortError ROLLOUT_NOT_PAUSED.
    """
    _active(rollout)
    if rollout.state is not State.PAUSED or rollout.paused_since_us is None:
        raise CohortError("ROLLOUT_NOT_PAUSED", f"{rollout.id} is {rollout.state.value}, not paused", hint="Nothing needs resuming.")
    held_us = rollout.held_us + now_us - rollout.paused_since_us
    return replace(rollout, state=State.RUNNING, paused_since_us=None, held_us=held_us, reason=None), [
        Event("resumed", rollout.stage, actor, reason)
    ]


def approve(rollout: Rollout, actor: str, reason: str) -> Moved:
    """A person lets the rollout leave this stage once every check passes."""
    _active(rollout)
    if rollout.approved:
        return rollout, []
    state = State.RUNNING if rollout.state is State.AWAITING_APPROVAL else rollout.state
    return replace(rollout, state=state, approved=True), [Event("approved", rollout.stage, actor, reason)]


def waive(rollout: Rollout, now_us: int, reason: str) -> Rollout:
    """As if every waivable check of this stage had passed, on a person's word."""
    _active(rollout)
    held_us = rollout.held_us + (now_us - rollout.paused_since_us if rollout.paused_since_us is not None else 0)
    return replace(rollout, state=State.RUNNING, paused_since_us=None, held_us=held_us, approved=True, waived=reason)


def end(rollout: Rollout, state: State, reason: str, now_us: int, actor: str) -> Moved:
    """Into a final state. The candidate takes no more units from the next routing table on (after a promotion: all of them)."""
    _active(rollout)
    ended = replace(rollout, state=state, ended_us=now_us, reason=reason, paused_since_us=None)
    return ended, [Event(state.value, rollout.stage, actor, reason)]


def _active(rollout: Rollout) -> None:
    if rollout.state.ended:
        raise CohortError(
            "ROLLOUT_ENDED",
            f"{rollout.id} is {rollout.state.value}: {rollout.reason}",
            retry=Retry.NEVER,
            hint=f"Start another with `cohort rollout start {rollout.service} --to VERSION`.",
        )
