"""What serves /mcp is loaded by the first who is let in there, not by control's start."""

from __future__ import annotations

import subprocess
import sys

import anyio
import httpx2
import pytest

from support_mcp import client, opened

CLIENTS = 6
WAIT_S_MAX = 60


@pytest.fixture
def place(sqlite_database, tmp_path):
    with opened(sqlite_database, tmp_path) as found:
        yield found


def test_control_starts_without_loading_the_protocol():
    look = "import sys, cohort.surfaces.http.process; print([name for name in sys.modules if name.split('.')[0] in ('mcp', 'mcp_types')])"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=WAIT_S_MAX, check=True)
    assert found.stdout.strip() == "[]"


def test_many_who_come_first_at_once_are_all_answered(place):
    bearers = [place.token()["access_token"] for _ in range(CLIENTS)]
    named: list[list[str]] = []

    async def one(bearer: str) -> None:
        async with client(place, "legacy", bearer) as found:
            named.append([tool.name for tool in (await found.list_tools()).tools])

    async def all_of_them() -> None:
        async with anyio.create_task_group() as group:
            for bearer in bearers:
                group.start_soon(one, bearer)

    anyio.run(all_of_them)
    assert named == [["files_read", "files_write", "files_delete", "terminal_run"]] * CLIENTS


def test_a_first_request_that_its_client_gives_up_does_not_close_the_door(place):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"authorization": f"Bearer {place.token()['access_token']}", "accept": "application/json, text/event-stream"}
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(place.mcp, json=body, headers=headers, timeout=httpx2.Timeout(WAIT_S_MAX, read=0.001))

    async def run() -> int:
        async with client(place, "auto") as found:
            return len((await found.list_tools()).tools)

    assert anyio.run(run) == 4
