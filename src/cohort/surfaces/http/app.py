"""The control process's HTTP application: the API under /api/v1, health at the root, and the dashboard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, FastAPI

from cohort import __version__
from cohort.surfaces.dashboard.pages import install_dashboard
from cohort.surfaces.http import routes_health, routes_rollouts, routes_services
from cohort.surfaces.http.bodies import Problem
from cohort.surfaces.http.edge import Edge
from cohort.surfaces.http.live import Feed
from cohort.surfaces.http.ports import LOOPBACK_NAMES, THREADS_MAX, ControlFace
from cohort.surfaces.http.problems import install_problems
from cohort.surfaces.http.telemetry import Telemetry

PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {"model": Problem, "description": "A problem document (RFC 9457), as application/problem+json."}
}


def create_app(control: ControlFace, *, hosts: frozenset[str] | None = LOOPBACK_NAMES) -> FastAPI:
    """The application. `hosts`: the names it answers for in the Host header; None: any."""
    app = FastAPI(
        title="Cohort", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json", lifespan=_lifespan
    )
    telemetry = Telemetry(control)
    app.state.control = control
    app.state.feed = Feed(control.rollouts.version)
    app.state.telemetry = telemetry
    app.state.started_us = control.clock.now_us()
    app.add_middleware(Edge, hosts=hosts, count=telemetry.count)
    install_problems(app)
    app.include_router(_api())
    app.include_router(routes_health.router, tags=["health"])
    install_dashboard(app)
    return app


def _api() -> APIRouter:
    api = APIRouter(prefix="/api/v1", responses=PROBLEM)
    api.include_router(routes_services.router, tags=["services"])
    api.include_router(routes_rollouts.router, tags=["rollouts"])
    return api


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS_MAX
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app.state.feed.run)
        yield
        app.state.feed.close()
        tasks.cancel_scope.cancel()
