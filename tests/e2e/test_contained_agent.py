"""An agent behind the product as installed: `cohort up`, a registration, `cohort mcp`, a person who answers, a kill -9, a verified log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters

from support_home import Home, home_in
from support_processes import until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = home_in(tmp_path)
    yield made
    made.run("down")


def registered(home: Home, name: str, *options: str) -> Path:
    made = home.ask("agent", "register", name, *options)
    path = home.folder / f"{name}.key"
    path.write_text(made["key"])
    return path


def client(home: Home, name: str, key: Path) -> Client:
    words = home.argv("mcp", "--agent", name)[1:]
    said = home.environment | {"COHORT_AGENT_KEY_FILE": str(key)}
    return Client(StdioServerParameters(command=sys.executable, args=words, env=said, cwd=home.folder), mode="legacy")


def test_an_agent_works_is_asked_about_survives_a_kill_and_is_stopped(home: Home) -> None:
    home.ask("up", "--detach")
    options = [word for scope in ("files.read", "files.write", "files.delete") for word in ("--scope", scope)]
    key = registered(home, "scribe", *options, "--autonomy", "conservative")

    def person() -> None:
        """Waits for the question, and says yes."""
        (asked,) = until(lambda: home.ask("approval", "list", code=None)["items"])
        home.ask("approval", "approve", asked["id"], "--yes")

    async def killed() -> None:
        os.kill(home.pids()["control"], signal.SIGKILL)
        await anyio.to_thread.run_sync(lambda: until(lambda: home.ask("status", code=None)["health"] == "healthy"))

    async def work() -> None:
        async with client(home, "scribe", key) as agent:
            assert {tool.name for tool in (await agent.list_tools()).tools} >= {"files_read", "files_write", "files_delete"}
            written = await agent.call_tool("files_write", {"path": "a.txt", "content": "hello\n"})
            assert not written.is_error, written.content
            assert (await agent.call_tool("files_read", {"path": "a.txt"})).content[0].text == "hello\n"
            escaped = await agent.call_tool("files_read", {"path": "../../../etc/passwd"})
            assert (escaped.is_error, escaped.structured_content["code"]) == (True, "PATH_ESCAPES")
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, person)
                deleted = await agent.call_tool("files_delete", {"path": "a.txt", "why": "it is old"})
            assert (deleted.is_error, deleted.structured_content["outcome"]) == (False, "done"), deleted.content
            await killed()
            after = await agent.call_tool("files_read", {"path": "a.txt"})
            assert after.structured_content["code"] == "PATH_MISSING", after.content
            home.ask("agent", "suspend", "scribe")
            stopped = await agent.call_tool("files_read", {"path": "a.txt"})
            assert stopped.structured_content["code"] == "AGENT_SUSPENDED", stopped.content

    anyio.run(work)
    verified = home.ask("audit", "verify")
    assert (verified["integrity"], verified["complete"]) == ("verified", True)


def test_what_runs_for_an_agent_ends_when_it_is_suspended(home: Home) -> None:
    home.ask("up", "--detach")
    registered(home, "runner", "--scope", "system.execute", "--autonomy", "aggressive")
    tried = json.loads(home.run("exec", "--json", "runner", "--", "true", code=None).stdout)
    if tried.get("code") in ("LEVEL_TOO_LOW", "SANDBOX_UNAVAILABLE"):
        pytest.skip("this machine gives no sandbox: it has no user namespaces, or not the privilege for them")
    running = subprocess.Popen(home.argv("exec", "--json", "runner", "--", "sleep", "90"), cwd=home.folder, env=home.environment, stdout=-1)
    until(lambda: "sleep" in home.run("audit", "search", "--kind", "intent", "--json").stdout)
    begun_s = time.monotonic()
    home.ask("agent", "suspend", "runner", "--reason", "it sleeps")
    output, _ = running.communicate(timeout=60)
    assert time.monotonic() - begun_s < 60
    assert json.loads(output)["outcome"] in ("done", "failed", "unknown"), output
