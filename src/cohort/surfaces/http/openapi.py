"""The API's description (OpenAPI). `python -m cohort.surfaces.http.openapi` prints what docs/reference/openapi.json holds."""

from __future__ import annotations

import sys
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cohort import __version__
from cohort.surfaces.http import (
    routes_actions,
    routes_agents,
    routes_approvals,
    routes_audit,
    routes_caches,
    routes_flags,
    routes_gateway,
    routes_health,
    routes_keys,
    routes_rollouts,
    routes_routing,
    routes_services,
    routes_tokens,
    routes_workspaces,
)
from cohort.surfaces.http.bodies import Problem

PREFIX = "/api/v1"
PROBLEM: dict[int | str, dict[str, Any]] = {"default": {"model": Problem, "description": "A problem document (RFC 9457)."}}
NAMED = {
    "services": routes_services.router,
    "rollouts": routes_rollouts.router,
    "flags": routes_flags.router,
    "routing": routes_routing.router,
    "caches": routes_caches.router,
    "actions": routes_actions.router,
    "agents": routes_agents.router,
    "approvals": routes_approvals.router,
    "audit": routes_audit.router,
    "workspaces": routes_workspaces.router,
    "keys": routes_keys.router,
    "gateway": routes_gateway.router,
    "tokens": routes_tokens.router,
}
BY_TOKEN = frozenset({f"{PREFIX}/actions", f"{PREFIX}/approvals/{{approval}}/withdraw"})
"""What an agent asks with its token, and nobody with a key."""
SIGNED = frozenset({f"{PREFIX}/approvals/reply", f"{PREFIX}/oauth/token", f"{PREFIX}/oauth/revoke"})
"""What proves itself by what it carries."""
SECURITY = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key, `ck_...`. Its role says what it may do."},
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An agent's token, EdDSA; short-lived."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "cohort_session",
        "description": "A browser's session; changes need `X-CSRF-Token` too.",
    },
}


def add_routes(app: FastAPI) -> None:
    """The API and the health routes, and their description at /api/v1/openapi.json.

    Each router is included by itself and health first: what a router answers is worked out when a request first comes as far as it, and
    whoever waits for control to be ready should not wait for all of them.
    """
    app.include_router(routes_health.router, tags=["health"])
    for name, router in NAMED.items():
        app.include_router(router, prefix=PREFIX, tags=[name], responses=PROBLEM)
    app.include_router(routes_tokens.well_known)
    app.openapi = lambda: description(app)  # type: ignore[method-assign]


def description(app: FastAPI) -> dict[str, Any]:
    """What `app` answers, as OpenAPI; made once per app."""
    if app.openapi_schema is None:
        made = get_openapi(title="Cohort", version=__version__, routes=app.routes, description="Fields are only ever added.")
        made["components"]["securitySchemes"] = SECURITY
        for path, operations in made["paths"].items():
            for operation in operations.values():
                _finish(operation, needs_key=path.startswith(PREFIX) and path not in SIGNED, by_token=path in BY_TOKEN)
        app.openapi_schema = made
    return app.openapi_schema


def _finish(operation: dict[str, Any], needs_key: bool, by_token: bool) -> None:
    if by_token:
        operation["security"] = [{"token": []}]
    elif needs_key:
        operation["security"] = [{"key": []}, {"session": []}]
    problem = operation["responses"].get("default")
    if problem is not None:
        problem["content"] = {"application/problem+json": problem["content"]["application/json"]}


def openapi_bytes() -> bytes:
    app = FastAPI()
    add_routes(app)
    return orjson.dumps(app.openapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    sys.stdout.buffer.write(openapi_bytes())
