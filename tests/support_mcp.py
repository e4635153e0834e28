"""An MCP server on a real port: the real identity room behind it, and the kernel in memory for what is decided and done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from cohort.kernel.face import KernelFace, Sign
from cohort.kernel.model import Caller
from cohort.kernel.ports import AUDIENCE
from cohort.storage.database import Database
from cohort.surfaces.mcp.asking import Asking
from support_delivery import house
from support_identity import Offices, TurnedClock
from support_kernel import Kernel, MemoryActions
from support_server import serving

SCOPES = ("files.read", "files.write", "files.delete", "system.execute")
POLL_S = 0.01


class _ByToken:
    """What `MemoryActions` asks of agents, answered by the identity room."""

    def __init__(self, offices: Offices) -> None:
        self._offices = offices

    def caller(self, token: str) -> Caller:
        return self._offices.room.identities.authenticate(token, AUDIENCE)


@dataclass(slots=True)
class Place:
    """`url`: of control. `kernel`: approvals and the log; `actions`: what was asked."""

    url: str
    offices: Offices
    kernel: Kernel
    actions: MemoryActions
    key: str

    @property
    def mcp(self) -> str:
        return f"{self.url}/mcp"

    def token(self, **fields: str) -> dict[str, Any]:
        """A token for /mcp by the agent's key, as a client asks for it."""
        form = {"grant_type": "client_credentials", "client_id": "scribe", "client_secret": self.key, "resource": self.mcp} | fields
        answer = httpx2.post(f"{self.url}/api/v1/oauth/token", data=form, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def answer(self, verb: str, after: Callable[[], bool] = lambda: True, timeout_s: float = 15.0) -> str:
        """Wait until something is asked and `after` holds, and answer it as a person; the approval's id."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            for approval in self.kernel.approvals.list() if after() else ():
                if approval.state.value == "pending":
                    getattr(self.kernel.approvals, verb)(approval.id, Sign("maria", note="because"))
                    return approval.id
            time.sleep(POLL_S)
        raise AssertionError("nothing was asked")


@contextmanager
def opened(database: Database, folder: Path, wait_s: float = 20.0, **options: Any) -> Iterator[Place]:
    """An agent `scribe` is registered; its calls wait `wait_s` for a person. `options`: of `create_app`."""
    clock = TurnedClock(time.time_ns() // 1000)
    offices = Offices(database, clock, folder / "tokens")
    kernel = Kernel()
    actions = MemoryActions(_ByToken(offices), kernel.approvals, kernel.audit)
    face: KernelFace = replace(kernel.face, agents=offices.room.agents, tokens=offices.room.tokens, actions=actions)
    key = offices.register("scribe", *SCOPES).key
    control = replace(house().control, kernel=face, clock=clock)
    with serving(control, asking=Asking(kernel.approvals, wait_s, POLL_S), **options) as url:
        yield Place(url, offices, kernel, actions, key)


@asynccontextmanager
async def client(place: Place, mode: str, token: str | None = None, **options: Any):
    """The SDK's client over HTTP, with the token that a client of `place` gets."""
    bearer = token if token is not None else place.token()["access_token"]
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {bearer}"}, timeout=30) as http,
        Client(streamable_http_client(place.mcp, http_client=http), mode=mode, **options) as found,
    ):
        yield found
