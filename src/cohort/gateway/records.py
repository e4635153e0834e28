"""Assignment and the records of it: who got which release, and how each call ended. Written to the spool as contract.Call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from cohort.base.clock import Clock
from cohort.gateway.assignment import arm_of
from cohort.gateway.contract import Arm, Price, Result, Split
from cohort.gateway.metrics import Metrics
from cohort.gateway.openai import Usage
from cohort.gateway.spool import Spool
from cohort.gateway.table import Service, Target

HEADS_MAX = 4096


@dataclass(slots=True)
class Ongoing:
    """A call between its assignment and its end, `LOST` until it is known how it went. `first_us` and `total_us` count from assignment."""

    service: Service
    target: Target
    arm: Arm
    unit: str
    seq: int
    at_us: int
    started_s: float
    stream: bool
    result: Result = Result.LOST
    status: int = 0
    first_us: int | None = None
    total_us: int | None = None
    usage: Usage = field(default_factory=Usage)


class Recorder:
    """Gives sequence numbers and times, both strictly increasing, and writes every record of this process."""

    def __init__(self, gateway: str, epoch: int, spool: Spool, metrics: Metrics, clock: Clock, rollouts_remembered: int) -> None:
        self._gateway = gateway
        self._epoch = epoch
        self._spool = spool
        self._metrics = metrics
        self._clock = clock
        self._rollouts_remembered = rollouts_remembered
        self._seq = 0
        self._last_us = epoch
        self._heads: dict[tuple[str, str, Arm, Split | None], bytes] = {}
        self.last_candidate_us: dict[str, int] = {}

    def assign(self, service: Service, unit: str, stream: bool) -> Ongoing:
        """Give the unit its arm. Under a rollout the assignment is on disk when this returns."""
        split = service.split
        arm = arm_of(split, service.salts, unit) if split is not None and service.salts is not None else Arm.STABLE
        seq, at_us = self._next()
        ongoing = Ongoing(service, service.target(arm), arm, unit, seq, at_us, self._clock.monotonic_s(), stream)
        if split is not None:
            self._write(b"assigned", ongoing)
            if arm is Arm.CANDIDATE:
                self._remember(split.rollout_id, at_us)
        return ongoing

    def copy(self, original: Ongoing) -> Ongoing:
        """The shadow of a call: same number, same moment, the candidate's release."""
        target = original.service.target(Arm.SHADOW)
        shadow = Ongoing(
            original.service, target, Arm.SHADOW, original.unit, original.seq, original.at_us, original.started_s, original.stream
        )
        self._write(b"assigned", shadow)
        return shadow

    def first(self, ongoing: Ongoing) -> None:
        """The first byte of the body came."""
        ongoing.first_us = self._since(ongoing)

    def end(self, ongoing: Ongoing) -> None:
        """The call is over; `result`, `status` and `usage` say how. The first word counts: ending a call again does nothing.

        A call is ended before the client gets the last byte of its answer: what a client has met is on disk.
        """
        if ongoing.total_us is not None:
            return
        ongoing.total_us = self._since(ongoing)
        if ongoing.first_us is None and ongoing.result is Result.OK:
            ongoing.first_us = ongoing.total_us
        self._write(b"call", ongoing, _ending(ongoing))
        self._metrics.called(ongoing.service.name, ongoing.target.version, ongoing.arm, ongoing.result, ongoing.total_us)

    def feedback(self, service: Service, unit: str, score: float | None, negative: bool) -> bool:
        """What a client says of a unit; False when it could not be kept."""
        split = service.split
        arm = arm_of(split, service.salts, unit) if split is not None and service.salts is not None else Arm.STABLE
        seq, at_us = self._next()
        ongoing = Ongoing(service, service.target(arm), arm, unit, seq, at_us, 0.0, False)
        judged: dict[str, Any] = {} if score is None else {"score": score}
        return self._write(b"feedback", ongoing, {**judged, "negative": True} if negative else judged)

    def _next(self) -> tuple[int, int]:
        self._seq += 1
        self._last_us = max(self._clock.now_us(), self._last_us + 1)
        return self._seq, self._last_us

    def _since(self, ongoing: Ongoing) -> int:
        return max(int((self._clock.monotonic_s() - ongoing.started_s) * 1e6), 0)

    def _remember(self, rollout_id: str, at_us: int) -> None:
        self.last_candidate_us[rollout_id] = at_us
        if len(self.last_candidate_us) > self._rollouts_remembered:
            del self.last_candidate_us[min(self.last_candidate_us, key=self.last_candidate_us.__getitem__)]

    def _write(self, kind: bytes, ongoing: Ongoing, rest: dict[str, Any] | None = None) -> bool:
        more = b"," + orjson.dumps(rest)[1:-1] if rest else b""
        numbers = (kind, self._head(ongoing), ongoing.seq, ongoing.at_us, ongoing.unit.encode(), more)
        return self._spool.append(b'{"kind":"%s",%s,"seq":%d,"at_us":%d,"unit":"%s"%s}' % numbers)

    def _head(self, ongoing: Ongoing) -> bytes:
        """What is the same in every record of an arm under one split, encoded once."""
        split = ongoing.service.split
        key = (ongoing.service.name, ongoing.target.digest, ongoing.arm, split)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            head = self._heads[key] = self._encode_head(ongoing, split)
        return head

    def _encode_head(self, ongoing: Ongoing, split: Split | None) -> bytes:
        body: dict[str, Any] = {
            "gateway": self._gateway,
            "epoch": self._epoch,
            "service": ongoing.service.name,
            "release": ongoing.target.digest,
        }
        if ongoing.arm is not Arm.STABLE:
            body["arm"] = ongoing.arm
        if split is not None:
            body["rollout_id"], body["stage_run"] = split.rollout_id, split.stage_run
            body["share"] = split.shadow_share if ongoing.arm is Arm.SHADOW else split.share
        return orjson.dumps(body)[1:-1]


def cost_usd_micro(price: Price | None, usage: Usage) -> int | None:
    """Millionths of a dollar: dollars per million tokens times tokens. None where price or usage is unknown."""
    if price is None or usage.tokens_in is None or usage.tokens_out is None:
        return None
    return round(usage.tokens_in * price.input_usd_per_mtok + usage.tokens_out * price.output_usd_per_mtok)


def _ending(ongoing: Ongoing) -> dict[str, Any]:
    rest: dict[str, Any] = {"total_us": ongoing.total_us, "route": ongoing.target.route}
    if ongoing.result is not Result.OK:
        rest["result"] = ongoing.result
    if ongoing.status:
        rest["status"] = ongoing.status
    if ongoing.first_us is not None:
        rest["first_us"] = ongoing.first_us
    if ongoing.stream:
        rest["stream"] = True
    if ongoing.usage.tokens_in is not None:
        rest["tokens_in"] = ongoing.usage.tokens_in
    if ongoing.usage.tokens_out is not None:
        rest["tokens_out"] = ongoing.usage.tokens_out
    cost = cost_usd_micro(ongoing.target.price, ongoing.usage)
    if cost is not None:
        rest["cost_usd_micro"] = cost
    return rest
