"""The control process's HTTP application: the API under /api/v1, health at the root, and the dashboard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from fastapi import FastAPI

from cohort import __version__
from cohort.surfaces.dashboard.pages import install_dashboard
from cohort.surfaces.http.edge import Edge
from cohort.surfaces.http.hands import Hands
from cohort.surfaces.http.live import Feed, version_of
from cohort.surfaces.http.openapi import add_routes
from cohort.surfaces.http.ports import LOOPBACK_NAMES, THREADS_MAX, ControlFace
from cohort.surfaces.http.problems import install_problems
from cohort.surfaces.http.repeats import Repeats
from cohort.surfaces.http.routes_actions import Lanes
from cohort.surfaces.http.routes_approvals import Waiters
from cohort.surfaces.http.telemetry import Telemetry
from cohort.surfaces.mcp.mount import McpDoor, install_mcp

if TYPE_CHECKING:
    from cohort.surfaces.mcp.asking import Asking


def create_app(
    control: ControlFace,
    *,
    hosts: frozenset[str] | None = LOOPBACK_NAMES,
    public_url: str | None = None,
    asking: Asking | None = None,
) -> FastAPI:
    """The application. `hosts`: the names it answers for in the Host header; None: any. `public_url`: the origin that others reach it by, where
    that is not the one it listens at. `asking`: how MCP calls wait for people.
    """
    app = FastAPI(
        title="Cohort", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json", lifespan=_lifespan
    )
    telemetry = Telemetry(control)
    app.state.control = control
    app.state.public_url = public_url
    app.state.feed = Feed(lambda: version_of(control))
    app.state.repeats = Repeats(control.clock)
    app.state.hands = Hands(control.clock)
    app.state.lanes = Lanes()
    app.state.waiters = Waiters()
    app.state.telemetry = telemetry
    app.state.started_us = control.clock.now_us()
    app.add_middleware(Edge, hosts=hosts, count=telemetry.count)
    install_problems(app)
    add_routes(app)
    install_dashboard(app)
    app.state.mcp = install_mcp(app, control.kernel, asking)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS_MAX
    mcp: McpDoor = app.state.mcp
    async with mcp.run(), anyio.create_task_group() as tasks:
        tasks.start_soon(app.state.feed.run)
        yield
        app.state.feed.close()
        tasks.cancel_scope.cancel()
