"""/mcp on control's port: an OAuth resource server that lets nobody in without an agent's token made for it.

What answers those who are let in takes a second to load (`sessions`). The first of them has it loaded, so that nobody else waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from cohort.base.errors import CohortError, Retry
from cohort.kernel.face import KernelFace
from cohort.kernel.model import Caller
from cohort.surfaces.http.problems import problem_response
from cohort.surfaces.http.routes_tokens import base_of
from cohort.surfaces.mcp.addresses import MCP_PATH, METADATA_PATH

if TYPE_CHECKING:
    from cohort.surfaces.mcp.asking import Asking
    from cohort.surfaces.mcp.sessions import Sessions

SESSIONS = "cohort.surfaces.mcp.sessions"
CHECKS_MAX = 8
"""Tokens that are checked at the same time."""


class McpDoor:
    """The ASGI application at /mcp. `run` for as long as it serves; `close` ends the streams that would otherwise hold up a shutdown."""

    def __init__(self, kernel: KernelFace, asking: Asking | None = None) -> None:
        self._kernel = kernel
        self._asking = asking
        self._tasks: TaskGroup | None = None
        self._sessions: Sessions | None = None
        self._opening = anyio.Lock()
        self._checks: anyio.CapacityLimiter | None = None
        self._closing = anyio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        self._opening = anyio.Lock()
        self._closing = anyio.Event()
        self._checks = anyio.CapacityLimiter(CHECKS_MAX)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = self._sessions = None
                tasks.cancel_scope.cancel()

    def close(self) -> None:
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            _check_origin(request)
            token, caller, base = await self._caller(request)
            sessions = await self._open()
            scope["user"] = sessions.holder(token, caller, base)
            sessions.admit(scope)
        except CohortError as error:
            await _refusal(request, error)(scope, receive, send)
            return
        await _ending(self._closing, sessions, scope, receive, send)

    async def _open(self) -> Sessions:
        """What answers, loaded by the first who asks; the others wait for it. A failure to load it is that request's alone. Errors: NOT_RUNNING."""
        async with self._opening:
            tasks = self._tasks
            if tasks is None or self._closing.is_set():
                raise CohortError("NOT_RUNNING", "control is not ready", retry=Retry.SAFE, hint="Try again in a moment.")
            if self._sessions is None:
                loaded = await anyio.to_thread.run_sync(partial(_load, self._kernel, self._asking), limiter=self._checks)
                await tasks.start(self._serve, loaded)
                self._sessions = loaded
            return self._sessions

    async def _serve(self, sessions: Sessions, *, task_status: TaskStatus[None]) -> None:
        """Until `run` ends."""
        async with sessions.run():
            task_status.started()
            await anyio.sleep_forever()

    async def _caller(self, request: Request) -> tuple[str, Caller, str]:
        """The token, who holds it, and the address we were reached by. Errors: NOT_SIGNED_IN, and those of `Tokens.check`."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise CohortError(
                "NOT_SIGNED_IN", "this needs an agent's token", hint="Send `Authorization: Bearer` and a token made for /mcp."
            )
        base = base_of(request)
        check = partial(self._kernel.tokens.check, token.strip(), base + MCP_PATH)
        caller = await anyio.to_thread.run_sync(check, limiter=self._checks)
        return token.strip(), caller, base


def install_mcp(app: FastAPI, kernel: KernelFace, asking: Asking | None = None) -> McpDoor:
    """Serve /mcp; the application's lifespan has to `run` what this returns."""
    door = McpDoor(kernel, asking)
    app.router.routes.append(Route(MCP_PATH, endpoint=door, methods=["GET", "POST", "DELETE"]))
    return door


def _load(kernel: KernelFace, asking: Asking | None) -> Sessions:
    found: Sessions = import_module(SESSIONS).Sessions(kernel, asking)
    return found


def _check_origin(request: Request) -> None:
    """Only our own pages, and programs that are no browser, may call. Errors: ORIGIN_REFUSED."""
    origin = request.headers.get("origin")
    if origin is not None and origin != base_of(request):
        raise CohortError("ORIGIN_REFUSED", f"pages of {origin[:200]!r} may not call /mcp", hint="Call it from a program, not from a page.")


def _refusal(request: Request, error: CohortError) -> Response:
    """RFC 6750 and RFC 9728: what is wrong, and where to read how to get a token."""
    response = problem_response(error)
    if error.http_status in (401, 403) and error.code != "ORIGIN_REFUSED":
        parts = [f'resource_metadata="{base_of(request)}{METADATA_PATH}{MCP_PATH}"']
        if error.code != "NOT_SIGNED_IN":
            words = "".join(char for char in error.message if char.isascii() and char.isprintable() and char not in '"\\')
            name = "invalid_token" if error.http_status == 401 else "insufficient_scope"
            parts = [f'error="{name}"', f'error_description="{words}"', *parts]
        response.headers["www-authenticate"] = "Bearer " + ", ".join(parts)
    return response


async def _ending(closing: anyio.Event, sessions: Sessions, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request; when control shuts down, a listening stream hears that its client has left, and its response is completed."""
    begun = finished = False

    async def sending(message: Message) -> None:
        nonlocal begun, finished
        begun = begun or message["type"] == "http.response.start"
        finished = finished or (message["type"] == "http.response.body" and not message.get("more_body", False))
        await send(message)

    async def receiving() -> Message:
        if scope["method"] != "GET":
            return await receive()
        return await _first(closing, receive)

    await sessions.answer(scope, receiving, sending)
    if begun and not finished and closing.is_set():
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _first(closing: anyio.Event, receive: Receive) -> Message:
    """The next message, or `http.disconnect` as soon as `closing` is set."""
    message: Message = {"type": "http.disconnect"}
    async with anyio.create_task_group() as group:

        async def hear() -> None:
            nonlocal message
            message = await receive()
            group.cancel_scope.cancel()

        group.start_soon(hear)
        await closing.wait()
        group.cancel_scope.cancel()
    return message
