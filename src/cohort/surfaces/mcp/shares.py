"""How many protocol sessions each agent has open: without a share of its own one agent could keep all others from connecting.

The SDK bounds the sessions of all together and does not say whose they are. So they are counted as seen from outside: a session begins with
an answer that names it, and ends when its client says so, when an answer says that it is gone, or when it was idle as long as the SDK keeps one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import anyio
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import AgentId

SESSION = "mcp-session-id"
VERSION = "mcp-protocol-version"


@dataclass(slots=True)
class _Open:
    agent: AgentId
    last_s: float
    in_flight: int = 0


class Shares:
    """For one event loop. `most`: sessions of one agent; `idle_s`: after which the SDK ends one."""

    def __init__(self, app: ASGIApp, most: int, idle_s: float) -> None:
        self._app = app
        self._most = most
        self._idle_s = idle_s
        self._open: dict[str, _Open] = {}
        self._opening: Counter[AgentId] = Counter()

    def admit(self, agent: AgentId, scope: Scope) -> None:
        """Whether this request may begin a session, if it would. Errors: QUOTA_EXCEEDED."""
        if not _begins(scope):
            return
        self._forget_idle()
        count = self._opening[agent] + sum(one.agent == agent for one in self._open.values())
        if count >= self._most:
            what = f"the agent has {count} MCP sessions open, {self._most} are the limit"
            raise CohortError("QUOTA_EXCEEDED", what, retry=Retry.SAFE, hint="End one, with DELETE, or use one that is open.")

    async def answer(self, agent: AgentId, scope: Scope, receive: Receive, send: Send) -> None:
        """To be called without a pause after `admit`."""
        named = Headers(scope=scope).get(SESSION)
        if named is not None:
            await self._within(named, scope, receive, send)
        elif _begins(scope):
            await self._beginning(agent, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _beginning(self, agent: AgentId, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                began = Headers(raw=message["headers"]).get(SESSION)
                if began is not None:
                    self._open[began] = _Open(agent, anyio.current_time())
            await send(message)

        self._opening[agent] += 1
        try:
            await self._app(scope, receive, noting)
        finally:
            self._opening[agent] -= 1
            if not self._opening[agent]:
                del self._opening[agent]

    async def _within(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._open.get(session)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and _ended(scope, message["status"]) and self._owns(session, scope):
                self._open.pop(session, None)
            await send(message)

        if found is None:
            await self._app(scope, receive, send)
            return
        found.in_flight += 1
        try:
            await self._app(scope, receive, noting)
        finally:
            found.in_flight -= 1
            found.last_s = anyio.current_time()

    def _owns(self, session: str, scope: Scope) -> bool:
        """To another agent a session is answered as if it were not there; it is, and stays counted."""
        found = self._open.get(session)
        return found is not None and found.agent == scope["user"].caller.agent.id

    def _forget_idle(self) -> None:
        now_s = anyio.current_time()
        idle = [name for name, one in self._open.items() if not one.in_flight and now_s - one.last_s >= self._idle_s]
        for name in idle:
            del self._open[name]


def _begins(scope: Scope) -> bool:
    """As the SDK routes: only a POST of an older version without a session can begin one; the newer versions have none."""
    headers = Headers(scope=scope)
    version = headers.get(VERSION)
    return scope["method"] == "POST" and SESSION not in headers and (version is None or version in HANDSHAKE_PROTOCOL_VERSIONS)


def _ended(scope: Scope, status: int) -> bool:
    return status == 404 or (scope["method"] == "DELETE" and status < 400)
