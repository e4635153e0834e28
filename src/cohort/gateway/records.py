"""Assignment and the records of it: who got which release, and how each call ended. Written to the spool as contract.Call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from cohort.base.clock import Clock
from cohort.gateway.adaptive.features import encode
from cohort.gateway.adaptive.router import Choice
from cohort.gateway.assignment import arm_of
from cohort.gateway.cache.tape import Tape
from cohort.gateway.compiled import Service, Target
from cohort.gateway.contract import Arm, Result
from cohort.gateway.contract_trace import TRIES_MAX
from cohort.gateway.dialects.face import UNKNOWN, Refused, Usage
from cohort.gateway.metrics import CallPlace, Metrics
from cohort.gateway.spend.allowances import Reserved
from cohort.gateway.spend.callers import Caller
from cohort.gateway.spend.pricing import cost_usd_micro
from cohort.gateway.spool import Spool
from cohort.gateway.telemetry.access import AccessLog
from cohort.gateway.telemetry.contents import Sample

SERVICES_MAX = 4096
_LOOKED = {b"x-cohort-cache: miss\r\n": ',"looked":"miss"', b"x-cohort-cache: bypass\r\n": ',"looked":"bypass"'}
"""What a record says of the caches, by what the reply says of them."""
_STABLE, _CANDIDATE, _OK = (
    Arm.STABLE,
    Arm.CANDIDATE,
    Result.OK,
)  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """What is the same in every record of one arm of a service under one table: each kind's JSON up to the number, encoded once."""

    target: Target
    place: CallPlace
    assigned: str
    call: str
    feedback: str


@dataclass(slots=True, eq=False)
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
    form: _Form
    result: Result = Result.LOST
    status: int = 0
    first_us: int | None = None
    total_us: int | None = None
    usage: Usage = UNKNOWN
    cost_usd_micro: int | None = None  # known once the call has ended
    caller: Caller | None = None
    reserved: Reserved | None = None  # what it holds of budgets and rates
    estimated: bool = False
    tape: Tape | None = None  # holds the answer for the caches, where they take part
    cache: str = ""
    cache_line: bytes = b""  # what the reply says of the caches
    saved_usd_micro: int | None = None
    beside: tuple[Target, ...] = ()  # asked as well, and given up although the upstream may charge for it
    attempts: int = 0  # asked of an upstream, each try counted
    degraded: bool = False  # another route than the first answered
    choice: Choice | None = None  # of a routing policy
    asked: Target | None = None  # the route asked first, where that is not the release's first
    tries: list[str] | None = None  # attempts as they stand in the record; None: one that needs no telling
    steps: str = ""  # as they stand in the record, each behind a comma
    trailer: bool = False  # the cost of a streamed answer follows its body
    sample: Sample | None = None  # its content is kept, redacted
    told: str = ""  # further fields of the record

    @property
    def first(self) -> Target:
        """The route that should answer."""
        return self.asked or self.form.target

    def route(self, choice: Choice) -> None:
        """A routing policy chose which route is asked first."""
        self.choice = choice
        self.target = self.asked = self.form.target.by_strength[choice.strong]

    def step(self, name: str, began_s: float, ended_s: float) -> None:
        """Something took part in the call from `began_s` to `ended_s` of the clock."""
        start_us, total_us = int((began_s - self.started_s) * 1e6), int((ended_s - began_s) * 1e6)
        self.steps += f',["{name}",{start_us},{total_us}]'

    def refused(self, refused: Refused) -> None:
        """It was refused after its assignment."""
        self.status = refused.status
        self.code(refused.code)

    def code(self, code: str) -> None:
        """The client gets an error of the gateway's own."""
        self.told += f',"code":"{code}"'

    def tried(self, attempt: tuple[Any, ...]) -> None:
        """An attempt ended: the values of a `contract_trace.Attempt`."""
        row = orjson.dumps(attempt).decode()
        if self.tries is None:
            self.tries = [row]
        elif len(self.tries) < TRIES_MAX:
            self.tries.append(row)
        else:
            self.tries[-1] = row


class Recorder:
    """Gives sequence numbers and times, both strictly increasing, and writes every record of this process.

    `write`: where records of calls go when not at once to the spool; it must have them on disk before anything is sent that rests on them.
    """

    def __init__(
        self,
        gateway: str,
        epoch: int,
        spool: Spool,
        metrics: Metrics,
        clock: Clock,
        rollouts_remembered: int,
        write: Callable[[bytes], object] | None = None,
    ) -> None:
        self._gateway = gateway
        self._epoch = epoch
        self._spool = spool
        self._write = write if write is not None else spool.append
        self._metrics = metrics
        self._clock = clock
        self.monotonic_s = clock.monotonic_s
        self._rollouts_remembered = rollouts_remembered
        self._seq = 0
        self._last_us = epoch
        self._forms: dict[str, tuple[Service, dict[Arm, _Form]]] = {}
        self.last_candidate_us: dict[str, int] = {}
        self.access: AccessLog | None = None

    def assign(self, service: Service, unit: str, stream: bool) -> Ongoing:
        """Give the unit its arm. Under a rollout the assignment is on disk when this returns."""
        split = service.split
        arm = arm_of(split, service.salts, unit) if split is not None and service.salts is not None else _STABLE
        form = self._form(service, arm)
        seq, at_us = self._next()
        ongoing = Ongoing(service, form.target, arm, unit, seq, at_us, self._clock.monotonic_s(), stream, form)
        if split is not None:
            self._assigned(ongoing)
            if arm is _CANDIDATE:
                self._remember(split.rollout_id, at_us)
        return ongoing

    def copy(self, original: Ongoing) -> Ongoing:
        """The shadow of a call: same number, same moment, the candidate's release."""
        form = self._form(original.service, Arm.SHADOW)
        numbers = (original.unit, original.seq, original.at_us, original.started_s, original.stream)
        shadow = Ongoing(original.service, form.target, Arm.SHADOW, *numbers, form, told=original.told)
        self._assigned(shadow)
        return shadow

    def first(self, ongoing: Ongoing) -> None:
        """The first byte of the body came."""
        ongoing.first_us = max(int((self._clock.monotonic_s() - ongoing.started_s) * 1e6), 0)

    def end(self, ongoing: Ongoing) -> None:
        """The call is over; `result`, `status` and `usage` say how. The first word counts: ending a call again does nothing.

        A call is ended before the client gets the last byte of its answer: what a client has met is on disk.
        """
        if ongoing.total_us is not None:
            return
        elapsed_us = int((self._clock.monotonic_s() - ongoing.started_s) * 1e6)
        ongoing.total_us = total_us = elapsed_us if elapsed_us > 0 else 0
        if ongoing.first_us is None and ongoing.result is _OK:
            ongoing.first_us = total_us
        ongoing.cost_usd_micro = 0 if ongoing.cache else cost_usd_micro(ongoing.target.price, ongoing.usage)
        if ongoing.reserved is not None:
            ongoing.reserved.settle(ongoing)
        form = ongoing.form
        begun = f'{form.call}{ongoing.seq},"at_us":{ongoing.at_us},"unit":"{ongoing.unit}","total_us":{total_us}{ongoing.target.record}'
        self._write((begun + _ending(ongoing)).encode())
        self._metrics.called(form.place, ongoing.result, total_us, ongoing.usage)
        if self.access is not None:
            self.access.call(ongoing)
        if ongoing.sample is not None:
            ongoing.sample.ended()

    def feedback(self, service: Service, unit: str, score: float | None, negative: bool) -> bool:
        """What a client says of a unit; False when it could not be kept."""
        split = service.split
        arm = arm_of(split, service.salts, unit) if split is not None and service.salts is not None else _STABLE
        seq, at_us = self._next()
        form = self._form(service, arm)
        judged = ("" if score is None else f',"score":{orjson.dumps(score).decode()}') + (',"negative":true' if negative else "")
        return self._spool.append(f'{form.feedback}{seq},"at_us":{at_us},"unit":"{unit}"{judged}}}'.encode())

    def _next(self) -> tuple[int, int]:
        self._seq += 1
        now_us, after_us = self._clock.now_us(), self._last_us + 1
        self._last_us = now_us if now_us > after_us else after_us
        return self._seq, self._last_us

    def _remember(self, rollout_id: str, at_us: int) -> None:
        self.last_candidate_us[rollout_id] = at_us
        if len(self.last_candidate_us) > self._rollouts_remembered:
            del self.last_candidate_us[min(self.last_candidate_us, key=self.last_candidate_us.__getitem__)]

    def _assigned(self, ongoing: Ongoing) -> None:
        self._write(f'{ongoing.form.assigned}{ongoing.seq},"at_us":{ongoing.at_us},"unit":"{ongoing.unit}"}}'.encode())

    def _form(self, service: Service, arm: Arm) -> _Form:
        """Kept for the newest table that named the service."""
        known = self._forms.get(service.name)
        if known is None or known[0] is not service:
            if len(self._forms) >= SERVICES_MAX:
                self._forms.clear()
            known = self._forms[service.name] = (service, {})
        form = known[1].get(arm)
        if form is None:
            form = known[1][arm] = self._make_form(service, arm)
        return form

    def _make_form(self, service: Service, arm: Arm) -> _Form:
        target, split = service.target(arm), service.split
        body: dict[str, Any] = {"gateway": self._gateway, "epoch": self._epoch, "service": service.name, "release": target.digest}
        if arm is not _STABLE:
            body["arm"] = arm
        if split is not None:
            body["rollout_id"], body["stage_run"] = split.rollout_id, split.stage_run
            body["share"] = split.shadow_share if arm is Arm.SHADOW else split.share
        begun = {kind: orjson.dumps({"kind": kind, **body, "seq": 0}).decode()[:-2] for kind in ("assigned", "call", "feedback")}
        return _Form(target, (service.name, target.version, arm), **begun)


def _ending(ongoing: Ongoing) -> str:
    """The fields of a `call` that are not at their default, and the closing brace. Text, without a dictionary in between."""
    tokens_in, tokens_out, _ = ongoing.usage
    if ongoing.result is _OK and tokens_in is not None and tokens_out is not None:
        rest = f',"status":{ongoing.status},"first_us":{ongoing.first_us},"tokens_in":{tokens_in},"tokens_out":{tokens_out}'
    else:
        rest = _unusual(ongoing)
    if ongoing.stream:
        rest += ',"stream":true'
    if ongoing.caller is not None:
        rest += ongoing.caller.record
    if ongoing.cost_usd_micro is not None:
        rest += f',"cost_usd_micro":{ongoing.cost_usd_micro}'
    if ongoing.estimated:
        rest += ',"estimated":true'
    if ongoing.cache:
        rest += f',"cache":"{ongoing.cache}","attempts":0'
        if ongoing.saved_usd_micro is not None:
            rest += f',"saved_usd_micro":{ongoing.saved_usd_micro}'
    elif ongoing.attempts != 1:
        rest += f',"attempts":{ongoing.attempts}'
    if ongoing.degraded:
        rest += ',"degraded":true'
    if ongoing.choice is not None:
        rest += _chosen(ongoing.choice)
    if ongoing.cache_line:
        rest += _LOOKED.get(ongoing.cache_line, "") if not ongoing.cache else ""
    if ongoing.tries is not None:
        rest += f',"tries":[{",".join(ongoing.tries)}]'
    if ongoing.steps:
        rest += f',"steps":[{ongoing.steps[1:]}]'
    return f"{rest}{ongoing.told}}}"


def _unusual(ongoing: Ongoing) -> str:
    """What an answer has and anything else may not have."""
    rest = "" if ongoing.result is _OK else f',"result":"{ongoing.result.value}"'
    if ongoing.status:
        rest += f',"status":{ongoing.status}'
    if ongoing.first_us is not None:
        rest += f',"first_us":{ongoing.first_us}'
    tokens_in, tokens_out, _ = ongoing.usage
    if tokens_in is not None:
        rest += f',"tokens_in":{tokens_in}'
    return rest if tokens_out is None else f'{rest},"tokens_out":{tokens_out}'


def _chosen(choice: Choice) -> str:
    """What a routing policy compared; nothing was where a release overrides the choice."""
    said = f',"bucket":"{choice.bucket}"' + (',"strong":true' if choice.strong else "")
    if choice.difficulty is None or choice.features is None:
        return said
    return f'{said},"difficulty":{choice.difficulty:.4f},"boundary":{choice.boundary:.4f},"features":"{encode(choice.features)}"'
