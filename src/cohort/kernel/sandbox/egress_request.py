"""The one parser of what clients ask the proxy: `CONNECT host:port` and absolute `http://` requests, and nothing that could be read two ways."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cohort.kernel.sandbox.egress_names import DEFAULT_PORTS, Malformed, Target, parse_origin, parse_target

HEAD_BYTES_MAX = 32 * 1024
HEADERS_MAX = 100
BODY_BYTES_MAX = 1 << 40

_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]{1,16384}) HTTP/1\.[01]")
_HEADER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}):([\x20-\x7e\t\x80-\xff]*)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,12}")
_TARGET = re.compile(r"http://([^/?#@\\]+)((?:[/?][\x21-\x22\x24-\x7e]*)?)")
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"upgrade",
        b"host",
    }
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for. `forward`: the head to send on, None for a tunnel. `body_bytes`: how many bytes of body follow it."""

    target: Target
    method: str
    forward: bytes | None
    body_bytes: int


def parse_head(head: bytes) -> Ask:
    """A request's head with the empty line that ends it. Errors: Malformed."""
    if len(head) > HEAD_BYTES_MAX or not head.endswith(b"\r\n\r\n"):
        raise Malformed("a head without an end")
    first, *lines = head[:-4].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise Malformed("not a request line of HTTP/1")
    headers = _headers(lines)
    method, asked = line[1].decode(), line[2].decode()
    if method == "CONNECT":
        return _tunnel(asked, headers)
    return _plain(method, asked, headers)


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    if len(lines) > HEADERS_MAX:
        raise Malformed(f"more than {HEADERS_MAX} headers")
    found = [_HEADER.fullmatch(line) for line in lines]
    if None in found:
        raise Malformed("a header with control bytes or without a name")
    return [(match[1].lower(), match[2].strip(b" \t")) for match in found if match is not None]


def _tunnel(asked: str, headers: list[tuple[bytes, bytes]]) -> Ask:
    target = parse_target(asked)
    _same_host(target, headers, default_port=None)
    if any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
        raise Malformed("CONNECT with a body")
    return Ask(target, "CONNECT", None, 0)


def _plain(method: str, asked: str, headers: list[tuple[bytes, bytes]]) -> Ask:
    found = _TARGET.fullmatch(asked)
    if found is None:
        raise Malformed("not an absolute http:// address")
    _, target = parse_origin(f"http://{found[1]}")
    _same_host(target, headers, default_port=DEFAULT_PORTS["http"])
    path = found[2] if found[2].startswith("/") else f"/{found[2]}"
    host = str(target).removesuffix(f":{DEFAULT_PORTS['http']}").encode()
    kept = [name + b": " + value for name, value in headers if name not in _HOP_BY_HOP]
    lines = [f"{method} {path} HTTP/1.1".encode(), b"host: " + host, *kept, b"connection: close"]
    return Ask(target, method, b"\r\n".join(lines) + b"\r\n\r\n", _body_bytes(headers))


def _same_host(target: Target, headers: list[tuple[bytes, bytes]], default_port: int | None) -> None:
    """At most one Host, and it says what the request line says; a CONNECT may leave its port away."""
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    if not hosts:
        return
    texts = {str(target)}
    if default_port is None or target.port == default_port:
        texts.add(str(target).rpartition(":")[0])
    if len(hosts) > 1 or hosts[0] not in texts:
        raise Malformed("the Host header names another host than the request line")


def _body_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise Malformed("a body whose length is not said; send Content-Length")
    lengths = [value for name, value in headers if name == b"content-length"]
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]) or int(lengths[0]) > BODY_BYTES_MAX:
        raise Malformed("a Content-Length that is not one number")
    return int(lengths[0])
