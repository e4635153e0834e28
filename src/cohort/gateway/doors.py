"""Which path leads where. Everything that is not a model call is answered here, at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from urllib.parse import unquote

import orjson

from cohort.gateway import openai
from cohort.gateway.assignment import UNIT_CHARS_MAX
from cohort.gateway.cache.door import CacheDoor
from cohort.gateway.chat import ChatDoor, find_service
from cohort.gateway.condition_door import ConditionDoor
from cohort.gateway.contract import pseudonym
from cohort.gateway.dialects.face import Refused
from cohort.gateway.dialects.operations import voice_of
from cohort.gateway.hosts import Hosts
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.link import Link
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Recorder
from cohort.gateway.responses_door import ResponsesDoor, owner_of
from cohort.gateway.spend.door import SpendDoor
from cohort.gateway.spool import Spool
from cohort.gateway.table import Table
from cohort.gateway.telemetry.contents_door import ContentsDoor

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
        metrics: Metrics,
        condition: ConditionDoor,
        cache: CacheDoor,
        unit_key: bytes,
        responses: ResponsesDoor,
        spend: SpendDoor,
        hosts: Hosts,
        contents: ContentsDoor,
        local: bool = True,
    ) -> None:
        self._condition = condition
        self._hosts = hosts
        self._known_hosts = hosts.known
        self._guard = spend.guard
        self._spend = spend
        self._local = local
        self._table = table
        self._link = link
        self._recorder = recorder
        self._spool = spool
        self._metrics = metrics
        self._unit_key = unit_key
        self._responses = responses
        self._doors: dict[bytes, tuple[bytes, Door]] = {
            **{path: (b"POST", partial(chat.handle, operation)) for path, operation in responses.operations.items()},
            b"/v1/models": (b"GET", self._models),
            b"/v1/feedback": (b"POST", self._feedback),
            b"/health": (b"GET", condition.health),
            b"/ready": (b"GET", condition.ready),
            b"/metrics": (b"GET", self._metrics_page),
            b"/-/routing": (b"PUT", link.put_routing),
            b"/-/state": (b"GET", link.get_state),
            b"/-/spending": (b"GET", spend.get_spending),
            b"/-/outcomes": (b"GET", link.get_outcomes),
            b"/-/outcomes/ack": (b"POST", link.acknowledge),
            b"/-/metrics": (b"GET", condition.own_metrics),
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
            raise Refused(404, f"nothing here at {path[:200].decode('utf-8', 'replace')}; {self._instead_of(path)}", "not_found")
        except Refused as refused:
            self._refuse(reply, refused, refused.headers, target=path)

    def _instead_of(self, path: bytes) -> str:
        """The path that was meant by one of a client whose base URL has a `/v1` too many or too few, or else all there are."""
        for meant in (path.removeprefix(b"/v1"), b"/v1" + path):
            if meant != path and meant in self._doors:
                return f"it is at {meant.decode()}: correct the `/v1` of the base URL, which OpenAI's clients need and Anthropic's add"
        return "there are: " + ", ".join(sorted(p.decode() for p in self._doors if not p.startswith(b"/-/")))

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

    def _metrics_page(self, request: Request, reply: Reply) -> Coroutine[None, None, None] | None:
        try:
            return self._condition.metrics(request, reply)
        except Refused as refused:
            self._refuse(reply, refused)
            return None

    def _refuse(self, reply: Reply, refused: Refused, headers: bytes = b"", target: bytes = b"") -> None:
        self._metrics.refused(refused.code)
        said = voice_of(target).error(refused.status, refused.message, refused.code, refused.param, refused.kind)
        reply.send(refused.status, said, refused.headers + headers)


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
