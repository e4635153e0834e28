"""How many protocol sessions one agent may have open, so that it does not keep others from connecting."""

from __future__ import annotations

import anyio
import httpx2
import pytest
from starlette.types import Scope

from cohort.base.errors import CohortError
from cohort.surfaces.mcp.sessions import SESSIONS_PER_AGENT_MAX
from cohort.surfaces.mcp.shares import Shares
from support_mcp import opened

HEADERS = {"Accept": "application/json, text/event-stream"}
BEGIN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.fixture
def place(sqlite_database, tmp_path):
    with opened(sqlite_database, tmp_path) as found:
        yield found


def test_an_agent_with_its_share_of_sessions_is_refused_one_more_and_others_are_not(place):
    key = place.offices.register("other", "files.read").key
    with httpx2.Client() as http:
        mine, theirs = ({"Authorization": f"Bearer {place.token(**who)['access_token']}"} for who in ({}, other(key)))

        def begin(by: dict[str, str]) -> httpx2.Response:
            return http.post(place.mcp, json=BEGIN, headers=HEADERS | by)

        sessions = [begin(mine).headers["mcp-session-id"] for _ in range(SESSIONS_PER_AGENT_MAX)]
        refused = begin(mine)
        assert (refused.status_code, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        another = begin(theirs)
        assert another.status_code == 200
        listed = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
        within = HEADERS | mine | {"mcp-session-id": sessions[0], "mcp-protocol-version": "2025-11-25"}
        assert http.post(place.mcp, json=listed, headers=within).status_code == 200
        stolen = theirs | {"mcp-session-id": sessions[1]}
        assert http.delete(place.mcp, headers=HEADERS | stolen).status_code == 404  # and ends nothing
        assert begin(mine).status_code == 429
        assert http.delete(place.mcp, headers=HEADERS | mine | {"mcp-session-id": sessions[1]}).status_code == 200
        assert begin(mine).status_code == 200
        assert begin(mine).status_code == 429


def other(key: str) -> dict[str, str]:
    return {"client_id": "other", "client_secret": key}


def test_what_begins_no_session_takes_no_share(place):
    with httpx2.Client(headers=HEADERS | {"Authorization": f"Bearer {place.token()['access_token']}"}) as http:
        for _ in range(SESSIONS_PER_AGENT_MAX + 1):
            assert http.post(place.mcp, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).status_code == 400
        assert http.post(place.mcp, json=BEGIN).status_code == 200


def scope(method: str = "POST", agent: str = "ag_1", **headers: str) -> Scope:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "headers": raw, "user": Holding(agent)}


class Holding:
    """Who asks, as far as a share goes by it."""

    def __init__(self, agent: str) -> None:
        self.caller = self.agent = self
        self.id = agent


class Server:
    """Answers as the SDK: a session for a request without one; 404 for one it was told to forget."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.made = 0
        self.hold = anyio.Event()
        self.hold.set()

    async def __call__(self, scope, receive, send) -> None:
        named = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        await self.hold.wait()
        if not named:
            self.made += 1
            named = f"s{self.made}"
        await send(
            {"type": "http.response.start", "status": 404 if named in self.gone else 200, "headers": [(b"mcp-session-id", named.encode())]}
        )


async def asked(shares: Shares, request: Scope) -> None:
    async def nothing(message: object = None) -> None: ...

    shares.admit(request["user"].id, request)
    await shares.answer(request["user"].id, request, nothing, nothing)


def full(shares: Shares, request: Scope) -> bool:
    try:
        shares.admit(request["user"].id, request)
    except CohortError as error:
        return error.code == "QUOTA_EXCEEDED"
    return False


def test_requests_under_way_count_before_they_are_answered():
    async def run() -> None:
        server = Server()
        server.hold = anyio.Event()
        shares = Shares(server, 2, 60.0)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(asked, shares, scope())
            await anyio.wait_all_tasks_blocked()
            assert full(shares, scope())
            assert not full(shares, scope(agent="ag_2"))
            server.hold.set()
        assert full(shares, scope())

    anyio.run(run)


def test_a_session_that_is_gone_or_idle_frees_its_place_and_one_in_use_does_not():
    async def run() -> None:
        server = Server()
        shares = Shares(server, 1, 60.0)
        await asked(shares, scope())
        assert full(shares, scope())
        server.gone.add("s1")
        await asked(shares, scope(mcp_session_id="s1"))
        assert not full(shares, scope())
        impatient = Shares(server, 1, 0.0)
        await asked(impatient, scope())
        assert not full(impatient, scope())
        await asked(impatient, scope())
        server.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(asked, impatient, scope("GET", mcp_session_id="s3"))
            await anyio.wait_all_tasks_blocked()
            assert full(impatient, scope())
            server.hold.set()

    anyio.run(run)


@pytest.mark.parametrize(
    ("request_", "begins"),
    [
        (scope(), True),
        (scope(mcp_protocol_version="2025-06-18"), True),
        (scope(mcp_protocol_version="2026-07-28"), False),
        (scope("GET"), False),
        (scope(mcp_session_id="s1"), False),
    ],
)
def test_only_what_can_begin_a_session_is_held_to_the_share(request_: Scope, begins: bool):
    async def run() -> None:
        assert full(Shares(Server(), 0, 60.0), request_) is begins

    anyio.run(run)
