"""What `status` concludes, and what `doctor` finds."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from cohort.base.settings import ControlSettings, DatabaseSettings, GatewaySettings, Settings
from cohort.base.settings_embeddings import EmbeddingsSettings
from cohort.ops.condition import Health, Part, _parts, judge, look, words
from cohort.ops.doctor import Check, Grade, Program, _program, examine
from cohort.ops.house import Running
from support_processes import free_ports

NOW = Running(1, 2, 3, "/d", "http://127.0.0.1:1", "http://127.0.0.1:2", ())


def part(name: str = "control", phase: str = "ready", ready: int | None = 200, well: bool = True) -> Part:
    return Part(name, "http://127.0.0.1:1", phase, 5, 0, 200, ready, well=well)


@pytest.mark.parametrize(
    ("now", "parts", "health"),
    [
        (None, (), Health.UNKNOWN),
        (NOW, (), Health.UNHEALTHY),
        (NOW, (part(), part("gateway")), Health.HEALTHY),
        (NOW, (part(), part("gateway", ready=503)), Health.UNHEALTHY),
        (NOW, (part(), part("gateway", ready=None)), Health.UNHEALTHY),
        (NOW, (part(well=False), part("gateway")), Health.UNHEALTHY),
        (NOW, (part(phase="waiting"), part("gateway")), Health.UNHEALTHY),
        (None, (part(phase="unsupervised"), part("gateway", phase="unsupervised")), Health.UNHEALTHY),
    ],
)
def test_only_a_supervised_house_in_which_everything_is_ready_is_healthy(
    now: Running | None, parts: tuple[Part, ...], health: Health
) -> None:
    assert judge(now, parts) is health


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"ready":true,"parts":[{"name":"database","ok":true,"detail":"answers"}]}', ("database: answers",)),
        (b'{"ready":false,"reason":"draining","table_version":1,"problems":["the disk is full"]}', ("draining", "the disk is full")),
        (b'{"ready":true,"reason":null,"table_version":1,"problems":[]}', ()),
        (b"<html>", ()),
        (b"[]", ()),
        (b'{"parts":[1],"problems":5}', ()),
        (b"", ()),
    ],
)
def test_what_ready_says_is_told_in_words_and_another_programs_answer_is_not(answer: bytes, said: tuple[str, ...]) -> None:
    assert words(answer) == said


class Asked(BaseHTTPRequestHandler):
    """Answers as a gateway would that is exposed; who asked is kept."""

    seen: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        body = b'{"ready":true,"problems":["the disk is full"]}' if self.headers["Authorization"] == "Bearer tok" else b'{"ready":true}'
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.mark.parametrize(("token", "said"), [("tok\n", ("the disk is full",)), (None, ())])
def test_status_asks_the_gateway_and_nobody_else_with_controls_token(tmp_path: Path, token: str | None, said: tuple[str, ...]) -> None:
    wanted = settings(tmp_path)
    if token is not None:
        wanted.data.secrets.mkdir(parents=True)
        wanted.data.link_token.write_text(token)
    Asked.seen.clear()
    with HTTPServer(("127.0.0.1", 0), Asked) as server:
        serving = Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}"
        control, gateway = _parts(wanted, replace(NOW, gateway_url=url, control_url=url))
        server.shutdown()
        serving.join()
    assert (control.says, gateway.says) == ((), said)
    assert Asked.seen == [None, None, *([f"Bearer {token.strip()}"] * 2 if token else [None, None])]


def settings(folder: Path, url: str | None = None) -> Settings:
    gateway, control = free_ports(2)
    return Settings(folder / "data", GatewaySettings(port=gateway), ControlSettings(port=control), DatabaseSettings(url))


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_nothing_running_is_no_answer_and_creates_nothing(tmp_path: Path) -> None:
    assert look(settings(tmp_path)).health is Health.UNKNOWN
    assert list(tmp_path.iterdir()) == []


def test_on_this_machine_nothing_needed_is_missing(tmp_path: Path) -> None:
    checks = by_name(examine(settings(tmp_path), {}))
    needed = ("Python", "uvloop", "httptools", "data directory", "disk", "gateway port", "control port", "database", "clock")
    assert {name: checks[name].grade for name in needed} == dict.fromkeys(needed, Grade.GOOD)
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_not_good_comes_with_what_it_means_and_a_fix(tmp_path: Path) -> None:
    checks = examine(settings(tmp_path, "postgresql://u:hush@127.0.0.1:1/x"), {})
    assert by_name(checks)["database"].grade is Grade.BROKEN
    assert not [check for check in checks if check.grade is not Grade.GOOD and not (check.without and check.fix)]
    assert "hush" not in repr(checks)


def test_a_database_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    check = by_name(examine(settings(tmp_path, "env:NOT_SET"), {}))["database"]
    assert (check.grade, "NOT_SET" in check.found) == (Grade.BROKEN, True)


def test_a_port_in_use_is_found(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", wanted.gateway.port))
        listener.listen()
        assert by_name(examine(wanted, {}))["gateway port"].grade is Grade.BROKEN


def test_a_model_of_embeddings_is_looked_at_where_one_is_configured(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    assert "embeddings model" not in by_name(examine(wanted, {}))
    (port,) = free_ports(1)
    asked = EmbeddingsSettings.of({"model": "nowhere", "port": port}, tmp_path)
    checks = by_name(examine(replace(wanted, embeddings=asked), {}))
    assert (checks["embeddings model"].grade, checks["embeddings port"].grade) == (Grade.BROKEN, Grade.GOOD)
    assert checks["embeddings model"].fix


def test_a_program_that_is_not_there_names_its_package() -> None:
    check = _program(Program("Nothing", ("no-such-program",), "all works", "no-such-package"))
    assert (check.grade, check.fix) == (Grade.MISSING, "apt-get install no-such-package")


def test_keys_that_releases_name_are_looked_for_and_never_shown(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    wanted.data.gateway.mkdir(parents=True)
    routes = [{"api_key": "env:FIRST_KEY"}, {"api_key": "env:SECOND_KEY"}, {"api_key": None}, {"api_key": "file:/x"}]
    (wanted.data.gateway / "routing.json").write_text(json.dumps({"releases": {"rel_1": {"routes": routes}}}))
    checks = by_name(examine(wanted, {"FIRST_KEY": "hush"}))
    assert checks["key FIRST_KEY"].grade is Grade.GOOD
    assert checks["key SECOND_KEY"].grade is Grade.MISSING
    assert "hush" not in repr(checks)


def test_postgres_is_reached_by_the_url_of_the_product(tmp_path: Path, postgres_url: str) -> None:
    check = by_name(examine(settings(tmp_path, "env:DB"), {"DB": postgres_url}))["database"]
    assert check.grade is Grade.GOOD, check
    assert check.found.startswith("Postgres ")
