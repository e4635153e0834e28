"""Requests from the host: pinned to the address that was looked up, bounded, and never following."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.kernel.actions import origins
from cohort.kernel.actions.executors.http import Requests
from cohort.kernel.actions.gate import GateSettings
from cohort.kernel.actions.quotas import RESPONSE_BYTES_MAX
from cohort.kernel.model import ActionResult, Autonomy, Outcome
from cohort.kernel.sandbox.egress_addresses import resolve_public
from cohort.kernel.sandbox.egress_names import origin_allowed, parse_origin
from cohort.storage.database import Database
from support_egress import Served, answering, certificate, serving
from support_gate import GateHouse

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nset-cookie: a=b\r\n\r\nhi"


@pytest.fixture
def gates(sqlite_database: Database, clock: ManualClock, tmp_path: Path) -> GateHouse:
    gates = GateHouse(sqlite_database, clock, tmp_path)
    gates.as_agent(autonomy=Autonomy.AGGRESSIVE, egress=("http://a.example", "http://*.b.example:81"))
    return gates


def here(_host: str, _port: int) -> tuple[str, ...]:
    return ("127.0.0.1",)


def taking(connection: socket.socket, served: Served) -> None:
    """Read a head and as many bytes as it says, answer."""
    with connection.makefile("rb") as lines:
        head = b"".join(iter(lines.readline, b"\r\n"))
        length = next((int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")), 0)
        served.received.append(head + lines.read(length))
    connection.sendall(OK)


def ask(gates: GateHouse, requests: Requests, url: str, **arguments: object) -> ActionResult:
    """Through the gate, approved where a person is asked."""
    for operation, executor in requests.executors().items():
        gates.replace_executor(operation, executor)
    result = gates.ask("http.request", url=url, **arguments)
    if result.outcome is Outcome.WAITING:
        gates.approve(result)
        result = gates.ask("http.request", url=url, **arguments)
    return result


def test_a_request_goes_to_the_address_and_names_the_host(gates: GateHouse) -> None:
    with serving(answering(OK)) as served:
        done = ask(gates, Requests(here), f"http://A.example:{served.port}/p?q=1#frag", headers={"X-One": "1"})
    assert done.outcome is Outcome.DONE, done
    assert (done.result["status"], done.result["body"], done.result["truncated"]) == (200, "hi", False)
    assert "set-cookie" not in done.result["headers"]
    head = served.received[0].decode().lower()
    assert head.startswith("get /p?q=1 http/1.1\r\n")
    assert f"\r\nhost: a.example:{served.port}\r\n" in head
    assert "\r\nx-one: 1\r\n" in head


def test_a_body_is_sent_and_counted_and_a_webhook_is_json(gates: GateHouse) -> None:
    with serving(taking) as served:
        done = ask(gates, Requests(here), f"http://a.example:{served.port}/", method="POST", body="some text")
        assert done.outcome is Outcome.DONE, done
        asked = gates.ask("network.webhook", url=f"http://a.example:{served.port}/hook", payload={"a": "é"})
        gates.approve(asked)
        assert gates.ask("network.webhook", url=f"http://a.example:{served.port}/hook", payload={"a": "é"}).outcome is Outcome.DONE
    assert served.received[0].endswith(b"some text")
    assert served.received[1].endswith('{"a":"é"}'.encode())
    outcome = gates.log.of(done.action_id)[-1].body["body"]
    assert (outcome["usage"]["egress_bytes"], outcome["usage"]["address"]) == (len("some text") + 2, "127.0.0.1")
    assert "some text" not in repr([entry.body for entry in gates.log.entries])


def test_a_redirect_is_told_and_not_followed(gates: GateHouse) -> None:
    reply = b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n"
    with serving(answering(reply)) as served:
        done = ask(gates, Requests(here), f"http://a.example:{served.port}/")
    assert (done.result["status"], done.result["redirect"], len(served.received)) == (302, "http://evil.example/", 1)


def test_an_endless_answer_is_cut_at_its_limit(gates: GateHouse) -> None:
    def endless(connection: socket.socket, _served: Served) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with serving(endless) as served:
        done = ask(gates, Requests(here), f"http://a.example:{served.port}/")
    assert (done.outcome, done.result["truncated"], done.result["bytes"]) == (Outcome.DONE, True, RESPONSE_BYTES_MAX)


def test_an_answer_that_drips_ends_at_its_time(gates: GateHouse) -> None:
    now_s = [0.0]

    def later() -> float:
        now_s[0] += 40
        return now_s[0]

    def drip(connection: socket.socket, _served: Served) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nx")
        connection.recv(1)

    with serving(drip) as served:
        failed = ask(gates, Requests(here, later), f"http://a.example:{served.port}/")
    assert (failed.outcome, failed.code) == (Outcome.FAILED, "EGRESS_FAILED")


def test_control_sequences_in_an_answer_do_not_act(gates: GateHouse) -> None:
    with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n\x1b[2Jhi\xe2\x80\xae!")) as served:
        done = ask(gates, Requests(here), f"http://a.example:{served.port}/")
    assert done.result["body"] == "hi\\u{202e}!"


@pytest.mark.parametrize(
    ("method", "outcome", "code"), [("GET", Outcome.FAILED, "EGRESS_FAILED"), ("POST", Outcome.UNKNOWN, "OUTCOME_UNKNOWN")]
)
def test_an_answer_that_was_lost_is_unknown_where_something_may_have_changed(
    gates: GateHouse, method: str, outcome: Outcome, code: str
) -> None:
    with serving(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")) as served:
        result = ask(gates, Requests(here), f"http://a.example:{served.port}/", method=method)
    assert (result.outcome, result.code) == (outcome, code)


def test_nobody_there_is_a_failure(gates: GateHouse) -> None:
    with serving(answering(OK)) as served:
        port = served.port
    assert ask(gates, Requests(here), f"http://a.example:{port}/", method="POST").code == "EGRESS_FAILED"


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_what_is_not_public_is_refused_even_when_a_person_approves(gates: GateHouse, host: str) -> None:
    def leading_there(_host: str, port: int) -> tuple[str, ...]:
        return resolve_public(host.strip("[]"), port)

    with serving(answering(OK)) as served:
        result = ask(gates, Requests(leading_there), f"http://new.example:{served.port}/")
    assert (result.outcome, result.code, served.received) == (Outcome.FAILED, "EGRESS_REFUSED", [])


def tls(folder: Path) -> Callable[[socket.socket, Served], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder))

    def handle(connection: socket.socket, served: Served) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            answering(OK)(secure, served)

    return handle


@pytest.mark.parametrize(("host", "outcome"), [("localhost", Outcome.DONE), ("other.example", Outcome.FAILED)])
def test_tls_proves_the_name_and_not_the_address(gates: GateHouse, tmp_path: Path, host: str, outcome: Outcome) -> None:
    with serving(tls(tmp_path)) as served:
        trust = ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))
        result = ask(gates, Requests(here, trust=trust), f"https://{host}:{served.port}/")
    assert result.outcome is outcome, result


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("HTTPS://Example.COM/x", "https://example.com:443"),
        ("http://bücher.example", "http://xn--bcher-kva.example:80"),
        ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080"),
        ("http://192.0.2.1", "http://192.0.2.1:80"),
    ],
)
def test_an_address_has_one_form_and_the_allow_list_reads_it(url: str, origin: str) -> None:
    address = origins.parse(url)
    assert address.origin == origin
    parse_origin(address.origin)
    assert origin_allowed(address.origin, [origin])


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a.example:80:80/",
        "https://a@b.example/",
        "https:///path",
        "//a.example",
        "https://a.example./",
        "https://a%2eexample/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://a\\b.example/",
        "https://a.example/ü",
        "https://a.example /",
        "https://-a.example/",
        "https://[::1/",
        "javascript:alert(1)",
        "https://a.example/" + "x" * 5000,
        "https://exa\u00admple.com\u2024/",
    ],
)
def test_what_two_readers_could_read_differently_is_refused(url: str) -> None:
    with pytest.raises(CohortError) as raised:
        origins.parse(url)
    assert raised.value.code == "ARGUMENT_INVALID"


def test_a_cookie_set_for_one_request_is_sent_with_no_other(gates: GateHouse) -> None:
    with serving(answering(OK)) as served:
        requests = Requests(here)
        for _ in range(2):
            assert ask(gates, requests, f"http://a.example:{served.port}/").outcome is Outcome.DONE
    assert [b"cookie" in head.lower() for head in served.received] == [False, False]


@pytest.mark.parametrize(
    "place",
    [
        "169.254.169.254",
        "127.0.0.1",
        "10.1.2.3",
        "[::1]",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
    ],
)
@pytest.mark.parametrize("operation", ["http.request", "network.webhook"])
def test_a_place_that_is_plainly_not_public_is_refused_and_asked_of_nobody(gates: GateHouse, operation: str, place: str) -> None:
    url = f"http://{place}/latest/meta-data"
    refused = gates.ask(operation, url=url, **({"payload": {}} if operation == "network.webhook" else {}))
    assert (refused.outcome, refused.code, refused.approval_id) == (Outcome.REFUSED, "EGRESS_REFUSED", None)
    assert gates.log.of(refused.action_id)[-1].body["body"]["rules"] == ["invariant.public-place"]


def test_a_private_place_that_the_configuration_names_is_a_question_like_any_other(
    sqlite_database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    named = GateHouse(sqlite_database, clock, tmp_path, settings=GateSettings(egress_private=("10.1.2.3:8080",)))
    assert named.ask("http.request", url="http://10.1.2.3:8080/").code == "APPROVAL_NEEDED"
    assert named.ask("http.request", url="http://10.1.2.3/").code == "EGRESS_REFUSED"
