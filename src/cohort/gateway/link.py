"""Control's side door, under `/-/`: the routing table comes in, state and outcomes go out. Without the token it does not exist."""

from __future__ import annotations

import hmac

import orjson

from cohort.base.errors import CohortError
from cohort.gateway.chat import ChatDoor
from cohort.gateway.contract import Cursor, GatewayState, encode
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.records import Recorder
from cohort.gateway.settings import Limits
from cohort.gateway.spool import Spool
from cohort.gateway.table import Table

PROBLEM = b"application/problem+json"


class Link:
    """Endpoints for control alone."""

    def __init__(
        self, gateway: str, epoch: int, token: str, table: Table, spool: Spool, recorder: Recorder, chat: ChatDoor, limits: Limits
    ) -> None:
        self._gateway = gateway
        self._epoch = epoch
        self.authorization = b"Bearer " + token.encode()
        self._table = table
        self._spool = spool
        self._recorder = recorder
        self._chat = chat
        self._limits = limits
        self.draining = False

    def admits(self, request: Request) -> bool:
        """The request carries control's token."""
        return hmac.compare_digest(request.headers.get(b"authorization", b""), self.authorization)

    async def put_routing(self, request: Request, reply: Reply) -> None:
        """PUT /-/routing: answers with the state, whichever table is then in force."""
        try:
            await self._table.take(request.body)
        except CohortError as error:
            _problem(reply, error)
        else:
            reply.send(200, encode(self.state()))

    def get_state(self, _request: Request, reply: Reply) -> None:
        reply.send(200, encode(self.state()))

    async def get_outcomes(self, request: Request, reply: Reply) -> None:
        """GET /-/outcomes?segment=&offset=&max=&wait_ms=: a batch, at once or as soon as there is something."""
        try:
            query = _query(request.target)
            after = Cursor(query.get("segment", 0), query.get("offset", 0))
            records_max = min(max(query.get("max", self._limits.outcomes_records_max), 1), self._limits.outcomes_records_max)
            wait_ms = min(query.get("wait_ms", 0), self._limits.outcomes_wait_ms_max)
        except ValueError as error:
            _problem(reply, CohortError("FIELD_INVALID", f"outcomes: {error}", hint="Give whole numbers from 0 on."))
            return
        waits = wait_ms > 0 and not self.draining
        batch = self._spool.read(after, records_max) if waits else None
        if waits and batch is None:
            await self._spool.changed(wait_ms / 1000)
        reply.send(200, batch if batch is not None else self._spool.batch(after, records_max))

    def acknowledge(self, request: Request, reply: Reply) -> None:
        """POST /-/outcomes/ack with a cursor: what is before it may be deleted."""
        try:
            body = orjson.loads(request.body)
            self._spool.acknowledge(Cursor(_whole(body["segment"]), _whole(body["offset"])))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            _problem(reply, CohortError("FIELD_INVALID", f"acknowledgement: {error}", hint="Send {segment, offset} of a batch's `next`."))
        else:
            reply.send(200, b"{}")

    def state(self) -> GatewayState:
        snapshot = self._table.snapshot
        return GatewayState(
            gateway=self._gateway,
            epoch=self._epoch,
            table_version=self._table.version,
            services=snapshot.stable if snapshot else {},
            splits=snapshot.splits if snapshot else {},
            last_candidate_us=self._recorder.last_candidate_us,
            in_flight=self._chat.in_flight,
            spool_bytes=self._spool.bytes,
            routing=self._chat.routing(),
            troubles=self._table.breakers.troubles(),
        )

    def drain(self) -> None:
        """Answer waiting requests for outcomes now."""
        self.draining = True
        self._spool.release_waiters()


def _problem(reply: Reply, error: CohortError) -> None:
    reply.send(error.http_status, orjson.dumps(error.problem()), content_type=PROBLEM)


def _query(target: bytes) -> dict[str, int]:
    _, _, text = target.decode("ascii", "replace").partition("?")
    pairs = [part.partition("=") for part in text.split("&") if part]
    return {name: _whole(int(value)) for name, _, value in pairs}


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a whole number from 0 on, found {value!r}")
    return value
