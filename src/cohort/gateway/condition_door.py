"""How the process is: whether it lives and takes calls, what is wrong with it, and its figures. For operators and their machines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import orjson

from cohort.gateway.cache.door import CacheDoor
from cohort.gateway.chat import ChatDoor
from cohort.gateway.contract_routing import RoutingState
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.http_server import Server
from cohort.gateway.link import Link
from cohort.gateway.metrics import CONTENT_TYPE, Metrics
from cohort.gateway.reliability.attempts import Attempts
from cohort.gateway.siblings import Siblings
from cohort.gateway.spend.door import SpendDoor
from cohort.gateway.spool import Spool
from cohort.gateway.table import Table
from cohort.gateway.upstreams import Upstreams


class ConditionDoor:
    """`GET /health`, `/ready`, `/metrics`. `local`: only programs of this machine are meant to reach it, and may see all without a key."""

    def __init__(
        self,
        table: Table,
        chat: ChatDoor,
        link: Link,
        spool: Spool,
        upstreams: Upstreams,
        metrics: Metrics,
        cache: CacheDoor,
        attempts: Attempts,
        spend: SpendDoor,
        siblings: Siblings,
        local: bool,
    ) -> None:
        self._table = table
        self._chat = chat
        self._link = link
        self._spool = spool
        self._upstreams = upstreams
        self._metrics = metrics
        self._cache = cache
        self._attempts = attempts
        self._spend = spend
        self._guard = spend.guard
        self._siblings = siblings
        self._local = local
        self.server: Server | None = None

    def health(self, request: Request, reply: Reply) -> None:
        more = {"problems": self._problems()} if self._confides_in(request) else {}
        reply.send(200, orjson.dumps({"status": "ok", **more}))

    def ready(self, request: Request, reply: Reply) -> None:
        draining = self.server is not None and self.server.draining
        ready = self._table.snapshot is not None and not draining
        body: dict[str, object] = {"ready": ready}
        if self._confides_in(request):
            reason = "draining" if draining else None if ready else "no routing table yet"
            body |= {"reason": reason, "table_version": self._table.version, "problems": self._problems()}
        reply.send(200 if ready else 503, orjson.dumps(body))

    def _confides_in(self, request: Request) -> bool:
        """What is wrong here names upstreams and servers: where others reach the gateway, it is for holders of a key and control alone."""
        return self._local or self._link.admits(request) or self._guard.knows(request.headers)

    def _problems(self) -> list[str]:
        return (
            ([self._spool.problem] if self._spool.problem else [])
            + self._table.breakers.problems()
            + self._spend.problems
            + self._cache.problems
        )

    def metrics(self, request: Request, reply: Reply) -> Coroutine[None, None, None] | None:
        """GET /metrics. It names services and what they use: where others reach the gateway, for holders of a key and control alone.

        Raises:
            Refused: a key is needed, and did not come.
        """
        if not (self._local or self._link.admits(request)):
            self._guard.admit(request.headers, reply.peer)
        if self._siblings:
            return self._everybodys_metrics(reply)
        if self._metrics.worker:
            reply.be_last()  # a scraper that keeps its connection would meet this worker for ever
        self.own_metrics(request, reply)
        return None

    def own_metrics(self, _request: Request, reply: Reply) -> None:
        """The figures of this process alone."""
        reply.send(200, self._figures(), content_type=CONTENT_TYPE)

    async def _everybodys_metrics(self, reply: Reply) -> None:
        reply.send(200, await self._siblings.with_own(self._figures()), content_type=CONTENT_TYPE)

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


_ROUTING: tuple[tuple[str, str, Callable[[RoutingState], float]], ...] = (
    ("cohort_gateway_routing_boundary", "Difficulty from which on the strong model answers.", lambda state: state.boundary),
    ("cohort_gateway_routing_drift", "How far routing is from what the release says.", lambda state: state.drift),
    ("cohort_gateway_routing_conversations", "Conversations routed since the process began.", lambda state: float(state.conversations)),
)
