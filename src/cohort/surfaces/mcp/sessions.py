"""What answers at /mcp: the SDK's server, and a session for each client. Importing this takes about a second, most of it the SDK's models."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Receive, Scope, Send

from cohort.kernel.face import KernelFace
from cohort.kernel.model import Caller
from cohort.surfaces.http.ports import ACTION_BODY_BYTES_MAX
from cohort.surfaces.mcp.asking import Asking
from cohort.surfaces.mcp.callers import Holder
from cohort.surfaces.mcp.server import mcp_server
from cohort.surfaces.mcp.shares import Shares

SESSIONS_MAX = 200
SESSIONS_PER_AGENT_MAX = 20
SESSION_IDLE_S = 1800.0


class Sessions:
    """`run` for as long as `answer` is called."""

    def __init__(self, kernel: KernelFace, asking: Asking | None = None) -> None:
        self._manager = StreamableHTTPSessionManager(
            mcp_server(kernel, asking),
            session_idle_timeout=SESSION_IDLE_S,
            max_request_body_size=ACTION_BODY_BYTES_MAX,
            max_sessions=SESSIONS_MAX,
        )
        self._shares = Shares(self._manager.asgi_app, SESSIONS_PER_AGENT_MAX, SESSION_IDLE_S)

    def run(self) -> AbstractAsyncContextManager[None]:
        """Once: the SDK's sessions cannot be run again."""
        return self._manager.run()

    def holder(self, token: str, caller: Caller, base: str) -> Holder:
        """Whom a request's scope names as its user."""
        return Holder(token, caller, base)

    def admit(self, scope: Scope) -> None:
        """Errors: QUOTA_EXCEEDED: the request would begin a session, and its agent has enough of them."""
        self._shares.admit(scope["user"].caller.agent.id, scope)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To be called without a pause after `admit`."""
        await self._shares.answer(scope["user"].caller.agent.id, scope, receive, send)
