"""The way out of a real sandbox: granted hosts through the proxy, and nothing else, by root and by an ordinary user."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Place
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.egress import Proxy, Reason, Verdict
from cohort.kernel.sandbox.spawner import Spawn, Spawner
from support_egress import answering, serving
from support_ordinary import as_ordinary_user
from support_sandbox import LIMITS, need_bubblewrap, place

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
FETCH = """
import os, sys, urllib.request
for address in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(address, timeout=5).read().decode())
    except OSError as error:
        print(getattr(error, "code", type(error).__name__))
"""


def told_nobody(spawn: Spawn) -> None:
    del spawn


class Told(list[Verdict]):
    """What the proxy decided, whatever else comes with it."""

    def __call__(self, *said: object) -> None:
        self.extend(one for one in said if isinstance(one, Verdict))


@pytest.fixture
def here() -> Iterator[Place]:
    need_bubblewrap()
    with place() as made:
        yield made


def fetch(here: Place, told: Told, private: str, hosts: tuple[str, ...], *addresses: str, budget_bytes: int = 1 << 20) -> Completed:
    with closing(Spawner()) as spawner, closing(Proxy(private=[private])) as proxy:
        sandbox = Bubblewrap(Parts(spawner, SystemClock(), told_nobody, proxy, told))
        command = Command(("python3", "-I", "-c", FETCH, *addresses), hosts=hosts)
        return sandbox.run(here, replace(LIMITS, egress_bytes_per_day=budget_bytes), command)


def test_a_command_reaches_what_it_was_granted_by_the_proxy_in_its_environment(here: Place) -> None:
    told = Told()
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        done = fetch(here, told, host, (host,), f"http://{host}/", f"http://127.0.0.1:{server.port}/", "http://169.254.169.254/")
    assert done.stdout.split() == [b"hello", b"403", b"403"]
    assert [(one.allowed, one.reason) for one in told] == [(True, Reason.LISTED), (False, Reason.NOT_LISTED), (False, Reason.NOT_LISTED)]
    assert len(server.received) == 1
    assert done.egress_bytes == len(server.received[0]) + len(REPLY)


def test_without_a_grant_there_is_no_network_at_all(here: Place) -> None:
    told = Told()
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        done = fetch(here, told, host, (), f"http://{host}/")
    assert done.stdout.split() == [b"URLError"]
    assert (told, server.received) == ([], [])


def test_the_budget_of_a_command_ends_what_it_fetches(here: Place) -> None:
    told = Told()
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        fetch(here, told, host, (host,), f"http://{host}/", f"http://{host}/", budget_bytes=len(REPLY))
    assert Reason.BUDGET in [one.reason for one in told]


def test_a_host_that_is_no_pattern_executes_nothing(here: Place) -> None:
    with pytest.raises(CohortError) as caught:
        fetch(here, Told(), "localhost:1", ("*.com:443",), "http://localhost:1/")
    assert caught.value.code == "FIELD_INVALID"


AS_USER = """
import contextlib, dataclasses, pathlib, tempfile
from cohort.base.clock import SystemClock
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Command, Limits, Place
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.egress import Proxy
from cohort.kernel.sandbox.spawner import Spawner
host = told["host"]
with tempfile.TemporaryDirectory() as root, contextlib.closing(Spawner()) as spawner, contextlib.closing(Proxy(private=[host])) as proxy:
    here = Place(WorkspaceId("ws_out"), root, os.getuid(), os.getgid(), False)
    sandbox = Bubblewrap(Parts(spawner, SystemClock(), lambda spawn: None, proxy, lambda *verdict: None))
    command = Command(("python3", "-I", "-c", told["fetch"], f"http://{host}/", "http://example.com/"), hosts=(host,))
    print(json.dumps(sandbox.run(here, Limits(command_s=20.0), command).stdout.decode().split()))
"""


@pytest.mark.usefixtures("here")
def test_an_ordinary_user_has_the_same_way_out() -> None:
    with serving(answering(REPLY)) as server:
        printed = as_ordinary_user(AS_USER, host=f"localhost:{server.port}", fetch=FETCH)
    assert json.loads(printed) == ["hello", "403"]
    assert os.getuid() != 0 or len(server.received) == 1
