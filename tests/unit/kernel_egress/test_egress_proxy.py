"""The proxy with real sockets, real TLS and a real network namespace."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.sandbox.egress import PORT, Proxy, Reason, Times, Verdict
from cohort.kernel.sandbox.egress_door import Door
from cohort.kernel.sandbox.egress_verdict import CONNECTIONS_MAX, SLICE_BYTES
from cohort.kernel.sandbox.ways_out import Fund
from support_egress import answering, ask, own_network, serving, tls_echo, tunnel
from support_ordinary import as_ordinary_user

BUDGET = 1 << 20
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
NEVER = "203.0.113.9:443"


@pytest.fixture
def proxies() -> Iterator[list[Proxy]]:
    made: list[Proxy] = []
    yield made
    for proxy in made:
        proxy.close()


def private(proxies: list[Proxy], *hosts: str, times: Times | None = None) -> Proxy:
    proxies.append(Proxy(private=hosts, times=times))
    return proxies[-1]


def nothing(verdict: Verdict) -> None:
    del verdict


def get(port: int) -> bytes:
    return f"GET http://localhost:{port}/x HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()


def test_an_allowed_plain_request_passes_and_is_told_before(proxies: list[Proxy]) -> None:
    told: list[Verdict] = []
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, told.append)
        assert ask(listener.port, get(server.port)) == REPLY
        assert server.received[0].startswith(b"GET /x HTTP/1.1\r\nhost: localhost:")
        assert [(one.allowed, one.reason, one.target) for one in told] == [(True, Reason.LISTED, host)]
        assert listener.bytes_used == len(server.received[0]) + len(REPLY)


def test_exactly_the_body_goes_up_and_no_second_request(proxies: list[Proxy]) -> None:
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, nothing)
        request = f"POST http://{host}/ HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /admin HTTP/1.1\r\nHost: other\r\n\r\n".encode()
        ask(listener.port, request)
    assert b"admin" not in b"".join(server.received)


def test_what_is_not_listed_private_or_malformed_is_refused_and_told(proxies: list[Proxy]) -> None:
    told: list[Verdict] = []
    with serving(answering(REPLY)) as server:
        port = server.port
        listener = private(proxies).listen_here([f"localhost:{port}", "169.254.169.254:80"], BUDGET, told.append)
        assert ask(listener.port, b"CONNECT example.com:443 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        assert ask(listener.port, get(port)).startswith(b"HTTP/1.1 403 ")
        assert ask(listener.port, b"CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        assert ask(listener.port, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 403 ")
        assert ask(listener.port, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert server.received == []
    reasons = [Reason.NOT_LISTED, Reason.NOT_PUBLIC, Reason.NOT_PUBLIC, Reason.NOT_LISTED, Reason.MALFORMED]
    assert [one.reason for one in told] == reasons
    assert listener.decisions == tuple(told)
    assert listener.bytes_used == 0


def test_a_decision_that_cannot_be_told_is_a_refusal(proxies: list[Proxy]) -> None:
    def broken(verdict: Verdict) -> None:
        raise CohortError("AUDIT_UNAVAILABLE", "the disk is full")

    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, broken)
        assert ask(listener.port, get(server.port)).startswith(b"HTTP/1.1 503 ")
        assert server.received == []


def test_real_tls_passes_when_it_names_the_host_it_asked_for(proxies: list[Proxy], tmp_path: Path) -> None:
    with serving(tls_echo(tmp_path)) as server:
        context = ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, nothing)
        with tunnel(listener.port, host) as client, context.wrap_socket(client, server_hostname="localhost") as secure:
            secure.sendall(b"ping")
            assert secure.recv(100) == b"ping"


@pytest.mark.parametrize(("name", "reason"), [("other.example", Reason.OTHER_NAME), (None, Reason.OTHER_NAME)])
def test_tls_that_names_another_host_or_none_never_reaches_the_server(
    proxies: list[Proxy], tmp_path: Path, name: str | None, reason: Reason
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with serving(tls_echo(tmp_path)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, nothing)
        with tunnel(listener.port, host) as client, pytest.raises(OSError):  # noqa: PT011
            context.wrap_socket(client, server_hostname=name)
        assert listener.decisions[-1].reason is reason
        assert listener.bytes_used == 0


def test_a_tunnel_for_anything_but_tls_is_refused(proxies: list[Proxy]) -> None:
    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, nothing)
        with tunnel(listener.port, host) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(100) == b""
    assert listener.decisions[-1].reason is Reason.NOT_TLS
    assert server.received in ([], [b""])


def test_not_one_byte_passes_beyond_the_budget(proxies: list[Proxy]) -> None:
    with serving(answering(REPLY + b"x" * 5000)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], 1000, nothing)
        answer = ask(listener.port, get(server.port))
        assert len(answer) + len(server.received[0]) == 1000 == listener.bytes_used
        assert listener.decisions[-1].reason is Reason.BUDGET
        assert ask(listener.port, get(server.port)).startswith(b"HTTP/1.1 403 ")
        assert len(server.received) == 1


class Purse:
    """A fund with so many bytes in it."""

    def __init__(self, held: int) -> None:
        self.held, self.asked = held, list[int]()

    def draw(self, wanted: int) -> int:
        self.asked.append(wanted)
        taken = min(wanted, self.held)
        self.held -= taken
        return taken

    def give_back(self, left: int) -> None:
        self.held += left

    def fund(self) -> Fund:
        return Fund(self.draw, self.give_back)


def test_bytes_are_paid_for_in_slices_before_they_pass_and_the_rest_is_given_back(proxies: list[Proxy]) -> None:
    body, purse = b"x" * (3 * SLICE_BYTES), Purse(10 * SLICE_BYTES)
    with serving(answering(REPLY + body)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], 100 * SLICE_BYTES, nothing, purse.fund())
        assert ask(listener.port, get(server.port)) == REPLY + body
        assert purse.asked == [SLICE_BYTES] * 4
        listener.close()
        assert purse.held == 10 * SLICE_BYTES - listener.bytes_used


def test_connections_at_once_never_pass_more_than_was_paid_for(proxies: list[Proxy]) -> None:
    purse, told = Purse(SLICE_BYTES + 1000), list[Verdict]()
    with serving(answering(REPLY + b"x" * SLICE_BYTES)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, told.append, purse.fund())
        threads = [threading.Thread(target=ask, args=(listener.port, get(server.port))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert listener.bytes_used == SLICE_BYTES + 1000
        assert ask(listener.port, get(server.port)).startswith(b"HTTP/1.1 403 ")
        assert told[-1].reason is Reason.BUDGET


def test_nothing_passes_that_cannot_be_paid_for(proxies: list[Proxy]) -> None:
    def broken(_wanted: int) -> int:
        raise CohortError("DATABASE_UNAVAILABLE", "the store is away")

    with serving(answering(REPLY)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, nothing, Fund(broken, lambda _left: None))
        assert ask(listener.port, get(server.port)).startswith(b"HTTP/1.1 503 ")
        assert (server.received, listener.bytes_used) == ([], 0)
        assert listener.decisions[-1].reason is Reason.NOT_RECORDED


def test_a_place_that_does_not_answer_is_said_to(proxies: list[Proxy]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    host = f"localhost:{port}"
    listener = private(proxies, host).listen_here([host], BUDGET, nothing)
    assert ask(listener.port, get(port)).startswith(b"HTTP/1.1 502 ")
    assert listener.decisions[-1].reason is Reason.UNREACHABLE


def test_a_client_that_says_nothing_is_ended(proxies: list[Proxy]) -> None:
    listener = private(proxies, times=Times(head_s=0.05)).listen_here([], BUDGET, nothing)
    assert ask(listener.port, b"GET ").startswith(b"HTTP/1.1 408 ")


def test_connections_at_once_have_a_limit(proxies: list[Proxy]) -> None:
    listener = private(proxies).listen_here([], BUDGET, nothing)
    waiting = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(CONNECTIONS_MAX)]
    try:
        assert ask(listener.port, b"").startswith(b"HTTP/1.1 503 ")
    finally:
        for client in waiting:
            client.close()


def test_closing_ends_connections_under_way_and_the_listener(proxies: list[Proxy], tmp_path: Path) -> None:
    with serving(tls_echo(tmp_path)) as server:
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen_here([host], BUDGET, nothing)
        with tunnel(listener.port, host) as client:
            listener.close()
            listener.close()
            assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listener.port))


def test_nothing_of_a_closed_proxy_remains() -> None:
    before = {thread.name for thread in threading.enumerate()}
    proxy = Proxy()
    proxy.listen_here([], BUDGET, nothing)
    proxy.close()
    assert {thread.name for thread in threading.enumerate() if thread.name.startswith("cohort-egress")} <= before


def test_our_own_network_is_never_taken_for_a_sandbox(proxies: list[Proxy]) -> None:
    with pytest.raises(CohortError, match="no network namespace of its own") as caught:
        private(proxies).listen(os.getpid(), [NEVER], BUDGET, nothing)
    assert caught.value.code == "SANDBOX_UNAVAILABLE"
    with pytest.raises(CohortError):
        private(proxies).listen(2**31 - 1, [NEVER], BUDGET, nothing)


def test_what_opens_listeners_outlives_the_thread_that_first_asked(proxies: list[Proxy]) -> None:
    door, seen = Door(), []

    def ask_from_a_thread_of_its_own() -> None:
        with pytest.raises(CohortError):
            door.open(os.getpid(), PORT)
        assert door._process is not None
        seen.append(door._process.pid)

    try:
        for _ in range(2):
            thread = threading.Thread(target=ask_from_a_thread_of_its_own)
            thread.start()
            thread.join()
        assert len(set(seen)) == 1
        assert len(seen) == 2
    finally:
        door.close()


INSIDE = """
import socket, sys
def ask(request):
    with socket.create_connection(("127.0.0.1", 3128), timeout=10) as client:
        client.sendall(request)
        return client.recv(65536)
host = sys.argv[1]
print(ask(f"GET http://{host}/ HTTP/1.1\\r\\n\\r\\n".encode())[:15].decode())
print(ask(b"CONNECT 169.254.169.254:80 HTTP/1.1\\r\\n\\r\\n")[:12].decode())
try:
    socket.create_connection(("127.0.0.1", int(host.split(":")[1])), timeout=2)
    print("straight out")
except OSError:
    print("no way round")
"""


def test_from_inside_a_network_namespace_the_proxy_is_the_only_way_out(proxies: list[Proxy]) -> None:
    with own_network() as pid, serving(answering(REPLY)) as server:
        if pid is None:
            pytest.skip("this machine does not allow user namespaces")
        host = f"localhost:{server.port}"
        listener = private(proxies, host).listen(pid, [host], BUDGET, nothing)
        enter = ["nsenter", "--user", "--net", "--preserve-credentials", "--target", str(pid)]
        done = subprocess.run([*enter, sys.executable, "-I", "-c", INSIDE, host], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.splitlines() == ["HTTP/1.1 200 OK", "HTTP/1.1 403", "no way round"]
        assert listener.port == PORT


AS_USER = """
from cohort.kernel.sandbox.egress import Proxy
from support_egress import own_network
proxy = Proxy()
with own_network() as pid:
    if pid is not None:
        listener = proxy.listen(pid, ["example.com:443"], 1000, print)
        print("listening on", listener.port)
        listener.close()
proxy.close()
"""


def test_an_ordinary_user_can_listen_in_a_namespace_of_its_own() -> None:
    printed = as_ordinary_user(AS_USER)
    if not printed:
        pytest.skip("this machine does not allow user namespaces to ordinary users")
    assert printed == "listening on 3128\n"
