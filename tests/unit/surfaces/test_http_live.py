"""The stream of a rollout: at once, at every change, in order, resumable, and over when the rollout is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx2
import pytest

import support_views as views
from cohort.base.errors import CohortError, Retry
from cohort.delivery.model import State, Transition
from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.serve import Http, bind, server_for
from support_delivery import ADMIN_KEY, House, house
from support_server import serving

RUNNING = "ro_k3v9q2m7x4c8b5nt"
ENDED = "ro_h7w2p9d4s6f3j8ka"


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    id: str | None
    data: dict[str, object]


@pytest.fixture
def home() -> House:
    return house()


@pytest.fixture
def client(home: House) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with serving(home.control) as url, httpx2.Client(base_url=url, headers=headers, timeout=10) as made:
        yield made


def events_of(response: httpx2.Response) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
        fields = {}


def test_the_view_comes_at_once_and_again_whenever_it_changed(client: httpx2.Client, home: House) -> None:
    with client.stream("GET", f"/api/v1/rollouts/{RUNNING}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = events_of(response)
        first = next(events)
        assert (first.name, first.id, first.data["revision"]) == ("rollout", "4", 4)
        home.rollouts.put(replace(home.rollouts.show(RUNNING), now_us=views.NOW_US + 5))
        home.rollouts.put(replace(home.rollouts.show(RUNNING), revision=5, state=State.PAUSED))
        second = next(events)
        assert (second.name, second.data["revision"], second.data["state"]) == ("rollout", 5, "paused")


def test_it_ends_with_the_rollout_and_the_event_log_comes_in_order(client: httpx2.Client, home: House) -> None:
    with client.stream("GET", f"/api/v1/rollouts/{RUNNING}/events") as response:
        events = events_of(response)
        next(events)
        view = home.rollouts.show(RUNNING)
        more = tuple(Transition(seq, views.NOW_US, kind, 1, "control", "", {}) for seq, kind in ((5, "alarm"), (6, "rolled_back")))
        home.rollouts.put(replace(view, state=State.ROLLED_BACK, ended_us=views.NOW_US, revision=6, events=view.events + more))
        rest = [(event.name, event.data.get("seq")) for event in events]
    assert rest == [("transition", 5), ("transition", 6), ("rollout", None), ("end", None)]


@pytest.mark.parametrize(("query", "headers"), [("?last_seq=5", {}), ("", {"Last-Event-ID": "5"}), ("?last_seq=1", {"Last-Event-ID": "5"})])
def test_a_stream_taken_up_again_brings_what_was_missed(client: httpx2.Client, query: str, headers: dict[str, str]) -> None:
    with client.stream("GET", f"/api/v1/rollouts/{ENDED}/events{query}", headers=headers) as response:
        seen = [(event.name, event.data.get("seq")) for event in events_of(response)]
    assert seen == [("transition", 6), ("transition", 7), ("rollout", None), ("end", None)]


@pytest.mark.parametrize("last", ["9" * 5000, "9223372036854775808", "x"])
def test_an_id_that_is_none_of_ours_is_passed_over(client: httpx2.Client, last: str) -> None:
    with client.stream("GET", f"/api/v1/rollouts/{ENDED}/events", headers={"last-event-id": last}) as stream:
        assert stream.status_code == 200
        assert "event: end" in stream.read().decode()


def test_an_error_in_the_middle_is_told_and_the_stream_ends(client: httpx2.Client, home: House) -> None:
    def gone() -> None:
        home.rollouts.put(replace(home.rollouts.show(RUNNING), revision=5))
        home.rollouts._rollouts.pop(home.rollouts.show(RUNNING).id)

    with client.stream("GET", f"/api/v1/rollouts/{RUNNING}/events") as response:
        events = events_of(response)
        next(events)
        gone()
        assert [(event.name, event.data["code"]) for event in events] == [("problem", "ROLLOUT_UNKNOWN")]


def test_an_outage_of_the_database_does_not_end_the_feed(client: httpx2.Client, home: House) -> None:
    with client.stream("GET", f"/api/v1/rollouts/{RUNNING}/events") as response:
        events = events_of(response)
        next(events)
        home.rollouts.down = CohortError("DATABASE_UNAVAILABLE", "no answer", retry=Retry.SAFE, hint="Wait.")
        assert client.get("/api/v1/services").status_code == 503
        home.rollouts.down = None
        home.rollouts.put(replace(home.rollouts.show(RUNNING), revision=5))
        assert next(events).data["revision"] == 5


def test_shutting_down_ends_open_streams(home: House) -> None:
    with httpx2.Client(headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=10) as client:
        with serving(home.control) as url:
            response = client.send(client.build_request("GET", f"{url}/api/v1/rollouts/{RUNNING}/events"), stream=True)
            events = events_of(response)
            next(events)
        assert list(events) == []


def test_a_port_in_use_is_one_clear_line() -> None:
    taken = bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(CohortError, match=f"port {port} on 127.0.0.1 is in use") as caught:
        bind("127.0.0.1", port)
    taken.close()
    assert caught.value.code == "PORT_IN_USE"
    with pytest.raises(CohortError, match=r"cannot listen on 203\.0\.113\.7"):
        bind("203.0.113.7", 0)


SERVING = """
import sys
from support_delivery import house
from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.serve import bind, server_for

listener = bind("127.0.0.1", 0)
port = listener.getsockname()[1]
server_for(create_app(house().control), lambda: print(port, flush=True)).run(sockets=[listener])
print("closed in order", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_streams_and_gives_the_caller_time_to_close(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", SERVING], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with httpx2.Client(headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=10) as client:
            response = client.send(client.build_request("GET", f"http://127.0.0.1:{port}/api/v1/rollouts/{RUNNING}/events"), stream=True)
            events = events_of(response)
            next(events)
            process.send_signal(number)
            assert list(events) == []
        assert process.stdout.readline() == "closed in order\n"
        assert process.wait(10) == 0


def test_a_header_bomb_is_refused_and_the_server_goes_on(client: httpx2.Client) -> None:
    status = None
    with contextlib.suppress(httpx2.TransportError):  # refused before all of it was sent
        status = client.get("/health", headers={"x-bomb": "x" * (256 << 10)}).status_code
    assert status in (None, 400)
    assert client.get("/health").status_code == 200


class Impatient(Http):
    head_read_s = 0.2


@pytest.fixture
def impatient(home: House) -> Iterator[int]:
    """The port of a server that waits 0.2 s for a request's head."""
    listener = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = server_for(create_app(home.control), ready.set, Impatient)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    assert ready.wait(20)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(20)


def read_to_the_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "])
def test_a_head_that_does_not_arrive_is_not_waited_for(impatient: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient), 10) as connection:
        connection.sendall(sent)
        assert read_to_the_end(connection).startswith(b"HTTP/1.1 408")


def test_a_second_head_on_a_connection_is_not_waited_for_either(impatient: int) -> None:
    with socket.create_connection(("127.0.0.1", impatient), 10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /hea")
        assert b"HTTP/1.1 408" in read_to_the_end(connection)


def test_a_stream_lasts_longer_than_its_head_may_take(impatient: int, home: House) -> None:
    reader = httpx2.Client(base_url=f"http://127.0.0.1:{impatient}", headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=10)
    with reader, reader.stream("GET", f"/api/v1/rollouts/{RUNNING}/events") as stream:
        events = events_of(stream)
        next(events)
        assert not threading.Event().wait(3 * Impatient.head_read_s)
        home.rollouts.put(replace(home.rollouts.show(RUNNING), revision=5))
        assert next(events).data["revision"] == 5
