"""Whatever bytes a client sends, the proxy reads them one way or not at all."""

from __future__ import annotations

import ipaddress
import string

from hypothesis import example, given
from hypothesis import strategies as st

from cohort.kernel.sandbox.egress_addresses import is_public
from cohort.kernel.sandbox.egress_names import AllowList, Malformed, Target, parse_target
from cohort.kernel.sandbox.egress_request import parse_head
from cohort.kernel.sandbox.egress_tls import NotHello, hello_of, server_name

labels = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8).filter(lambda label: not label[0].isdigit())
names = st.lists(labels, min_size=2, max_size=5).map(".".join)
ports = st.integers(1, 65535)
pieces = st.sampled_from(
    [
        b"GET ",
        b"CONNECT ",
        b"http://",
        b"example.com",
        b":443",
        b" HTTP/1.1",
        b"\r\n",
        b"\r",
        b"\n",
        b"Host: ",
        b"\x00",
        b"@",
        b"[::1]",
        b"%",
    ]
)


@given(st.one_of(st.binary(max_size=300), st.lists(st.one_of(pieces, st.binary(max_size=3)), max_size=30).map(b"".join)))
@example(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
def test_any_head_is_refused_or_goes_to_exactly_the_host_it_names(head: bytes) -> None:
    try:
        ask = parse_head(head)
    except Malformed:
        return
    assert parse_target(str(ask.target)) == ask.target
    first = head.split(b"\r\n")[0]
    assert ask.target.host.encode() in first
    if ask.forward is not None:
        lines = ask.forward.split(b"\r\n")
        assert [line for line in lines if line.startswith(b"host: ")] == [lines[1]]
        assert not any(byte in ask.forward.replace(b"\r\n", b"") for byte in (b"\r", b"\n", b"\x00"))
        assert ask.forward.count(b"\r\n\r\n") == 1


@given(st.text(max_size=60))
def test_any_text_is_refused_or_is_its_own_canonical_form(text: str) -> None:
    try:
        target = parse_target(text)
    except Malformed:
        return
    assert str(target) == text


@given(names, ports, st.binary(max_size=3))
def test_a_control_byte_anywhere_in_a_name_is_refused(name: str, port: int, noise: bytes) -> None:
    for bad in ("\x00", "\r", "\n", "\t", " ", "\x7f", *noise.decode("latin-1")):
        if not bad.isalnum() and bad not in ".-_:":
            for text in (f"{name[:2]}{bad}{name[2:]}:{port}", f"{name}:{port}{bad}", f"{bad}{name}:{port}"):
                try:
                    parse_target(text)
                except Malformed:
                    continue
                raise AssertionError(f"{text!r} was read")


@given(names, names, ports, labels)
def test_a_wildcard_matches_what_is_below_and_nothing_else(name: str, other: str, port: int, label: str) -> None:
    allowed = AllowList.of([f"*.{name}:{port}"])
    assert allowed.permits(Target(f"{label}.{name}", port))
    assert not allowed.permits(Target(f"{label}{name}", port))
    assert not allowed.permits(Target(name, port))
    assert not allowed.permits(Target(f"{label}.{name}.{other}", port)) or other.endswith(name)
    assert allowed.permits(Target(other, port)) == other.endswith(f".{name}")


@given(st.ip_addresses())
def test_no_address_the_standard_library_calls_local_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if is_public(str(address)) and address not in ipaddress.ip_network("64:ff9b::/96"):
        local = (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast, address.is_reserved)
        assert not any(local)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_never_more_public_than_alone(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    assert is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number))) == is_public(str(address))
    for carrier in ("::ffff:0:0", "::", "2002::", "64:ff9b:1::"):
        shift = 80 if carrier == "2002::" else 0
        assert not is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(carrier)) | number << shift)))


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda body: b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body)))
def test_any_first_bytes_of_a_tunnel_are_a_hello_or_refused(data: bytes) -> None:
    try:
        hello = hello_of(data)
        if hello is not None:
            server_name(hello)
    except NotHello:
        return
