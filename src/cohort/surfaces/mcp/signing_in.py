"""An agent's tokens on its own side: fetched with its key, refreshed before they end, sent with every request."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
import httpx2

from cohort.base.errors import CohortError, Retry
from cohort.surfaces.mcp.addresses import MCP_PATH, REVOKE_PATH, TOKEN_PATH

EARLY_S = 60.0
"""A token that ends sooner is replaced before it is used."""
ANSWER_S = 30.0
LEAVE_S = 2.0
log = logging.getLogger("cohort.mcp")
HINT = "Check the agent's name and key; `cohort agent key` makes a new one."


class Tokens(httpx2.Auth):
    """For one agent at one control. Safe to use by many tasks of one event loop: a refresh token is used by one of them only."""

    def __init__(self, url: str, agent: str, key: str) -> None:
        self._url = url
        self._client = {"client_id": agent, "client_secret": key}
        self._lock = anyio.Lock()
        self._token = ""
        self._refresh: str | None = None
        self._until_s = 0.0

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers["authorization"] = f"Bearer {await self.current()}"
        response = yield request
        if response.status_code == 401:  # revoked, or control has another key by now
            request.headers["authorization"] = f"Bearer {await self.another(request.headers['authorization'].partition(' ')[2])}"
            yield request

    async def current(self) -> str:
        """A token with some life left. Errors: as `another`."""
        async with self._lock:
            if time.monotonic() >= self._until_s - EARLY_S:
                await self._renew()
            return self._token

    async def another(self, refused: str) -> str:
        """A new token in place of `refused`, unless another task has fetched one.

        Raises:
            CohortError KEY_INVALID, AGENT_SUSPENDED, ...: control's refusal; NOT_RUNNING: control does not answer.
        """
        async with self._lock:
            if self._token == refused:
                self._refresh = None
                await self._renew()
            return self._token

    async def leave(self) -> None:
        """End the session, so that nothing is left to be stolen; it ends by itself where control does not answer."""
        try:
            async with httpx2.AsyncClient(timeout=LEAVE_S) as client:
                await client.post(self._url + REVOKE_PATH, data={"token": self._refresh or self._token})
        except httpx2.TransportError as error:
            log.info("could not sign out: %s", error)

    async def _renew(self) -> None:
        refresh, self._refresh = self._refresh, None
        if refresh is not None:
            try:
                await self._ask({"grant_type": "refresh_token", "refresh_token": refresh})
                return
            except CohortError as error:
                if error.code not in ("TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_REPLAYED", "SESSION_REVOKED"):
                    raise
        await self._ask({"grant_type": "client_credentials", "resource": self._url + MCP_PATH, **self._client})

    async def _ask(self, form: Mapping[str, str]) -> None:
        asked_s = time.monotonic()
        try:
            async with httpx2.AsyncClient(timeout=ANSWER_S) as client:
                response = await client.post(self._url + TOKEN_PATH, data=dict(form))
        except httpx2.TransportError as error:
            what = f"control does not answer at {self._url}"
            raise CohortError("NOT_RUNNING", what, retry=Retry.SAFE, hint="Run `cohort up`; check --url.") from error
        body = _json(response)
        if response.status_code != 200:
            raise _refusal(response, body)
        self._token = str(body["access_token"])
        self._refresh = body.get("refresh_token")
        self._until_s = asked_s + float(body["expires_in"])


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise CohortError("INTERNAL", f"{response.url} answered {response.status_code} without JSON", hint="Check that --url is control's.")
    return body


def _refusal(response: httpx2.Response, body: Mapping[str, Any]) -> CohortError:
    said = body.get("error_description") or body.get("detail") or f"control answered {response.status_code}"
    return CohortError.from_problem(
        {"detail": said, "hint": HINT, **{name: body[name] for name in ("code", "hint", "retry") if body.get(name)}}
    )
