"""An agent on the whole product: registered, asked about, contained, recorded; by command lines and in a browser."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from test_dashboard_browser import WAIT_MS, browser

from support_home import Home, home_in
from support_processes import kill, until

__all__ = ["browser"]
LEVEL_NEEDED = 3
PROBE_S = 90.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """An installation that runs, with an agent `scribe`; skipped where this machine cannot contain a command."""
    made = home_in(tmp_path)
    ready = made.ask("up", "--detach")
    made.environment["URL"] = ready["control_url"]
    made.environment["ADMIN_KEY"] = Path(ready["admin_key_file"]).read_text().strip()
    try:
        level = until(lambda: probed(made), PROBE_S)["level"]
        if level < LEVEL_NEEDED:
            pytest.skip(f"commands can be contained at level {level} here; user namespaces are needed for {LEVEL_NEEDED}")
        scopes = ("files.read", "files.write", "system.execute")
        made.run("agent", "register", "scribe", *(word for scope in scopes for word in ("--scope", scope)))
        yield made
    finally:
        made.run("down")


def probed(home: Home) -> Any:
    """What the machine can hold; None while it is being probed."""
    header = {"Authorization": f"Bearer {home.environment['ADMIN_KEY']}"}
    answer = httpx2.get(home.environment["URL"] + "/api/v1/containment", headers=header)
    return answer.json() if answer.status_code == 200 else None


def test_an_agent_is_asked_about_contained_and_recorded(home: Home) -> None:
    home.run("action", "run", "files.write", "path=plan.md", "content=# Plan", "--agent", "scribe")
    command = ("exec", "scribe", "--", "sh", "-c", "cat plan.md; cat /etc/shadow; exit 7")
    home.run(*command, code=4)
    waiting = home.ask("approval", "list", code=4)["items"]
    assert [item["asked_by"] for item in waiting] == ["scribe"]
    home.run("approval", "approve", waiting[0]["id"], "--yes")
    ran = home.run(*command, code=7)
    assert ran.stdout == "# Plan"
    assert "No such file" in ran.stderr
    home.run(*command, code=4)
    escaped = home.ask("action", "run", "files.read", "path=../../etc/passwd", "--agent", "scribe", code=3)
    assert escaped["code"] == "PATH_ESCAPES"
    assert home.ask("workspace", "diff", "scribe", code=3)["items"][0]["path"] == "plan.md"

    kill(home.pids()["control"])
    assert home.ask("audit", "verify")["integrity"] == "verified"
    home.run(*command, code=4)
    home.run("agent", "suspend", "scribe", "--reason", "a test")
    home.run(*command, code=3)
    found = home.ask("audit", "verify")
    assert (found["integrity"], found["complete"]) == ("verified", True)

    home.run("down")
    offline = home.ask("audit", "verify", "--offline")
    assert (offline["integrity"], offline["root"] is not None) == ("verified", True)
    edit(home, found["size"] // 2)
    broken = home.ask("audit", "verify", "--offline", code=3)
    assert broken["first_bad"] == found["size"] // 2
    assert "edited" in broken["why"]


def edit(home: Home, index: int) -> None:
    """A record changed in the file, as text, the way a person with a database tool would."""
    connection = sqlite3.connect(home.folder / ".cohort" / "audit.db")
    with connection:
        connection.execute("UPDATE audit_entries SET entry = replace(entry, '\"at_us\":1', '\"at_us\":2') WHERE idx = ?", (index,))
    connection.close()


def test_a_person_answers_in_the_browser_while_the_command_waits(home: Home, browser: Any) -> None:
    import subprocess

    argv = home.argv("exec", "--wait", "60", "--why", "to see", "scribe", "--", "echo", "hello")
    waiting = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home.folder, env=home.environment)
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)
    url = home.environment["URL"]
    page.goto(url + "/login?next=/approvals")
    page.fill("#key", home.environment["ADMIN_KEY"])
    page.click("main button")
    page.wait_for_selector(".question")
    assert "echo hello" in page.inner_text(".question h2")
    assert "to see" in page.inner_text(".own")
    page.click(".answer .primary")
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, "hello\n"), err
    page.goto(url + "/audit")
    page.click("#prove-all")
    page.wait_for_function("() => /^(\\d+) of \\1 proven$/.test(document.getElementById('prove-said').textContent)")
    page.goto(url + "/containment")
    assert "Commands are contained at level" in page.inner_text("h1")
    page.close()
