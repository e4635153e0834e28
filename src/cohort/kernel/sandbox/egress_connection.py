"""One connection out of a sandbox, from the request to the last byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TypeVar

from cohort.base.errors import CohortError
from cohort.kernel.sandbox.egress_addresses import is_public
from cohort.kernel.sandbox.egress_names import Malformed, Target
from cohort.kernel.sandbox.egress_request import HEAD_BYTES_MAX, Ask, parse_head
from cohort.kernel.sandbox.egress_tls import HELLO_BYTES_MAX, NotHello, hello_of, server_name
from cohort.kernel.sandbox.egress_verdict import CONNECTIONS_MAX, Grant, Reason, Refused, Verdict

CHUNK_BYTES = 64 * 1024
USED_UP = "the bytes it may pass are used up"

Paid = TypeVar("Paid", int, bool)
Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_STATUS = {
    Reason.MALFORMED: "400 Bad Request",
    Reason.UNRESOLVED: "502 Bad Gateway",
    Reason.UNREACHABLE: "502 Bad Gateway",
    Reason.TOO_MANY: "503 Service Unavailable",
    Reason.SLOW: "408 Request Timeout",
    Reason.NOT_RECORDED: "503 Service Unavailable",
}


async def serve(grant: Grant, client: Pipe) -> None:
    """Decide, tell, dial and relay; every refusal is told too. Ends when the far side has ended, or on an error of either side (OSError)."""
    try:
        await _answer(grant, client)
    except Refused as refused:
        await _tell(grant, refused.verdict)
        if not refused.tunnelled:
            await _say_no(client[1], refused.verdict)


async def _answer(grant: Grant, client: Pipe) -> None:
    if grant.connections > CONNECTIONS_MAX:
        raise Refused(Reason.TOO_MANY, detail=f"more than {CONNECTIONS_MAX} connections at once")
    ask = await _read(grant, client[0])
    addresses = await _admit(grant, ask.target)
    await _tell(grant, Verdict(True, Reason.LISTED, str(ask.target), ask.method, addresses))
    far = await _dial(grant, ask.target, addresses)
    try:
        await _converse(grant, ask, client, far)
    finally:
        far[1].transport.abort()


async def _read(grant: Grant, reader: asyncio.StreamReader) -> Ask:
    try:
        async with asyncio.timeout(grant.times.head_s):
            return parse_head(await reader.readuntil(b"\r\n\r\n"))
    except Malformed as error:
        raise Refused(Reason.MALFORMED, detail=str(error)) from None
    except asyncio.LimitOverrunError:
        raise Refused(Reason.MALFORMED, detail=f"a head longer than {HEAD_BYTES_MAX} bytes") from None
    except asyncio.IncompleteReadError:
        raise Refused(Reason.MALFORMED, detail="a head without an end") from None
    except TimeoutError:
        raise Refused(Reason.SLOW, detail=f"no request within {grant.times.head_s:g} s") from None


async def _admit(grant: Grant, target: Target) -> tuple[str, ...]:
    """The addresses that may be dialled."""
    if not grant.allowed.permits(target):
        raise Refused(Reason.NOT_LISTED, target)
    if not await _charged(target, grant.any_left()):
        raise Refused(Reason.BUDGET, target, USED_UP)
    addresses = await _resolve(grant, target)
    bad = None if grant.private.permits(target) else next((one for one in addresses if not is_public(one)), None)
    if bad is not None:
        raise Refused(Reason.NOT_PUBLIC, target, f"it is at {bad}")
    return addresses


async def _resolve(grant: Grant, target: Target) -> tuple[str, ...]:
    try:
        async with asyncio.timeout(grant.times.resolve_s):
            return await grant.resolve(target)
    except CohortError as error:
        raise Refused(Reason.UNRESOLVED, target, error.message) from None
    except TimeoutError:
        raise Refused(Reason.UNRESOLVED, target, f"no answer within {grant.times.resolve_s:g} s") from None


async def _tell(grant: Grant, verdict: Verdict) -> None:
    """Tell a decision before it has an effect. One that allows and cannot be told is a refusal; a refusal stands, told or not."""
    grant.kept.append(verdict)
    try:
        await grant.tell(verdict)
    except CohortError as error:
        if verdict.allowed:
            raise Refused(Reason.NOT_RECORDED, detail=error.code) from error


async def _dial(grant: Grant, target: Target, addresses: tuple[str, ...]) -> Pipe:
    """The first address that answers, all of them within one time."""
    failures = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grant.times.dial_s):
            for address in addresses:
                try:
                    return await asyncio.open_connection(address, target.port)
                except OSError as error:
                    failures.append(f"{address}: {error}")
    raise Refused(Reason.UNREACHABLE, target, "; ".join(failures) or f"no answer within {grant.times.dial_s:g} s")


async def _converse(grant: Grant, ask: Ask, client: Pipe, far: Pipe) -> None:
    if ask.forward is None:
        client[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await client[1].drain()
        opening, body_bytes = await _hello(grant, ask.target, client[0]), None
    else:
        opening, body_bytes = ask.forward, ask.body_bytes
    await _send(grant, ask.target, opening, far[1])
    await _relay(grant, ask.target, client, far, body_bytes)


async def _hello(grant: Grant, target: Target, reader: asyncio.StreamReader) -> bytes:
    """The first bytes of a tunnel, once they are a ClientHello that names the target."""
    try:
        async with asyncio.timeout(grant.times.head_s):
            data, hello = await _first_bytes(target, reader)
        name = server_name(hello)
    except NotHello as error:
        raise Refused(Reason.NOT_TLS, target, str(error), tunnelled=True) from None
    except TimeoutError:
        raise Refused(Reason.SLOW, target, "no ClientHello in time", tunnelled=True) from None
    if name != (None if target.literal else target.host):
        raise Refused(Reason.OTHER_NAME, target, f"the ClientHello names {str(name)[:100]!r}", tunnelled=True)
    return data


async def _first_bytes(target: Target, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    data = b""
    while (hello := hello_of(data)) is None:
        more = await reader.read(HELLO_BYTES_MAX)
        if not more:
            raise Refused(Reason.NOT_TLS, target, "it ended before a ClientHello", tunnelled=True)
        data += more
    return data, hello


async def _relay(grant: Grant, target: Target, client: Pipe, far: Pipe, body_bytes: int | None) -> None:
    """Both ways until the far side has ended. `body_bytes`: exactly so many go up, whatever the client sends after them."""
    down = asyncio.create_task(_pass(grant, target, far[0], client[1], None))
    up = asyncio.create_task(_pass(grant, target, client[0], far[1], body_bytes))
    try:
        await asyncio.wait({down, up}, return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            up.result()
        await down
    finally:
        for task in (down, up):
            task.cancel()
        await asyncio.gather(down, up, return_exceptions=True)


async def _pass(grant: Grant, target: Target, source: asyncio.StreamReader, sink: asyncio.StreamWriter, bytes_max: int | None) -> None:
    left = bytes_max
    while left is None or left > 0:
        async with asyncio.timeout(grant.times.idle_s):
            data = await source.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
        if not data:
            break
        left = None if left is None else left - len(data)
        await _send(grant, target, data, sink)
    if bytes_max is None and sink.can_write_eof():
        sink.write_eof()


async def _send(grant: Grant, target: Target, data: bytes, sink: asyncio.StreamWriter) -> None:
    """Pass on what the budget still has; then refuse the rest."""
    taken = await _charged(target, grant.take(len(data)), tunnelled=True)
    sink.write(data[:taken])
    async with asyncio.timeout(grant.times.idle_s):
        await sink.drain()
    if taken < len(data):
        raise Refused(Reason.BUDGET, target, USED_UP, tunnelled=True)


async def _charged(target: Target, asked: Awaitable[Paid], *, tunnelled: bool = False) -> Paid:
    """What was asked of the fund; a refusal when it cannot say."""
    try:
        return await asked
    except CohortError as error:
        raise Refused(Reason.NOT_RECORDED, target, f"its bytes cannot be charged: {error.code}", tunnelled=tunnelled) from error


async def _say_no(writer: asyncio.StreamWriter, verdict: Verdict) -> None:
    body = f"Cohort refused this connection: {verdict.reason}{f' ({verdict.detail})' if verdict.detail else ''}\n".encode()
    status = _STATUS.get(verdict.reason, "403 Forbidden")
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
