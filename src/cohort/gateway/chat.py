"""A model call: find the service, assign the unit, answer, record; copy to the candidate where a rollout shadows."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Mapping
from typing import Any

from cohort.base.ids import Entropy
from cohort.gateway import openai
from cohort.gateway.adaptive.router import AdaptiveRouter
from cohort.gateway.answering import Answering
from cohort.gateway.assignment import raw_unit
from cohort.gateway.cache.caches import Caches
from cohort.gateway.cache.steps import CachedCalls
from cohort.gateway.compiled import Service
from cohort.gateway.contract import Result, pseudonym
from cohort.gateway.contract_routing import RoutingState
from cohort.gateway.contract_trace import parse_traceparent
from cohort.gateway.deadlines import Deadlines
from cohort.gateway.dialects.face import Chat, Operation, Refused
from cohort.gateway.dialects.repeated import check_every_field_once
from cohort.gateway.dialects.responses import claim
from cohort.gateway.http_messages import JSON, Reply, Request
from cohort.gateway.log import Log
from cohort.gateway.metrics import Metrics
from cohort.gateway.personal.guard import PersonalGuard
from cohort.gateway.records import Ongoing, Recorder
from cohort.gateway.responses_door import owner_of
from cohort.gateway.settings import Limits
from cohort.gateway.shadowing import Shadows
from cohort.gateway.spend.allowances import Allowances
from cohort.gateway.spend.callers import Caller, Guard
from cohort.gateway.spend.rules import label
from cohort.gateway.table import Table
from cohort.gateway.telemetry.contents import Contents

NAMES_SHOWN_MAX = 20
LOOP = "this request has come through this gateway before: a release has the gateway itself as its upstream; correct its `base_url`"
RUN, AGENT, TRACEPARENT = b"x-cohort-run", b"x-cohort-agent", b"traceparent"
LARGE_BYTES, ADMISSION_TOLD_S = 32 << 10, 0.001
"""The record of a call says how long its request was looked at before it was assigned, of one so large that took so long."""
OVERLOADED = "the gateway takes requests later than it may (loop_late_s_max); try again"


class ChatDoor:
    """Every model call of this process."""

    def __init__(
        self,
        table: Table,
        recorder: Recorder,
        answering: Answering,
        metrics: Metrics,
        unit_key: bytes,
        entropy: Entropy,
        limits: Limits,
        log: Log,
        caches: Caches,
        deadlines: Deadlines,
        router: AdaptiveRouter,
        gateway: str,
        guard: Guard,
        allowances: Allowances,
        contents: Contents,
    ) -> None:
        self._contents = contents
        self._allowances = allowances
        self._guard = guard
        self._table = table
        self._recorder = recorder
        self._monotonic_s = recorder.monotonic_s
        self._answering = answering
        self._metrics = metrics
        self._unit_key = unit_key
        self._entropy = entropy
        self._limits = limits
        self._log = log
        self._cached = CachedCalls(caches, recorder, answering.answer)
        self._deadlines = deadlines
        self._router = router
        self._aimed: object = None  # the table whose wanted shares the router has
        self._gateway = gateway.encode()
        self._shadows = Shadows(table, recorder, answering, metrics, limits, log, self._choose)

    def handle(self, operation: Operation, request: Request, reply: Reply) -> Coroutine[Any, None, None] | None:
        """Answer one call. The order: admit, parse, find, assign (on disk), ask, answer, record."""
        arrived_s = self._monotonic_s() if len(request.body) > LARGE_BYTES else math.inf
        try:
            headers, snapshot = request.headers, self._table.snapshot
            if self._deadlines.late:
                raise Refused(503, OVERLOADED, "gateway_overloaded", kind="server_error", headers=b"retry-after: 1\r\n")
            if b"cdn-loop" in headers and self._gateway in headers[b"cdn-loop"]:
                raise Refused(508, LOOP, "loop_detected")
            asks = self._guard.exposed or (snapshot is not None and snapshot.keys[1])
            caller = self._guard.admit(headers, reply.peer) if asks else None
            if headers.get(b"content-type") != JSON or b"content-encoding" in headers:
                openai.check_media(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
            chat = operation.parse(operation, request.body)
            service = find_service(self._table, chat.service)
            if caller is not None:
                caller.check(service.name)
                self._allowances.pass_request(caller)
            if service.looked_into:
                chat.verbatim = check_every_field_once(chat.body, chat.native)
            if chat.turn is not None:
                claim(chat, owner_of(caller))
            unit = self._unit(request, chat)
            told = _labels(headers, caller) if RUN in headers or AGENT in headers or TRACEPARENT in headers else ""
        except Refused as refused:
            self._metrics.refused(refused.code)
            if self._recorder.access is not None:
                self._recorder.access.refused(refused.status, refused.code, operation.name)
            reply.send(refused.status, _said(refused, operation), refused.headers)
            return None
        ongoing = self._recorder.assign(service, unit, chat.stream)
        ongoing.caller = caller
        ongoing.told = told if operation.conversational else f'{told},"operation":"{operation.name}"'
        if ongoing.started_s - arrived_s >= ADMISSION_TOLD_S:
            ongoing.step("admission", arrived_s, ongoing.started_s)
        chat.unit, chat.at_us = unit, ongoing.at_us
        if ongoing.target.routing is not None:
            self._choose(ongoing, chat)
        if service.split is not None and service.split.shadow_share > 0:
            self._shadows.maybe_copy(ongoing, chat, request, self._answering.in_flight)
        if ongoing.form.target.content is not None:
            self._contents.begin(ongoing, chat, ongoing.form.target.content)
        if ongoing.form.target.guard is not None:
            return self._guarded(ongoing.form.target.guard, ongoing, chat, request, reply)
        return self._answered(ongoing, chat, request, reply)

    def _guarded(
        self, guard: PersonalGuard, ongoing: Ongoing, chat: Chat, request: Request, reply: Reply
    ) -> Coroutine[Any, None, None] | None:
        """A call of a release that does not pass personal data on."""
        began_s = self._monotonic_s()
        try:
            chat = guard.apply(chat, self._metrics.personal_found)
            ongoing.step("personal", began_s, self._monotonic_s())
        except Refused as refused:
            ongoing.refused(refused)
            ongoing.result = Result.UPSTREAM_ERROR
            self._recorder.end(ongoing)
            reply.send(refused.status, _said(refused, chat.operation))
            return None
        return self._answered(ongoing, chat, request, reply)

    def _answered(self, ongoing: Ongoing, chat: Chat, request: Request, reply: Reply) -> Coroutine[Any, None, None] | None:
        if ongoing.target.cache is not None or b"cache-control" in request.headers:
            caller = ongoing.caller
            return self._cached.handle(ongoing, chat, request, reply, caller.key.tenant if caller is not None else "")
        return self._answering.answer(ongoing, chat, request, reply)

    async def close(self) -> None:
        """End the copies still running."""
        await self._shadows.close()

    @property
    def in_flight(self) -> int:
        """Calls between assignment and end."""
        return self._answering.in_flight

    @property
    def shadows(self) -> int:
        return self._shadows.count

    def _unit(self, request: Request, chat: Chat) -> str:
        raw = raw_unit(request.headers.get(b"x-cohort-unit"), chat.fields)
        if raw is None and chat.native is not chat.fields:
            raw = raw_unit(None, chat.native)
        if raw is not None:
            return pseudonym(self._unit_key, raw)
        chat.lone = not chat.unit and chat.turn is None
        return chat.unit or self._entropy(16).hex()

    # --- between a strong and a weak model ---

    def _choose(self, ongoing: Ongoing, chat: Chat) -> None:
        """Which of the release's routes is asked first, where its routing policy has a say."""
        policy, snapshot = ongoing.target.routing, self._table.snapshot
        if policy is None or snapshot is None or not chat.operation.conversational:
            return
        if snapshot is not self._aimed:
            self._aimed = snapshot
            self._router.aim(snapshot.strong_shares)
        began_s = self._monotonic_s()
        service, digest = ongoing.service, ongoing.target.digest
        choice = self._router.choose(
            service.name, digest, policy, ongoing.unit, chat.fields, snapshot.killed, chat.lone, service.routes_like
        )
        if choice is not None:
            ongoing.route(choice)
            ongoing.step("routing", began_s, self._monotonic_s())

    def routing(self) -> dict[str, RoutingState]:
        """How each service's stable release chooses between two models, where it does."""
        snapshot = self._table.snapshot
        services = snapshot.services.values() if snapshot is not None else ()
        return {
            service.name: self._router.state(service.name, service.stable.digest, service.stable.routing, snapshot.killed)
            for service in services
            if service.stable.routing is not None and snapshot is not None
        }


def _labels(headers: Mapping[bytes, bytes], caller: Caller | None) -> str:
    """What a caller calls this call of, as it stands in a record; raises Refused 400 for a name that is none."""
    run, agent = label(headers, RUN), label(headers, AGENT)
    told = f',"run":"{run}"' if run else ""
    if agent and not (caller is not None and caller.key.agent):
        told += f',"agent":"{agent}"'
    parent = parse_traceparent(headers.get(TRACEPARENT, b""))
    return told + (f',"parent":"{parent}"' if parent is not None else "")


def _said(refused: Refused, operation: Operation) -> bytes:
    return operation.voice.error(refused.status, refused.message, refused.code, refused.param, refused.kind)


def find_service(table: Table, name: str, field: str = "model") -> Service:
    """The service called `name` in `field`; raises Refused 503 without a table, 404 with the names there are."""
    snapshot = table.snapshot
    if snapshot is None:
        raise Refused(503, "the gateway has no routing table yet; control pushes one when it starts", "not_ready", kind="server_error")
    service = snapshot.services.get(name)
    if service is None:
        known = sorted(snapshot.services)
        shown = ", ".join(known[:NAMES_SHOWN_MAX]) or "none yet"
        more = f" and {len(known) - NAMES_SHOWN_MAX} more" if len(known) > NAMES_SHOWN_MAX else ""
        raise Refused(404, f"`{field}` names no service: {name[:100]!r}; services here: {shown}{more}", "model_not_found", field)
    return service
