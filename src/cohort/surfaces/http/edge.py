"""What every request passes first: the Host check, the size limit, the security headers and the count."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cohort.base.errors import CohortError, Retry
from cohort.surfaces.http.ports import ACTION_BODY_BYTES_MAX, BODY_BYTES_MAX, BODY_READ_S_MAX, LARGE_BODIES_AT_ONCE, RELEASE_BODY_BYTES_MAX
from cohort.surfaces.http.problems import problem_response

_ACTIONS = re.compile(r"/api/v1/(agents/[^/]+/)?actions|/mcp/?")
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

Count = Callable[[str, int], None]
"""Takes the method and the status of every answered request."""


class Edge:
    """ASGI middleware. `hosts`: the names that a Host header may carry (against DNS rebinding); None: any."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, count: Count, body_read_s: float = BODY_READ_S_MAX) -> None:
        self._app = app
        self._hosts = hosts
        self._count = count
        self._body_read_s = body_read_s
        self._large = asyncio.Semaphore(LARGE_BODIES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = self._with_headers(scope, send)
        try:
            self._check_host(Headers(scope=scope).get("host", ""))
            receive = await _whole_body(scope, receive, self._body_read_s, self._large)
        except ClientDisconnect:
            return
        except CohortError as refused:
            response = problem_response(refused)
            response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                self._count(scope["method"], message["status"])
            await send(message)

        return sending

    def _check_host(self, host: str) -> None:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self._hosts is not None and name.lower() not in self._hosts:
            raise CohortError(
                "HOST_REFUSED", f"this server does not answer for the host {host!r}", hint="Use the address that `cohort up` printed."
            )


async def _whole_body(scope: Scope, receive: Receive, read_s: float, large: asyncio.Semaphore) -> Receive:
    """Read the body of a change before anything looks at it; FILE_TOO_LARGE, BODY_SLOW. Half a body is no request: ClientDisconnect.

    `large`: how many large ones are read at the same time.
    """
    if scope["method"] not in CHANGING:
        return receive
    limit = _limit(scope["path"])
    declared = Headers(scope=scope).get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(read_s):
            body = await _read(receive, limit, large)
    except TimeoutError as error:
        raise CohortError("BODY_SLOW", f"the body did not arrive within {read_s:g} s", retry=Retry.SAFE, hint="Send it again.") from error
    return _replay(body, receive)


def _limit(path: str) -> int:
    if path == "/api/v1/releases":
        return RELEASE_BODY_BYTES_MAX
    return ACTION_BODY_BYTES_MAX if _ACTIONS.fullmatch(path) else BODY_BYTES_MAX


async def _read(receive: Receive, limit: int, large: asyncio.Semaphore) -> bytes:
    body = bytearray()
    if await _read_to(receive, body, min(limit, BODY_BYTES_MAX), limit):
        return bytes(body)
    async with large:
        await _read_to(receive, body, limit, limit)
        return bytes(body)


async def _read_to(receive: Receive, body: bytearray, enough: int, limit: int) -> bool:
    """Into `body` until it ends (True) or is longer than `enough` bytes. Errors: FILE_TOO_LARGE, ClientDisconnect."""
    while len(body) <= enough:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return True
    return False


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replaying() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replaying


def _too_large(limit: int) -> CohortError:
    return CohortError("FILE_TOO_LARGE", f"the body is larger than {limit} bytes", hint=f"Send at most {limit >> 20} MiB.")
