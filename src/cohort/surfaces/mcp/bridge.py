"""MCP over standard input and output for clients that start their servers themselves: each request is handed on to control's /mcp.

Nothing is decided here. The agent's key stays in this process, whose client sees only tools and their answers.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types.version import LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS

from cohort import __version__
from cohort.base.errors import CohortError, Retry
from cohort.surfaces.mcp import answers
from cohort.surfaces.mcp.addresses import MCP_PATH
from cohort.surfaces.mcp.server import INSTRUCTIONS
from cohort.surfaces.mcp.signing_in import Tokens

ANSWER_S = 600.0
"""Longer than a call waits for a person, and than an agent's command may take by default."""
CONNECT_S = 5.0

Context = ServerRequestContext[Any, Any]
T = TypeVar("T")
_asker: ContextVar[Context] = ContextVar("asker")
log = logging.getLogger("cohort.mcp")


class Bridge:
    """One client on this side, control on the other, by a connection for each request: a control that was started again is no trouble."""

    def __init__(self, url: str, tokens: Tokens) -> None:
        self._url = url
        self._tokens = tokens
        self._trust = ssl.create_default_context()  # as slow to make as a connection

    async def list_tools(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        try:
            return await self._ask(context, lambda control: control.session.list_tools(params=params))
        except CohortError as error:
            raise MCPError(types.INTERNAL_ERROR, f"{error.message} ({error.code}). {error.hint}") from error

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
        try:
            return await self._ask(context, partial(_call, context, params))
        except CohortError as error:
            return answers.failure(error)

    async def _ask(self, context: Context, call: Callable[[Client], Awaitable[T]]) -> T:
        """The answer of control. Errors: MCPError as control gave it; CohortError: control's refusal, or NOT_RUNNING."""
        await self._tokens.current()
        refusals: list[CohortError] = []
        failure: MCPError | None = None
        marked = _asker.set(context)
        try:
            async with self._connected(context, refusals) as control:
                try:
                    return await call(control)
                except MCPError as error:
                    failure = error
        except* httpx2.TransportError as error:
            raise _silent() from error
        finally:
            _asker.reset(marked)
        raise refusals[0] if refusals else failure or _silent()

    @asynccontextmanager
    async def _connected(self, context: Context, refusals: list[CohortError]) -> AsyncIterator[Client]:
        """`refusals` takes what control says at the door, which the SDK's client does not hand on."""
        capabilities = context.session.client_capabilities
        able = capabilities is not None and capabilities.elicitation is not None

        async def heard(response: httpx2.Response) -> None:
            if response.status_code >= 400 and response.headers.get("content-type", "").startswith("application/problem+json"):
                refusals[:] = [CohortError.from_problem(json.loads(await response.aread()))]

        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        async with (
            httpx2.AsyncClient(auth=self._tokens, timeout=timeout, verify=self._trust, event_hooks={"response": [heard]}) as http,
            Client(
                streamable_http_client(self._url + MCP_PATH, http_client=http),
                mode=LATEST_MODERN_VERSION,
                elicitation_callback=_show if able else None,
                cache=None,
            ) as control,
        ):
            yield control


async def _call(context: Context, params: types.CallToolRequestParams, control: Client) -> types.CallToolResult | types.InputRequiredResult:
    """A client of 2026-07-28 is asked by the answer itself; an older one meanwhile, by `_show`."""
    report = context.session.report_progress
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return await control.call_tool(params.name, params.arguments, progress_callback=report)
    return await control.session.call_tool(
        params.name,
        params.arguments,
        progress_callback=report,
        input_responses=params.input_responses,
        request_state=params.request_state,
        allow_input_required=True,
    )


async def _show(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult | types.ErrorData:  # noqa: ARG001
    """Let our client show control's question, as an address if it can, else as a form without fields."""
    asker = _asker.get()
    capabilities = asker.session.client_capabilities
    able = capabilities.elicitation if capabilities is not None else None
    try:
        if isinstance(params, types.ElicitRequestURLParams) and able is not None and able.url is not None:
            return await asker.session.elicit_url(params.message, params.url, params.url, asker.request_id)
        return await asker.session.elicit_form(params.message, {"type": "object", "properties": {}}, asker.request_id)
    except MCPError as error:
        log.info("the client could not show a question: %s", error)
        return types.ElicitResult(action="cancel")


def _silent() -> CohortError:
    return CohortError(
        "NOT_RUNNING",
        "control does not answer",
        retry=Retry.CHECK_FIRST,
        hint="Look whether it was done, then try again; `cohort status` says more.",
    )


async def serve(url: str, agent: str, key: str) -> None:
    """Serve standard input and output until the client closes them.

    Raises:
        CohortError KEY_INVALID, AGENT_SUSPENDED, NOT_RUNNING: before anything was served.
    """
    tokens = Tokens(url, agent, key)
    await tokens.current()
    bridge = Bridge(url, tokens)
    server: Server[Any] = Server(
        "cohort",
        title="Cohort",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=bridge.list_tools,
        on_call_tool=bridge.call_tool,
    )
    try:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
    finally:
        with anyio.CancelScope(shield=True):
            await tokens.leave()
