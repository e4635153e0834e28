"""Calls as gateways report them, without a gateway: for the pure parts of the rollout engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from cohort.delivery.evidence import Evidence, Unit, key_of
from cohort.delivery.model import Plan, Rollout, State
from cohort.gateway.contract import Arm, Call, Result, bucket

SALT = b"\x07" * 32


def call(at_us: int, unit: str, arm: Arm = Arm.STABLE, *, run: int = 1, share: float = 0.5, **more: Any) -> Call:
    body: dict[str, Any] = {"kind": "call", "seq": at_us, "total_us": 100_000, **more}
    return Call(
        gateway="gw",
        epoch=1,
        at_us=at_us,
        service="support",
        release="",
        unit=unit,
        arm=arm,
        rollout_id="ro_x",
        stage_run=run,
        share=share,
        **body,
    )


def arm_at(unit: str, share: float) -> Arm:
    return Arm.CANDIDATE if bucket(SALT, unit) < share else Arm.STABLE


def name(number: int) -> str:
    return hashlib.sha256(f"unit {number}".encode()).hexdigest()[:32]


def assigned(at_us: int, number: int, share: float, *, run: int = 1, bad: Iterable[Arm] = (), **more: Any) -> Call:
    """A call of unit `number`, on the arm its bucket gives it; fails when that arm is in `bad`."""
    unit = name(number)
    arm = arm_at(unit, share)
    result = Result.UPSTREAM_ERROR if arm in set(bad) else Result.OK
    return call(at_us, unit, arm, run=run, share=share, **{"result": result, **more})


def take(evidence: Evidence, calls: Iterable[Call], units: dict[str, Unit] | None = None) -> dict[str, Unit]:
    """Into the evidence, in its order, as the intake does it."""
    known = {} if units is None else units
    for _, group in groupby(sorted(calls, key=lambda one: (key_of(one), one.kind, one.arm)), key_of):
        evidence.take(list(group), known)
    return known


def rollout_of(plan: Plan, **more: Any) -> Rollout:
    body: dict[str, Any] = {
        "id": "ro_x",
        "service": "support",
        "stable": "rel_a",
        "candidate": "rel_b",
        "plan": plan,
        "speed": 1.0,
        "salt": SALT.hex(),
        "state": State.RUNNING,
        "stage": 0,
        "stage_run": 1,
        "stage_since_us": 0,
        "held_us": 0,
        "paused_since_us": None,
        "approved": False,
        "waived": None,
        "revision": 1,
        "created_us": 0,
        "created_by": "alice",
        "ended_us": None,
        "reason": None,
        "summary": {},
    }
    return Rollout(**{**body, **more})
