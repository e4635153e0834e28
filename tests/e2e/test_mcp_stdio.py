"""`cohort mcp` as a client starts it: a process of its own, spoken to over its pipes, in front of a control on a real port."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

import cohort
from cohort.surfaces.cli.main import run
from cohort.surfaces.cli.session import Session
from support_mcp import opened

ERAS = ["legacy", "2026-07-28"]
SOURCE = str(Path(cohort.__file__).parents[1])


@pytest.fixture
def place(sqlite_database, tmp_path):
    with opened(sqlite_database, tmp_path) as found:
        yield found


def words(place, agent="scribe"):
    return ["-m", "cohort.surfaces.cli", "mcp", "--agent", agent, "--url", place.url]


def environment(place, folder, **more):
    return {"PYTHONPATH": SOURCE, "PATH": os.environ["PATH"], "COHORT_DATA_DIR": str(folder), "COHORT_AGENT_KEY": place.key} | more


@asynccontextmanager
async def client(place, folder, mode, **options):
    parameters = StdioServerParameters(command=sys.executable, args=words(place), env=environment(place, folder))
    async with Client(parameters, mode=mode, **options) as found:
        yield found


@pytest.mark.parametrize("era", ERAS)
def test_tools_and_calls_go_to_control_and_back(place, tmp_path, era):
    async def talk():
        async with client(place, tmp_path, era) as found:
            tools = (await found.list_tools()).tools
            done = await found.call_tool("terminal_run", {"argv": ["ls"], "why": "to look"})
            refused = await found.call_tool("files_delete", {"path": "x"})
            with pytest.raises(MCPError, match="there is no tool"):
                await found.call_tool("files_explode", {})
            return tools, done, refused

    tools, done, refused = anyio.run(talk)
    assert [tool.name for tool in tools] == ["files_read", "files_write", "files_delete", "terminal_run"]
    assert tools[0].annotations.read_only_hint
    assert done.structured_content["result"]["stdout"] == "ls\n"
    assert (refused.is_error, refused.structured_content["code"]) == (True, "SCOPE_REFUSED")
    assert [request.why for request in place.actions.requests] == ["to look", ""]
    (session,) = place.offices.room.agents.sessions("scribe")
    assert session.revoked_us is not None, "the process leaves a session behind"


@pytest.mark.parametrize("era", ERAS)
def test_a_question_is_shown_by_the_client_and_answered_by_a_person(place, tmp_path, era):
    seen, notes = [], []

    async def show(context, params):
        seen.append(params)
        return types.ElicitResult(action="accept", content={})

    async def note(progress, total, message):
        notes.append(message)

    async def talk():
        async with client(place, tmp_path, era, elicitation_callback=show) as found:
            return await found.call_tool("files_write", {"path": "a.txt", "content": "x"}, progress_callback=note)

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(lambda: place.answer("approve", after=lambda: bool(seen and notes)))
        answer = anyio.run(talk)
        approval = answering.result()
    assert answer.structured_content["outcome"] == "done"
    assert f"{place.url}/approvals/{approval}" in seen[0].message
    assert any("waiting for a person" in message for message in notes)


def test_a_session_that_is_revoked_is_begun_again_and_a_suspended_agent_is_told_so(place, tmp_path):
    agents = place.offices.room.agents

    async def talk():
        async with client(place, tmp_path, "2026-07-28") as found:
            first = await found.call_tool("files_read", {"path": "a"})
            agents.revoke_session(agents.sessions("scribe")[0].id, "maria", "")
            second = await found.call_tool("files_read", {"path": "a"})
            agents.suspend("scribe", "maria", "odd")
            return first, second, await found.call_tool("files_read", {"path": "a"})

    first, second, third = anyio.run(talk)
    assert [answer.is_error for answer in (first, second, third)] == [False, False, True]
    assert third.structured_content["code"] == "AGENT_SUSPENDED"


def test_a_control_that_is_away_is_said_and_one_that_is_back_is_used(sqlite_database, tmp_path):
    async def talk(place, closing):
        async with client(place, tmp_path, "legacy") as found:
            first = await found.call_tool("files_read", {"path": "a"})
            await anyio.to_thread.run_sync(lambda: closing(None, None, None))
            return first, await found.call_tool("files_read", {"path": "a"})

    opening = opened(sqlite_database, tmp_path)
    place = opening.__enter__()
    first, second = anyio.run(talk, place, opening.__exit__)
    assert not first.is_error
    assert (second.is_error, second.structured_content["code"]) == (True, "NOT_RUNNING")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"COHORT_AGENT_KEY": "ak_wrong"}, 1, "not an agent's key in force"),
        ({"COHORT_AGENT_KEY": ""}, 1, "there is no key of an agent"),
        ({"COHORT_AGENT_KEY": "ck_x"}, 2, "not the key of an agent"),
        ({"COHORT_AGENT_KEY": "", "COHORT_AGENT_KEY_FILE": "/nowhere/key"}, 2, "cannot be read"),
        ({"COHORT_URL": "http://127.0.0.1:1"}, 1, "does not answer"),
    ],
)
def test_what_cannot_begin_says_why_and_leaves_the_pipe_clean(place, tmp_path, capsys, change, code, said):
    line = words(place)[2:] if "COHORT_URL" not in change else words(place)[2:-2]
    returned = run(line, Session(environment(place, tmp_path, **change)))
    shown = capsys.readouterr()
    assert (returned, shown.out) == (code, "")
    assert said in shown.err
    assert "hint:" in shown.err


def test_the_key_may_be_in_a_file(place, tmp_path):
    path = tmp_path / "scribe.key"
    path.write_text(place.key + "\n")
    change = {"COHORT_AGENT_KEY": "", "COHORT_AGENT_KEY_FILE": str(path)}
    ran = subprocess.run(
        [sys.executable, *words(place)], env=environment(place, tmp_path, **change), input="", capture_output=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
