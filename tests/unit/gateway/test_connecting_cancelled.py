"""A connection that comes in the very turn in which its call is cancelled: nobody has it, so it must not stay open."""

from __future__ import annotations

import asyncio
from typing import Any

from cohort.base.clock import ManualClock
from cohort.gateway.addresses import AddressGuard, networks
from cohort.gateway.origins import Origin
from cohort.gateway.settings import Limits
from cohort.gateway.strands import Strand
from cohort.gateway.upstream_connection import UpstreamConnection
from cohort.gateway.upstreams import Upstreams


class Late(Upstreams):
    """Cancels its strand behind the end of the connecting, before the strand learns of it."""

    strand: Strand
    made: UpstreamConnection

    async def _connect_in_time(self, origin: Origin) -> UpstreamConnection:
        self.made = await super()._connect_in_time(origin)
        asyncio.get_running_loop().call_soon(self.strand.cancel)
        return self.made


def test_a_connection_for_a_cancelled_call_is_closed(clock: ManualClock) -> None:
    async def run() -> tuple[bool, int, Any]:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        upstreams = Late(Limits(), lambda transport, data: transport.write(data), AddressGuard(networks(["127.0.0.1/32"])), clock)
        over: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def ask() -> None:
            await upstreams.exchange(Origin("http", "127.0.0.1", port), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

        upstreams.strand = Strand(ask(), lambda _, error: over.set_result(error))
        upstreams.strand.step()
        error = await asyncio.wait_for(over, 10)
        transport = upstreams.made.transport
        server.close()
        return transport is None or transport.is_closing(), upstreams.open, error

    closed, open_ones, error = asyncio.run(run())
    assert isinstance(error, asyncio.CancelledError)
    assert (closed, open_ones) == (True, 0)
