"""The MCP server: the tools an agent may use, and calls to them, each one action through the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from cohort import __version__
from cohort.base.errors import CohortError, Retry
from cohort.kernel.face import KernelFace, Request
from cohort.kernel.model import ActionResult, Outcome
from cohort.surfaces.mcp import answers, tools
from cohort.surfaces.mcp.asking import Asking, asked_before, declined, question
from cohort.surfaces.mcp.callers import Holder, holder_of

CALLS_MAX = 32
"""Actions under way for MCP clients; the rest wait in line. They have threads of their own, so that they cannot hold up the API."""
PROGRESS_S = 5.0
INSTRUCTIONS = (
    "Everything you do to the machine goes through these tools. Each call is decided, contained in your own workspace and recorded. Paths are "
    "relative to your workspace. Some calls wait for a person's approval: say in `why` what you want them for. You cannot approve them yourself. "
    "A refusal says why and what to do instead; asking for the same thing in another way does not help."
)

Context = ServerRequestContext[Any, Any]
T = TypeVar("T")
log = logging.getLogger("cohort.mcp")


class Calls:
    """The handlers. `kernel` is asked in threads; `asking` says how long a call waits for a person."""

    def __init__(self, kernel: KernelFace, asking: Asking) -> None:
        self._kernel = kernel
        self._asking = asking
        self._limiter: anyio.CapacityLimiter | None = None

    async def list_tools(self, context: Context, _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """Those whose scope the caller's token carries: the rest would only be refused."""
        held = {scope.name for scope in holder_of(context).caller.scopes}
        known = tools.table(self._kernel.actions.operations())
        return types.ListToolsResult(tools=[tools.tool(name, named) for name, named in known.items() if named.operation.scope in held])

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
        named = tools.table(self._kernel.actions.operations()).get(params.name)
        if named is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:100]!r}")
        arguments, why = tools.split(named, params.arguments)
        try:
            return await self._called(context, params, Request(named.operation.name, arguments, why))
        except CohortError as error:
            return answers.failure(error)
        except Exception:
            log.exception("the tool %s failed", params.name)
            what = "the call failed for a reason that was not foreseen"
            return answers.failure(CohortError("INTERNAL", what, retry=Retry.CHECK_FIRST, hint="Look into control's log."))

    def input_schema(self, name: str) -> dict[str, Any] | None:
        named = tools.table(self._kernel.actions.operations()).get(name)
        return tools.input_schema(named) if named is not None else None

    async def _called(
        self, context: Context, params: types.CallToolRequestParams, request: Request
    ) -> types.CallToolResult | types.InputRequiredResult:
        holder = holder_of(context)
        answer = await self._perform(context, holder, request)
        if answer.outcome is not Outcome.WAITING or answer.approval_id is None:
            return answers.result(answer)
        where = f"{holder.base}/approvals/{answer.approval_id}"
        asked = question(context, params, answer, where)
        if asked is not None:
            return asked
        if asked_before(params) and declined(params):
            return answers.result(answer, where)
        decided = await self._asking.decided(context, answer, where, self._in_thread)
        if decided is None:
            return answers.result(answer, where)
        if decided.code is not None:
            return answers.result(decided)
        return answers.result(await self._perform(context, holder, request))

    async def _perform(self, context: Context, holder: Holder, request: Request) -> ActionResult:
        """One action in a thread, with progress for whoever asked for it. Once begun it is never left alone: its end is recorded."""
        ended: ActionResult | CohortError
        async with anyio.create_task_group() as group:
            group.start_soon(_tick, context)
            try:
                ended = await self._in_thread(partial(self._kernel.actions.perform, holder.token, request))
            except CohortError as error:
                ended = error
            group.cancel_scope.cancel()
        if isinstance(ended, CohortError):
            raise ended
        return ended

    async def _in_thread(self, call: Callable[[], T]) -> T:
        self._limiter = self._limiter or anyio.CapacityLimiter(CALLS_MAX)
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)


def mcp_server(kernel: KernelFace, asking: Asking | None = None) -> Server[Any]:
    """The server for `kernel`; who calls is in each request (`callers.py`)."""
    calls = Calls(kernel, asking or Asking(kernel.approvals))
    return Server(
        "cohort",
        title="Cohort",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=calls.list_tools,
        on_call_tool=calls.call_tool,
        get_tool_input_schema=calls.input_schema,
    )


async def _tick(context: Context) -> None:
    passed_s = 0.0
    while True:
        await anyio.sleep(PROGRESS_S)
        passed_s += PROGRESS_S
        await context.session.report_progress(passed_s, None, "under way")
