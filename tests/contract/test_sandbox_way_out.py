"""Commands with hosts, through the real proxy: by stage two and by a runner, at once and running on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Place
from cohort.kernel.sandbox import boxes, landlock
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.egress import Proxy
from cohort.kernel.sandbox.spawner import Spawner
from support_processes import until
from support_sandbox import LIMITS, need_bubblewrap, parts, place, processes_with, put

PROGRAM = """
import os, socket
assert {os.environ[name] for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")} == {"http://127.0.0.1:3128"}
with socket.create_connection(("127.0.0.1", 3128), 5) as made:
    made.sendall(b"CONNECT other.example:443 HTTP/1.1\\r\\nHost: other.example:443\\r\\n\\r\\n")
    print(made.recv(12).decode())
for port in (80, 3129):
    try:
        socket.create_connection(("127.0.0.1", port), 5)
    except OSError as error:
        print(error.strerror)
"""
COMMAND = Command(("/usr/bin/python3", "-I", "-c", PROGRAM), hosts=("example.org:443",), label="act_7")


@pytest.fixture(params=[True, False], ids=["by stage two", "by a runner"])
def sandbox(request: pytest.FixtureRequest, told: list[tuple[str, bool]]) -> Iterator[Bubblewrap]:
    need_bubblewrap()
    spawner, proxy = Spawner(), Proxy()
    made = replace(parts(spawner), proxy=proxy, on_egress=lambda label, verdict: told.append((label, verdict.allowed)))
    yield Bubblewrap(made, program=request.param)
    proxy.close()
    spawner.close()


@pytest.fixture
def told() -> list[tuple[str, bool]]:
    return []


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


def test_tcp_leads_to_the_proxy_and_nowhere_else(sandbox: Bubblewrap, here: Place, told: list[tuple[str, bool]]) -> None:
    if landlock.abi() < 4:
        pytest.skip("Landlock knows ports from ABI 4 on")
    done = sandbox.run(here, LIMITS, COMMAND)
    assert done.stdout.decode().splitlines() == ["HTTP/1.1 403", "Permission denied", "Permission denied"], done.stderr
    running = sandbox.start(here, LIMITS, COMMAND)
    ended = running.wait(20)
    assert ended is not None
    assert ended.stdout == done.stdout
    assert told == [("act_7", False)] * 2


def test_a_command_without_hosts_has_no_proxy(sandbox: Bubblewrap, here: Place) -> None:
    program = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 3128)))"
    assert sandbox.run(here, LIMITS, Command(("/usr/bin/python3", "-I", "-c", program))).stdout == b"111\n"


def test_a_mount_that_is_not_what_was_looked_at_is_noticed(sandbox: Bubblewrap, here: Place) -> None:
    put(here, "kept", "x")
    guarded = replace(here, read_only=("kept",))
    known = boxes.protected_paths(guarded)
    marker = f"cohort-look-{uuid.uuid4().hex}"
    running = sandbox.start(guarded, LIMITS, Command(("sh", "-c", f"echo up; sleep 60; : {marker}")))
    until(lambda: running.output("stdout", 0, 10) == b"up\n")
    inside = max(processes_with(marker))
    boxes.check_protected(inside, known)
    put(here, "open", "y")
    for wrong in ({"kept": (1, 2)}, {"gone": known["kept"]}, boxes.protected_paths(replace(here, read_only=("open",)))):
        with pytest.raises(CohortError, match="exchanged"):
            boxes.check_protected(inside, wrong)
    running.stop()
