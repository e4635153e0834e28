"""What a connection held is given back when it closes, not when the collector of cycles comes by: between calls that make none it seldom does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
from pathlib import Path
from typing import Any

import uvloop

from cohort.base.clock import ManualClock
from cohort.gateway.addresses import AddressGuard, networks
from cohort.gateway.http_connection import Connection
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.http_server import Server
from cohort.gateway.log import Log
from cohort.gateway.origins import Origin
from cohort.gateway.settings import Limits
from cohort.gateway.spool import Spool
from cohort.gateway.strands import Strand
from cohort.gateway.turns import Turn
from cohort.gateway.upstream_connection import UpstreamConnection, UpstreamError
from cohort.gateway.upstreams import Upstreams

ROUNDS = 5
ASKED = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
UNHEARD = b"GET /unheard HTTP/1.1\r\nhost: x\r\n\r\n"


def alive(kind: type) -> int:
    return sum(type(one) is kind for one in gc.get_objects())


async def ask(upstreams: Upstreams, port: int) -> None:
    origin = Origin("http", "127.0.0.1", port)
    connection = await upstreams.exchange(origin, ASKED)
    assert connection.status == 200
    upstreams.finish(connection)
    with contextlib.suppress(UpstreamError):
        await upstreams.exchange(origin, UNHEARD)


def test_connections_of_clients_and_to_upstreams_are_freed_when_they_close(tmp_path: Path) -> None:
    async def scene() -> None:
        loop, clock = asyncio.get_running_loop(), ManualClock()
        log = Log("gw", clock, io.StringIO())
        turn = Turn(loop, Spool(tmp_path, "gw", 1, Limits(), clock, log))

        def answer(request: Request, reply: Reply) -> Any:
            if request.target == b"/":
                reply.send(200, b"{}")
            else:
                reply.break_off(b"")  # which is no answer

        server = Server(answer, Limits(), log, turn, lambda _code: None)
        port = await server.listen("127.0.0.1", 0)
        upstreams = Upstreams(Limits(), turn.send, AddressGuard(networks(["127.0.0.1/32"])), clock)
        gc.collect()
        gc.disable()
        try:
            for _ in range(ROUNDS):
                over: asyncio.Future[None] = loop.create_future()
                Strand(ask(upstreams, port), lambda _strand, error, over=over: over.set_result(error)).step()
                assert await over is None
            await server.drain()  # until the last is lost
            await asyncio.sleep(0)
            assert (alive(Connection), alive(UpstreamConnection)) == (0, 0)
        finally:
            gc.enable()

    uvloop.run(scene())
