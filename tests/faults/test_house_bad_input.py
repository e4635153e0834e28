"""What goes wrong around a whole installation: one clear error, clients served, nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from cohort.ops.ports import fetch
from support_home import Home, home_in
from support_processes import until
from support_upstream import Upstream

KEY = "sk-upstream-Zq8vT3nR5w"
PROMPT = "The patient in bed seven is called Wilhelmina Oberhauser."
UNIT = "conversation-of-Wilhelmina"
SMALL_BYTES = 3 << 20


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = home_in(tmp_path)
    yield made
    made.run("down")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SMALL_BYTES."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine does not let us mount a small file system: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def start(home: Home, upstream: Upstream) -> dict[str, Any]:
    """The installation with a release of `support`; what `up` said."""
    home.environment["UPSTREAM_KEY"] = KEY
    ready = home.ask("up", "--detach")
    manifest = home.folder / "support.yaml"
    route = f"{{provider: openai, base_url: '{upstream.base_url}', model: well, api_key: env:UPSTREAM_KEY}}"
    manifest.write_text(f"service: support\nversion: 1.0.0\nkind: model\nroutes:\n  main: {route}\n")
    home.ask("release", "create", str(manifest))
    until(lambda: ask(home, "before")[0] == 200)
    return ready  # type: ignore[no-any-return]


def ask(home: Home, unit: str) -> tuple[int, bytes]:
    """One chat request through the gateway."""
    connection = HTTPConnection("127.0.0.1", int(home.environment["COHORT_GATEWAY_PORT"]), timeout=20)
    body = {"model": "support", "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"Content-Type": "application/json", "X-Cohort-Unit": unit, "Authorization": f"Bearer {KEY}-client"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def parts(home: Home) -> dict[str, Any]:
    """Control's readiness, part by part."""
    status, body = fetch("127.0.0.1", int(home.environment["COHORT_CONTROL_PORT"]), "/ready", 5.0)
    assert status is not None
    return {part["name"]: part for part in json.loads(body)["parts"]}


def counted(database: Path) -> int:
    """Calls in the minutes of traffic that control has stored."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT coalesce(sum(calls), 0) FROM traffic").fetchone()[0])


def fill(ballast: Path) -> None:
    """Take all the room there is on the disk of `ballast`."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does not run for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_database_of_a_newer_version_is_named_by_up_and_left_as_it_is(home: Home) -> None:
    home.ask("up", "--detach")
    home.run("down")
    database = home.folder / ".cohort" / "cohort.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_later'")
    failed = home.ask("up", "--detach", code=1)
    assert (failed["code"], failed["details"]["process"]) == ("PROCESS_FAILED", "control")
    said = "\n".join(failed["details"]["last_lines"])
    assert "9999_later" in said
    assert "hint:" in said
    assert home.ask("status", code=5)["parts"] == []
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999_later",)]


def test_a_damaged_place_of_the_spool_is_told_to_the_operator_and_the_rest_is_counted(home: Home, upstream: Upstream) -> None:
    start(home, upstream)
    database = home.folder / ".cohort" / "cohort.db"
    before = until(lambda: counted(database))
    with stopped(home.pids()["control"]):
        for number in range(5):
            assert ask(home, f"unit-{number}")[0] == 200
        newest = max((home.folder / ".cohort" / "gateway" / "spool").glob("*.log"))
        lines = newest.read_bytes().splitlines(keepends=True)
        lines[-3] = lines[-3].replace(b'"status":200', b'"status":2x0')
        newest.write_bytes(b"".join(lines))
    until(lambda: counted(database) == before + 4)
    outcomes = until(lambda: (part := parts(home)["outcomes"])["detail"].count("damaged") and part)
    assert outcomes["ok"]
    shown = home.run("status").stdout
    assert "1 places of the spool could not be read: segment" in shown
    _, metrics = fetch("127.0.0.1", int(home.environment["COHORT_CONTROL_PORT"]), "/metrics", 5.0)
    assert b"cohort_outcomes_damages_total 1.0" in metrics


def test_on_a_full_disk_clients_are_served_and_control_counts_each_call_once_when_there_is_room(
    home: Home, upstream: Upstream, small_disk: Path
) -> None:
    database = small_disk / "cohort.db"
    home.environment["COHORT_DATABASE_URL"] = f"sqlite:///{database}"
    start(home, upstream)
    before = until(lambda: counted(database))
    fill(small_disk / "ballast")
    served = 0
    while "DISK_FULL" not in (trouble := parts(home)["controller"]["detail"]) or served < 20:
        assert ask(home, f"unit-{served}")[0] == 200
        served += 1
        assert served < 5000, trouble
    assert "nothing was written" in trouble
    assert home.run("service", "list").returncode == 0
    (small_disk / "ballast").unlink()
    until(lambda: counted(database) == before + served)
    until(lambda: home.ask("status", code=None)["health"] == "healthy")
    assert counted(database) == before + served


def test_no_key_prompt_or_name_of_a_unit_is_written_anywhere(home: Home, upstream: Upstream) -> None:
    ready = start(home, upstream)
    admin = Path(ready["admin_key_file"]).read_text().strip()
    Path(ready["admin_key_file"]).unlink()
    assert ask(home, UNIT)[0] == 200
    wrong = home.run("service", "list", code=None)
    home.environment["COHORT_KEY"] = "ck_wrong-Zq8vT3nR5w"
    wrong = home.run("service", "list", code=None)
    assert wrong.returncode != 0
    home.environment["COHORT_KEY"] = admin
    assert home.run("service", "list").returncode == 0
    until(lambda: counted(home.folder / ".cohort" / "cohort.db"))
    secret = [text.encode() for text in (KEY, PROMPT, UNIT, "Wilhelmina", "Zq8vT3nR5w", admin)]
    files = [path for path in (home.folder / ".cohort").rglob("*") if path.is_file()]
    assert len(files) > 12
    assert [(path.name, text) for path in files for text in secret if text in path.read_bytes()] == []


def test_nobody_else_may_look_into_the_data_directory(home: Home) -> None:
    home.ask("up", "--detach")
    root = home.folder / ".cohort"
    assert root.stat().st_mode & 0o777 == 0o700
    secrets = list((root / "secrets").rglob("*"))
    private = [*(path for path in secrets if path.is_file()), *root.glob("cohort.db*"), *root.glob("audit.db*")]
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in secrets if path.is_dir()} == {0o700}
