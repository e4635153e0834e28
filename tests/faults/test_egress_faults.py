"""The way out when something breaks: nothing passes that was not decided, and what is left goes on."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cohort.kernel.sandbox.egress import PORT, Proxy, Reason, Verdict
from cohort.kernel.sandbox.egress_door import Door
from support_egress import Served, answering, ask, own_network, serving, tunnel

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BUDGET = 1 << 20
WAIT_S = 10


@pytest.fixture
def proxies() -> Iterator[list[Proxy]]:
    made: list[Proxy] = []
    yield made
    for proxy in made:
        proxy.close()


def proxy_for(proxies: list[Proxy], *private: str) -> Proxy:
    proxies.append(Proxy(private=private))
    return proxies[-1]


def nothing(verdict: Verdict) -> None:
    del verdict


def get(host: str) -> bytes:
    return f"GET http://{host}/ HTTP/1.1\r\n\r\n".encode()


def test_the_opener_of_listeners_is_started_again_when_it_was_killed() -> None:
    door = Door()
    try:
        with own_network() as first, own_network() as second:
            if first is None or second is None:
                pytest.skip("this machine does not allow user namespaces")
            door.open(first, PORT).close()
            assert door._process is not None
            door._process.kill()
            door._process.wait(WAIT_S)
            with door.open(second, PORT) as listener:
                assert listener.getsockname() == ("127.0.0.1", PORT)
    finally:
        door.close()


def test_a_sandbox_that_is_gone_is_no_reason_not_to_serve_the_next(proxies: list[Proxy]) -> None:
    proxy = proxy_for(proxies)
    with own_network() as pid:
        if pid is None:
            pytest.skip("this machine does not allow user namespaces")
        gone = proxy.listen(pid, [], BUDGET, nothing)
    with own_network() as pid:
        assert pid is not None
        assert proxy.listen(pid, [], BUDGET, nothing).port == PORT
    gone.close()


def test_an_error_nobody_expected_while_telling_dials_nothing(proxies: list[Proxy], caplog: pytest.LogCaptureFixture) -> None:
    def broken(verdict: Verdict) -> None:
        raise ValueError("a mistake in whoever keeps the records")

    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        listener = proxy_for(proxies, host).listen_here([host], BUDGET, broken)
        assert ask(listener.port, get(host)) == b""
        assert ask(listener.port, get(host)) == b""
        assert server.received == []
    assert "a mistake" in caplog.text


def test_a_server_that_breaks_off_ends_its_connection_only(proxies: list[Proxy]) -> None:
    def breaks_off(connection: socket.socket, served: Served) -> None:
        served.received.append(connection.recv(65536))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(breaks_off) as bad, serving(answering(REPLY)) as good:
        hosts = [f"localhost:{bad.port}", f"localhost:{good.port}"]
        listener = proxy_for(proxies, *hosts).listen_here(hosts, BUDGET, nothing)
        assert ask(listener.port, get(hosts[0])) == b""
        assert ask(listener.port, get(hosts[1])) == REPLY


def test_a_client_that_goes_away_frees_its_place(proxies: list[Proxy]) -> None:
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        listener = proxy_for(proxies, host).listen_here([host], BUDGET, nothing)
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", listener.port), timeout=WAIT_S) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(b"GET ")
        answers = (
            ask(listener.port, get(host)) for _ in range(200)
        )  # the first ones may come before the proxy has seen that they are gone
        assert next((answer for answer in answers if not answer.startswith(b"HTTP/1.1 503 ")), None) == REPLY


def test_many_at_once_share_one_budget_to_the_byte(proxies: list[Proxy]) -> None:
    body = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000
    with serving(answering(body)) as server:
        host = f"localhost:{server.port}"
        told: list[Verdict] = []
        listener = proxy_for(proxies, host).listen_here([host], 100_000, told.append)
        with ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(lambda _: ask(listener.port, get(host)), range(40)))
        through = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 403 ")]
        up = sum(len(request) for request in server.received)
    assert listener.bytes_used == 100_000
    assert sum(map(len, through)) + up == 100_000
    assert any(one.reason is Reason.BUDGET for one in told)


def test_closing_while_clients_come_leaves_no_thread_waiting(proxies: list[Proxy]) -> None:
    proxy = proxy_for(proxies)
    listener = proxy.listen_here([], BUDGET, nothing)
    stop = threading.Event()

    def come() -> None:
        while not stop.is_set():
            try:
                ask(listener.port, b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
            except OSError:
                return

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    listener.close()
    stop.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads)
    assert proxy.listen_here([], BUDGET, nothing).port > 0


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_no_descriptor_is_left_open(proxies: list[Proxy]) -> None:
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        proxy = proxy_for(proxies, host)
        proxy.listen_here([host], BUDGET, nothing).close()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            listener = proxy.listen_here([host], BUDGET, nothing)
            ask(listener.port, get(host))
            with tunnel(listener.port, host):
                listener.close()
        assert settled(before)


def settled(most: int) -> bool:
    """Whether there come to be at most so many open descriptors; those of a server's threads close a moment later."""
    for _ in range(100):
        if len(os.listdir("/proc/self/fd")) <= most:
            return True
        select.select([], [], [], 0.02)
    return False
