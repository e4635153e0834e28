"""The parser of requests and of ClientHello."""

from __future__ import annotations

import ssl

import pytest

from cohort.kernel.sandbox.egress_names import Malformed
from cohort.kernel.sandbox.egress_request import HEAD_BYTES_MAX, HEADERS_MAX, parse_head
from cohort.kernel.sandbox.egress_tls import NotHello, hello_of, server_name


def test_a_tunnel_is_asked_for_by_host_and_port() -> None:
    ask = parse_head(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nProxy-Connection: keep-alive\r\n\r\n")
    assert (str(ask.target), ask.method, ask.forward) == ("example.com:443", "CONNECT", None)


def test_a_plain_request_goes_on_in_origin_form_with_one_host_and_no_hop_by_hop_header() -> None:
    line = b"POST http://example.com/a?b=c HTTP/1.1\r\n"
    hop_by_hop = b"Host: example.com\r\nProxy-Authorization: x\r\nConnection: keep-alive\r\n"
    ask = parse_head(line + hop_by_hop + b"Accept: */*\r\nContent-Length: 3\r\n\r\n")
    assert ask.forward == b"POST /a?b=c HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\ncontent-length: 3\r\nconnection: close\r\n\r\n"
    assert (str(ask.target), ask.body_bytes) == ("example.com:80", 3)


def test_a_query_without_a_path_gets_one() -> None:
    assert (parse_head(b"GET http://example.com:8080?q HTTP/1.1\r\n\r\n").forward or b"").startswith(
        b"GET /?q HTTP/1.1\r\nhost: example.com:8080\r\n"
    )


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"GET https://example.com/ HTTP/1.1\r\n\r\n",
        b"GET ftp://example.com/ HTTP/1.1\r\n\r\n",
        b"GET HTTP://example.com/ HTTP/1.1\r\n\r\n",
        b"get http://example.com/ HTTP/1.1\r\n\r\n",
        b"GET http://example.com/ HTTP/2.0\r\n\r\n",
        b"GET  http://example.com/ HTTP/1.1\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1 \r\n\r\n",
        b"GET http://user@example.com/ HTTP/1.1\r\n\r\n",
        b"GET http://example.com\\@evil.com/ HTTP/1.1\r\n\r\n",
        b"GET http://example.com/#x HTTP/1.1\r\n\r\n",
        b"GET http://example.com/\x00 HTTP/1.1\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nHost: other.com\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nHost: example.com\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nA: b\n\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\n folded\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nA: \x01\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nA: \r\r\n\r\n",
        b"POST http://example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST http://example.com/ HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"POST http://example.com/ HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
        b"POST http://example.com/ HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
        b"POST http://example.com/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"CONNECT http://example.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT example.com HTTP/1.1\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: evil.com:443\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\n",
        b"GET http://example.com/ HTTP/1.1\r\n" + b"A: b\r\n" * (HEADERS_MAX + 1) + b"\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nA: " + b" " * HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
)
def test_what_could_be_read_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_head(head)


def hello(name: str | None) -> bytes:
    """The first flight of a real TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(coming, going, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return going.read()


def test_the_name_of_a_real_client_hello() -> None:
    whole = hello_of(hello("api.example.com"))
    assert whole is not None
    assert server_name(whole) == "api.example.com"
    without = hello_of(hello(None))
    assert without is not None
    assert server_name(without) is None


def test_a_hello_in_pieces_and_in_several_records_is_the_same_hello() -> None:
    data = hello("api.example.com")
    assert all(hello_of(data[:end]) is None for end in range(len(data)))
    body = data[5:]
    split = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in (body[:3], body[3:90], body[90:]))
    assert hello_of(split) == hello_of(data)


def test_a_second_name_is_refused() -> None:
    data = hello("a.example.com")
    at = data.index(b"a.example.com") - 9
    extension = data[at : at + 9 + 13]
    assert extension[:2] == b"\x00\x00"
    message = bytearray(data[5:])
    where = at - 5
    message[where:where] = extension
    added = len(extension)
    message[1:4] = (int.from_bytes(message[1:4], "big") + added).to_bytes(3, "big")
    start = 4 + 2 + 32
    start += 1 + message[start]
    start += 2 + int.from_bytes(message[start : start + 2], "big")
    start += 1 + message[start]
    message[start : start + 2] = (int.from_bytes(message[start : start + 2], "big") + added).to_bytes(2, "big")
    with pytest.raises(NotHello, match="two server names"):
        server_name(bytes(message))


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16\x02\x00\x00\x04abcd", b"\x16\x03\x01\x00\x00", b"\x17\x03\x03\x00\x01a"]
)
def test_what_is_no_tls_is_refused(data: bytes) -> None:
    with pytest.raises(NotHello):
        hello_of(data)
