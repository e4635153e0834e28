"""Everything a client can do wrong: each gets one right answer, nothing reaches the upstream, and the gateway goes on serving."""

from __future__ import annotations

import gzip
import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support_gateway import TOKEN, GatewayProcess, release, table
from support_upstream import Upstream

PATH = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GOOD = json.dumps({"model": "well", "messages": [{"role": "user", "content": "Hi"}]}).encode()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    limits = {"head_read_s": 0.5, "body_read_s": 0.5, "keep_alive_s": 0.8, "linger_s": 0.5, "connections_max": 20, "pipelined_max": 4}
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), limits=limits)
    process.push(table(1, [release("well", upstream.base_url)]))
    yield process
    process.close()


@pytest.fixture(autouse=True)
def _goes_on_serving(gateway: GatewayProcess, upstream: Upstream) -> Iterator[None]:
    before = len(upstream.seen)
    yield
    assert gateway.chat("well")[0] == 200
    assert len(upstream.seen) >= before + 1


def exchange(gateway: GatewayProcess, data: bytes) -> bytes:
    """All that comes back until the gateway closes."""
    with gateway.connect() as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
        return rest(sock)


def rest(sock: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            answer += data
    return answer


def status_and_error(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{not json", 400, "invalid_json", None),
        (b"", 400, "invalid_json", None),
        (b"[]", 400, "invalid_json", None),
        (b"\xff\xfe", 400, "invalid_json", None),
        (b"[" * 100_000, 400, "invalid_json", None),
        (b"{}", 400, "model_missing", "model"),
        (b'{"model": 7}', 400, "model_missing", "model"),
        (b'{"model": "well"}', 400, "messages_missing", "messages"),
        (b'{"model": "well", "messages": []}', 400, "messages_missing", "messages"),
        (b'{"model": "well", "messages": [1], "stream": "yes"}', 400, "stream_invalid", "stream"),
        (b'{"model": "other", "messages": [1]}', 404, "model_not_found", "model"),
    ],
)
def test_a_wrong_body_is_named(gateway: GatewayProcess, body: bytes, status: int, code: str, param: str | None) -> None:
    answered, _, answer = gateway.request("POST", "/v1/chat/completions", body, Content_Type="application/json")
    error = json.loads(answer)["error"]
    assert (answered, error["code"], error["param"], error["type"]) == (status, code, param, "invalid_request_error")


def test_a_compressed_body_is_refused_by_name(gateway: GatewayProcess) -> None:
    status, _, answer = gateway.request(
        "POST", "/v1/chat/completions", gzip.compress(GOOD), Content_Type="application/json", Content_Encoding="gzip"
    )
    assert (status, json.loads(answer)["error"]["code"]) == (415, "unsupported_encoding")


def test_a_body_nested_too_deeply_is_refused_in_words(gateway: GatewayProcess) -> None:
    status, _, answer = gateway.request("POST", "/v1/chat/completions", b'{"messages": ' + b"[" * 5000, Content_Type="application/json")
    assert (status, json.loads(answer)["error"]["code"]) == (400, "invalid_json")
    assert "allocate" not in json.loads(answer)["error"]["message"]


def test_a_body_that_is_not_declared_as_json_is_refused(gateway: GatewayProcess) -> None:
    assert gateway.request("POST", "/v1/chat/completions", GOOD, Content_Type="text/plain")[0] == 415


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://evil.example:8700", "http://localhost.evil.example", "HTTP://127.0.0.1.evil"]
)
def test_a_web_page_of_another_site_cannot_spend_the_owners_money(gateway: GatewayProcess, origin: str) -> None:
    status, _, answer = gateway.request("POST", "/v1/chat/completions", GOOD, Content_Type="application/json", Origin=origin)
    assert (status, json.loads(answer)["error"]["code"]) == (403, "origin_refused")
    assert gateway.request("GET", "/v1/models", Origin=origin)[0] == 403


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://localhost.:3000", "http://127.0.0.1", "https://[::1]:8443", "app://desktop", "null"]
)
def test_a_page_or_program_of_this_machine_can(gateway: GatewayProcess, origin: str) -> None:
    assert gateway.request("GET", "/v1/models", Origin=origin)[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/health", "/ready", "/-/state", "/v1/responses/resp_0", "/nothing"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8700", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example"]
)
def test_a_page_whose_name_was_made_to_lead_here_reads_nothing(gateway: GatewayProcess, path: str, host: str) -> None:
    status, _, answer = gateway.request("GET", path, Host=host, Authorization=f"Bearer {TOKEN}")
    error = json.loads(answer)["error"]
    assert (status, error["code"]) == (421, "host_refused")
    assert "gateway.hosts" in error["message"]


def test_a_page_whose_name_was_made_to_lead_here_asks_nothing_either(gateway: GatewayProcess) -> None:
    status, _, answer = gateway.request("POST", "/v1/messages", GOOD, Content_Type="application/json", Host="evil.example")
    assert (status, json.loads(answer)["type"], json.loads(answer)["error"]["code"]) == (421, "error", "host_refused")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8700", "127.0.0.1", "127.1.2.3:1", "[::1]:8700", "[::1]"])
def test_programs_of_this_machine_are_answered_by_its_own_names(gateway: GatewayProcess, host: str) -> None:
    assert gateway.request("GET", "/v1/models", Host=host)[0] == 200


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost:%d/v1/models", b"localhost", 200),
        (b"HTTPS://127.0.0.1/v1/models?limit=3", b"localhost", 200),
        (b"http://localhost./v1/models", b"evil.example", 200),
        (b"http://localhost?x", b"localhost", 404),
        (b"http://evil.example/v1/models", b"localhost", 421),
        (b"http://evil.example/-/state", b"localhost", 421),
        (b"ftp://localhost/v1/models", b"localhost", 400),
        (b"http:///v1/models", b"localhost", 400),
        (b"http://user@localhost/v1/models", b"localhost", 400),
        (b"http://localhost/v1/models", b"", 200),
    ],
)
def test_a_target_may_name_the_host_and_that_name_counts_whatever_the_header_says(
    gateway: GatewayProcess, target: bytes, host: bytes, status: int
) -> None:
    whole = target % gateway.port if b"%d" in target else target
    answer = exchange(gateway, b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (whole, host))
    assert int(answer.split(b" ")[1]) == status
    assert (b'"object":"list"' in answer) == (status == 200)


def test_a_call_by_a_target_that_names_the_host_is_answered_in_its_dialect(gateway: GatewayProcess) -> None:
    def call(path: bytes, body: bytes) -> bytes:
        head = PATH.replace(b"/v1/chat/completions", b"http://localhost" + path)
        return exchange(gateway, head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    assert call(b"/v1/chat/completions", GOOD).startswith(b"HTTP/1.1 200")
    assert status_and_error(call(b"/v1/messages", b"{"))[0] == 400
    assert b'"type":"error"' in call(b"/v1/messages", b"{")
    assert b"Host header is missing" in exchange(gateway, b"GET http://localhost/v1/models HTTP/1.1\r\n\r\n")


def test_a_client_of_http_1_0_need_not_say_which_host(gateway: GatewayProcess) -> None:
    assert exchange(gateway, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(gateway: GatewayProcess) -> None:
    answer = exchange(gateway, PATH + b"Content-Length: 10485760\r\n\r\n" + b"x" * 10_485_760)
    assert status_and_error(answer) == (413, status_and_error(answer)[1])
    assert "body_bytes_max" in str(status_and_error(answer)[1]["message"])


def test_only_controls_tables_may_be_larger_than_what_clients_send(gateway: GatewayProcess) -> None:
    body = b'{"version": 0}' + b" " * (9 << 20)
    status, answer = gateway.link("PUT", "/-/routing", body)
    assert status != 413, answer
    for path, key in (("/-/routing", "Bearer wrong"), ("/-/routing", None), ("/v1/chat/completions", f"Bearer {TOKEN}")):
        head = f"{'PUT' if path.startswith('/-/') else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += (f"Authorization: {key}\r\n" if key else "") + f"Content-Length: {len(body)}\r\n\r\n"
        assert status_and_error(exchange(gateway, head.encode() + body))[0] == 413


def test_a_body_in_chunks_without_end_is_refused_at_the_limit(gateway: GatewayProcess) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer = exchange(gateway, PATH + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 140)
    assert status_and_error(answer)[0] == 413


@pytest.mark.parametrize(
    "bomb",
    [
        PATH + b"X-Bomb: " + b"x" * 60_000 + b"\r\n\r\n",
        PATH + b"X-Bomb: " + b"x" * 600_000,
        PATH + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["one header", "without end", "many headers", "long path"],
)
def test_a_header_bomb_is_refused(gateway: GatewayProcess, bomb: bytes) -> None:
    assert status_and_error(exchange(gateway, bomb))[0] == 431


SMUGGLED = {
    "length and chunks": PATH + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": PATH + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": PATH + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "list of lengths": PATH + b"Content-Length: 2, 2\r\n\r\n{}",
    "signed length": PATH + b"Content-Length: +2\r\n\r\n{}",
    "folded header": PATH + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "space before colon": PATH + b"Content-Length : 2\r\n\r\n{}",
    "bare line feed": PATH + b"X-A: b\nContent-Length: 2\r\n\r\n{}",
    "bare line feeds": PATH.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
    "bare carriage return": PATH + b"X-A: b\rX-B: c\r\nContent-Length: 2\r\n\r\n{}",
    "zero byte": PATH + b"X-A: b\0c\r\nContent-Length: 2\r\n\r\n{}",
    "odd coding": PATH + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding before chunks": PATH + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": PATH + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": PATH.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "line feed in chunk size": PATH + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
    "odd chunk size": PATH + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "two hosts": PATH + b"Host: y\r\nContent-Length: 2\r\n\r\n{}",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "upgrade": PATH + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    "tunnel": b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("request_bytes", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_what_smuggling_is_made_of_is_refused_and_the_connection_closed(
    gateway: GatewayProcess, upstream: Upstream, request_bytes: bytes
) -> None:
    before = len(upstream.seen)
    answer = exchange(gateway, request_bytes + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status_and_error(answer)[0] == 400
    assert answer.count(b"\r\n\r\n") == 1
    assert len(upstream.seen) == before


def test_another_version_of_http_is_refused(gateway: GatewayProcess) -> None:
    assert status_and_error(exchange(gateway, b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n"))[0] == 505


@pytest.mark.parametrize("start", [b"POST /v1/chat/comp", PATH + b"Content-Length: 20\r\n\r\n{"], ids=["head", "body"])
def test_a_request_that_drips_in_is_cut_off_in_time(gateway: GatewayProcess, start: bytes) -> None:
    with gateway.connect() as sock:
        sock.sendall(start)
        sock.settimeout(0.1)
        answer = b""
        for _ in range(40):
            try:
                answer += sock.recv(1 << 16)
                break
            except TimeoutError:
                with suppress(ConnectionError):
                    sock.sendall(b"x")
    assert status_and_error(answer)[0] == 408


def test_many_drips_at_once_do_not_keep_others_out(gateway: GatewayProcess) -> None:
    drips = [gateway.connect() for _ in range(15)]
    for sock in drips:
        sock.sendall(b"POST /v1/chat/comp")
    assert gateway.chat("well")[0] == 200
    for sock in drips:
        assert b"408" in rest(sock)
        sock.close()


def test_connections_beyond_the_limit_are_told_so(gateway: GatewayProcess) -> None:
    sockets = [gateway.connect() for _ in range(21)]
    assert status_and_error(rest(sockets[-1]))[0] == 503
    for sock in sockets:
        sock.close()


def test_an_idle_connection_is_closed(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert rest(sock).count(b"HTTP/1.1 200") == 1


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    chat = PATH + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    answer = exchange(
        gateway,
        chat
        + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        + chat
        + b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    assert [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 200, 200, 404]


def test_too_many_pipelined_requests_are_refused(gateway: GatewayProcess) -> None:
    chat = PATH + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    answer = exchange(gateway, chat * 20)
    assert b"HTTP/1.1 400" in answer
    assert b"too_many_pipelined" in answer


def test_expect_continue_is_answered_and_the_body_taken(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(PATH + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(GOOD)
        assert rest(sock).startswith(b"HTTP/1.1 200")


def test_a_request_may_come_byte_by_byte(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        for byte in PATH + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD:
            sock.sendall(bytes([byte]))
        assert rest(sock).startswith(b"HTTP/1.1 200")


def test_a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection(gateway: GatewayProcess) -> None:
    body = GOOD[:-1] + b', "stream": true}'
    answer = exchange(gateway, PATH.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert b"transfer-encoding" not in answer.lower()
    assert answer.endswith(b"data: [DONE]\n\n")


def test_a_head_request_gets_no_body(gateway: GatewayProcess) -> None:
    answer = exchange(gateway, b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


def test_random_damage_to_requests_never_stops_the_gateway(gateway: GatewayProcess) -> None:
    chance = random.Random(20)
    good = PATH + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    pieces = [
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b":",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\xff",
        b"0\r\n\r\n",
        b"{",
        b'"',
    ]
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 3)] = chance.choice(pieces)
        with gateway.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = rest(sock)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), bytes(data)
        assert not answer.startswith((b"HTTP/1.1 500", b"HTTP/1.1 502")), (bytes(data), answer)
    assert gateway.logged("request_failed") is None, gateway.logged("request_failed")


def test_a_body_nested_beyond_what_can_be_written_again_is_refused(gateway: GatewayProcess) -> None:
    deep = b'{"y":{"model":1},"model":"well","messages":[1],"x":' + b"[" * 500 + b"]" * 500 + b"}"
    status, _, body = gateway.request("POST", "/v1/chat/completions", deep, Content_Type="application/json")
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_json")


def test_requests_sent_ahead_of_garbage_are_answered_before_it_is_refused(gateway: GatewayProcess) -> None:
    chat = PATH + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    for _ in range(20):
        answer = exchange(gateway, chat * 3 + b"garbage\r\n\r\n")
        assert [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()] == [200, 200, 200, 400]
    assert gateway.logged("request_failed") is None


def test_a_client_that_stops_sending_and_listens_no_more_harms_nobody(gateway: GatewayProcess) -> None:
    chat = PATH + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    for number in range(60):
        with gateway.connect() as sock:
            sock.sendall(chat * (number % 4 + 1) + b"POST" * (number % 3))
            sock.shutdown(socket.SHUT_WR)
            rest(sock)
    assert gateway.logged("request_failed") is None
    assert "Traceback" not in gateway.log_text()


def test_a_request_that_was_only_half_sent_ahead_is_answered_when_the_rest_comes(gateway: GatewayProcess) -> None:
    chat = PATH + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    with gateway.connect() as sock:
        sock.sendall(chat * 2 + chat[:40])
        answer = b""
        while answer.count(b"HTTP/1.1 200") < 2 or not answer.endswith(b"}"):
            answer += sock.recv(1 << 16)
        sock.sendall(chat[40:])
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
