"""Which path leads where. Everything that is not a model call is answered here, at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from urllib.parse import unquote

import orjson

from cohort.gateway import metrics as prometheus
from cohort.gateway import openai
from cohort.gateway.assignment import UNIT_CHARS_MAX
from cohort.gateway.cache.door import CacheDoor
from cohort.gateway.chat import ChatDoor, find_service
from cohort.gateway.contract import pseudonym
from cohort.gateway.contract_routing import RoutingState
from cohort.gateway.dialects.face import Refused
from cohort.gateway.dialects.operations import voice_of
from cohort.gateway.hosts import Hosts
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.http_server import Server
from cohort.gateway.link import Link
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Recorder
from cohort.gateway.reliability.attempts import Attempts
from cohort.gateway.responses_door import ResponsesDoor, owner_of
from cohort.gateway.siblings import Siblings
from cohort.gateway.spend.door import SpendDoor
from cohort.gateway.spool import Spool
from cohort.gateway.table import Table
from cohort.gateway.telemetry.contents_door import ContentsDoor
from cohort.gateway.upstreams import Upstreams

_ELSEWHERE = re.compile(rb"https?://(?!(?:localhost\.?|127\.0\.0\.1|\[::1\])(?::\d+)?$)", re.IGNORECASE)
"""The origin of a web page that did not come from this machine."""
ANTHROPIC_VERSION = b"anthropic-version"
"""The header by which a caller of a path that both dialects have shows that it speaks Anthropic's."""
NAME_BYTES_SHOWN = 100
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
Door = Callable[[Request, Reply], "Coroutine[None, None, None] | None"]


class Doors:
    """The handler of the server. `local`: only programs of this machine are meant to reach it, so no page from elsewhere may use it.

    A browser on this machine would otherwise lend its reach to any site whose name is made to resolve to a loopback address (`hosts`), or
    that sends a request to this one; and what it spends is the owner's. Programs send no Origin.
    """

    def __init__(
        self,
        table: Table,
        chat: ChatDoor,
        link: Link,
        recorder: Recorder,
        spool: Spool,
        upstreams: Upstreams,
        metrics: Metrics,
        cache: CacheDoor,
        unit_key: bytes,
        attempts: Attempts,
        responses: ResponsesDoor,
        spend: SpendDoor,
        hosts: Hosts,
        contents: ContentsDoor,
        local: bool = True,
        siblings: Siblings | None = None,
    ) -> None:
        self._siblings = siblings
        self._hosts = hosts
        self._known_hosts = hosts.known
        self._guard = spend.guard
        self._spend = spend
        self._cache = cache
        self._local = local
        self._table = table
        self._chat = chat
        self._link = link
        self._recorder = recorder
        self._spool = spool
        self._upstreams = upstreams
        self._metrics = metrics
        self._unit_key = unit_key
        self._attempts = attempts
        self._responses = responses
        self.server: Server | None = None
        self._doors: dict[bytes, tuple[bytes, Door]] = {
            **{path: (b"POST", partial(chat.handle, operation)) for path, operation in responses.operations.items()},
            b"/v1/models": (b"GET", self._models),
            b"/v1/feedback": (b"POST", self._feedback),
            b"/health": (b"GET", self._health),
            b"/ready": (b"GET", self._ready),
            b"/metrics": (b"GET", self._metrics_page),
            b"/-/routing": (b"PUT", link.put_routing),
            b"/-/state": (b"GET", link.get_state),
            b"/-/spending": (b"GET", spend.get_spending),
            b"/-/outcomes": (b"GET", link.get_outcomes),
            b"/-/outcomes/ack": (b"POST", link.acknowledge),
            b"/-/metrics": (b"GET", self._own_metrics),
            b"/-/cache": (b"GET", cache.state),
            b"/-/cache/erase": (b"POST", cache.erase),
            b"/-/responses/erase": (b"POST", responses.erase),
            b"/-/contents": (b"GET", contents.read),
            b"/-/contents/erase": (b"POST", contents.erase),
        }

    def __call__(self, request: Request, reply: Reply) -> Coroutine[None, None, None] | None:
        host = request.headers.get(b"host")
        if host not in self._known_hosts and not self._hosts.answer(host):
            self._refuse_host(request, reply)
            return None
        if b"origin" in request.headers and self._local and _ELSEWHERE.match(request.headers[b"origin"]):
            words = "web pages of other sites may not use this gateway; `expose` it behind a proxy that decides who may"
            self._refuse(reply, Refused(403, words, "origin_refused"), target=request.target)
            return None
        path = request.target.partition(b"?")[0]
        found = self._doors.get(path)
        if path.startswith(b"/-/") and not self._link.admits(request):
            found = None
        if found is None:
            self._model_or_nothing(path, request, reply)
            return None
        if found[0] != request.method and not (found[0] == b"GET" and request.method == b"HEAD"):
            words = f"{path.decode()} takes {found[0].decode()}, not {request.method.decode()}"
            self._refuse(reply, Refused(405, words, "method_not_allowed"), b"allow: " + found[0] + b"\r\n", request.target)
            return None
        return found[1](request, reply)

    def _refuse_host(self, request: Request, reply: Reply) -> None:
        shown = request.headers.get(b"host", b"")[:NAME_BYTES_SHOWN].decode("latin-1")
        words = (
            f"this gateway does not answer for the host {shown!r}: call it by 127.0.0.1 or localhost, or add the name to `gateway.hosts` "
            "of cohort.yaml (COHORT_GATEWAY_HOSTS)"
        )
        self._refuse(reply, Refused(421, words, "host_refused"), target=request.target)

    # --- clients ---------------------------------------------------------------------------------------------------------------

    def _models(self, request: Request, reply: Reply) -> None:
        """GET /v1/models: the services that the caller may call."""
        try:
            caller = self._guard.admit(request.headers, reply.peer)
        except Refused as refused:
            self._refuse(reply, refused)
            return
        snapshot = self._table.snapshot
        names = sorted(snapshot.services) if snapshot else []
        models = [self._model(request, name) for name in names if caller is None or caller.may(name)]
        page: dict[str, object] = {"object": "list", "data": models}
        if ANTHROPIC_VERSION in request.headers:
            ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {"first_id": None, "last_id": None}
            page = {"data": models, "has_more": False, **ends}
        reply.send(200, orjson.dumps(page))

    def _model_or_nothing(self, path: bytes, request: Request, reply: Reply) -> None:
        try:
            if request.method == b"GET" and path.startswith(b"/v1/models/"):
                caller = self._guard.admit(request.headers, reply.peer)
                name = unquote(path.removeprefix(b"/v1/models/").decode("utf-8", "replace"))
                if caller is not None:
                    caller.check(name)
                reply.send(200, orjson.dumps(self._model(request, find_service(self._table, name).name)))
                return
            if path.startswith(b"/v1/responses/"):
                owner = owner_of(self._guard.admit(request.headers, reply.peer))
                self._responses.kept(path.removeprefix(b"/v1/responses/"), owner, request, reply)
                return
            known = ", ".join(sorted(p.decode() for p in self._doors if not p.startswith(b"/-/")))
            raise Refused(404, f"nothing here at {path[:200].decode('utf-8', 'replace')}; there are: {known}", "not_found")
        except Refused as refused:
            self._refuse(reply, refused, refused.headers, target=path)

    def _model(self, request: Request, name: str) -> dict[str, object]:
        issued_s = (self._table.snapshot.table.issued_us if self._table.snapshot else 0) // 1_000_000
        if ANTHROPIC_VERSION in request.headers:
            created = datetime.fromtimestamp(issued_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return {"type": "model", "id": name, "display_name": name, "created_at": created, "lifecycle": "active"}
        return {"id": name, "object": "model", "created": issued_s, "owned_by": "cohort"}

    def _feedback(self, request: Request, reply: Reply) -> None:
        """POST /v1/feedback: what a client thinks of a unit."""
        try:
            caller = self._guard.admit(request.headers, reply.peer)
            if b"origin" in request.headers:  # a page's form, which needs no leave to be sent, cannot say JSON
                openai.check_media(request.headers.get(b"content-type", b""))
            fields = openai.parse_object(request.body)
            name = fields.get("service")
            if not isinstance(name, str):
                raise Refused(400, "`service` must be the name of a service", "service_missing", "service")
            service = find_service(self._table, name, "service")
            if caller is not None:
                caller.check(name)
                self._spend.pass_request(caller)
            unit = self._feedback_unit(request, fields)
            score, negative = _judgement(fields)
        except Refused as refused:
            self._refuse(reply, refused)
            return
        self._metrics.feedback += 1
        if self._recorder.feedback(service, unit, score, negative):
            reply.send(202, orjson.dumps({"unit": unit, "service": name}))
        else:
            self._refuse(reply, Refused(507, f"the feedback could not be kept: {self._spool.problem}", "spool_full", kind="server_error"))

    def _feedback_unit(self, request: Request, fields: dict[str, object]) -> str:
        stored = fields.get("pseudonym")
        if isinstance(stored, str) and _PSEUDONYM.fullmatch(stored):
            return stored
        if stored is not None:
            raise Refused(
                400, "`pseudonym` must be the X-Cohort-Unit header of an answer: 32 hexadecimal digits", "unit_invalid", "pseudonym"
            )
        raw = fields.get("unit") or request.headers.get(b"x-cohort-unit", b"").decode("utf-8", "replace")
        if not isinstance(raw, str) or not raw:
            raise Refused(400, "`unit` is missing: name the conversation, as in the request it judges", "unit_missing", "unit")
        return pseudonym(self._unit_key, raw[:UNIT_CHARS_MAX])

    # --- operators -------------------------------------------------------------------------------------------------------------

    def _health(self, request: Request, reply: Reply) -> None:
        more = {"problems": self._problems()} if self._confides_in(request, reply) else {}
        reply.send(200, orjson.dumps({"status": "ok", **more}))

    def _ready(self, request: Request, reply: Reply) -> None:
        draining = self.server is not None and self.server.draining
        ready = self._table.snapshot is not None and not draining
        body: dict[str, object] = {"ready": ready}
        if self._confides_in(request, reply):
            reason = "draining" if draining else None if ready else "no routing table yet"
            body |= {"reason": reason, "table_version": self._table.version, "problems": self._problems()}
        reply.send(200 if ready else 503, orjson.dumps(body))

    def _confides_in(self, request: Request, reply: Reply) -> bool:
        """What is wrong here names upstreams and servers: where others reach the gateway, it is for holders of a key and control alone."""
        try:
            self._check_figures(request, reply)
        except Refused:
            return False
        return True

    def _check_figures(self, request: Request, reply: Reply) -> None:
        """Raises Refused where a key is needed to look into the process, and did not come."""
        if not (self._local or self._link.admits(request)):
            self._guard.admit(request.headers, reply.peer)

    def _problems(self) -> list[str]:
        return (
            ([self._spool.problem] if self._spool.problem else [])
            + self._table.breakers.problems()
            + self._spend.problems
            + self._cache.problems
        )

    def _metrics_page(self, request: Request, reply: Reply) -> Coroutine[None, None, None] | None:
        """GET /metrics. It names services and what they use: where others reach the gateway, for holders of a key and control alone."""
        try:
            self._check_figures(request, reply)
        except Refused as refused:
            self._refuse(reply, refused)
            return None
        if self._siblings:
            return self._everybodys_metrics(self._siblings, reply)
        if self._metrics.worker:
            reply.be_last()  # a scraper that keeps its connection would meet this worker for ever
        self._own_metrics(request, reply)
        return None

    def _own_metrics(self, _request: Request, reply: Reply) -> None:
        reply.send(200, self._figures(), content_type=prometheus.CONTENT_TYPE)

    async def _everybodys_metrics(self, siblings: Siblings, reply: Reply) -> None:
        reply.send(200, await siblings.with_own(self._figures()), content_type=prometheus.CONTENT_TYPE)

    def _figures(self) -> bytes:
        server = self.server
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "cohort_gateway_in_flight": ("Calls between assignment and end.", lambda: self._chat.in_flight),
            "cohort_gateway_shadow_in_flight": ("Shadow copies between assignment and end.", lambda: self._chat.shadows),
            "cohort_gateway_client_connections": ("Connections of clients.", lambda: server.connections if server else 0),
            "cohort_gateway_upstream_connections": ("Connections to upstreams.", lambda: self._upstreams.open),
            "cohort_gateway_spool_bytes": ("Bytes of the spool on disk.", lambda: self._spool.bytes),
            "cohort_gateway_routes_open": ("Routes whose circuit is not closed.", lambda: len(self._table.breakers.open())),
            "cohort_gateway_table_version": ("Version of the routing table in force.", lambda: self._table.version),
        }
        counters: dict[str, tuple[str, Callable[[], float]]] = {
            "cohort_gateway_requests_total": ("Requests of any kind.", lambda: server.requests if server else 0),
            "cohort_gateway_upstream_retries_total": ("Connections tried a second time.", lambda: self._upstreams.retries),
            "cohort_gateway_retries_total": ("Tries of a route beyond its first in a call.", lambda: self._attempts.counts.retries),
            "cohort_gateway_fallbacks_total": ("Further routes that were asked.", lambda: self._attempts.counts.fallbacks),
            "cohort_gateway_hedges_total": ("Routes asked beside one that had not answered yet.", lambda: self._attempts.counts.hedges),
            "cohort_gateway_degraded_total": ("Calls that another route than the first answered.", lambda: self._attempts.counts.degraded),
            "cohort_gateway_circuit_refused_total": (
                "Calls refused as every circuit was open.",
                lambda: self._attempts.counts.refused_open,
            ),
            "cohort_gateway_shed_total": ("Calls refused as the queue for an upstream was full or old.", lambda: self._upstreams.shed),
            "cohort_gateway_outcomes_written_total": ("Records written to the spool.", lambda: self._spool.written),
            "cohort_gateway_log_lines_lost_total": ("Log lines that could not be written.", lambda: server.log.lost if server else 0),
            "cohort_gateway_outcomes_dropped_total": ("Records that could not be written.", lambda: self._spool.dropped),
        }
        gauges |= self._spend.gauges()
        counters |= self._spend.counters()
        routing = self._chat.routing()
        for name, words, read in _ROUTING:
            self._metrics.labelled[name] = (words, [((("service", service),), read(state)) for service, state in sorted(routing.items())])
        return self._metrics.text(gauges, counters)

    def _refuse(self, reply: Reply, refused: Refused, headers: bytes = b"", target: bytes = b"") -> None:
        self._metrics.refused(refused.code)
        said = voice_of(target).error(refused.status, refused.message, refused.code, refused.param, refused.kind)
        reply.send(refused.status, said, refused.headers + headers)


_ROUTING: tuple[tuple[str, str, Callable[[RoutingState], float]], ...] = (
    ("cohort_gateway_routing_boundary", "Difficulty from which on the strong model answers.", lambda state: state.boundary),
    ("cohort_gateway_routing_drift", "How far routing is from what the release says.", lambda state: state.drift),
    ("cohort_gateway_routing_conversations", "Conversations routed since the process began.", lambda state: float(state.conversations)),
)


def _judgement(fields: dict[str, object]) -> tuple[float | None, bool]:
    score, negative = fields.get("score"), fields.get("negative")
    if score is None and negative is None:
        raise Refused(400, "give `score` from 0 to 1, or `negative`: true or false", "score_missing", "score")
    if negative is not None and not isinstance(negative, bool):
        raise Refused(400, "`negative` must be true or false", "negative_invalid", "negative")
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score) or not 0 <= score <= 1
    ):
        raise Refused(400, f"`score` must be a number from 0 to 1, found {score!r}"[:200], "score_invalid", "score")
    return (float(score) if isinstance(score, int | float) else None), bool(negative)
