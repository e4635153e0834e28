"""Names, patterns, origins, addresses."""

from __future__ import annotations

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.sandbox.egress_addresses import is_public, resolve_public
from cohort.kernel.sandbox.egress_names import AllowList, Malformed, hosts_of, origin_allowed, parse_target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "example.com:",
        ":443",
        "example.com:0",
        "example.com:65536",
        "example.com:0443",
        "example.com:+443",
        "example.com:44 3",
        "Example.com:443",
        "example.com.:443",
        ".example.com:443",
        "exa mple.com:443",
        "example..com:443",
        "example.com\x00.evil.com:443",
        "example.com\r\n:443",
        "user@example.com:443",
        "example.com:443@evil.com:443",
        "exämple.com:443",
        "127.1:80",
        "2130706433:80",
        "0x7f000001:80",
        "0177.0.0.1:80",
        "127.0.0.1.:80",
        "example.0x10:80",
        "1.2.3:80",
        "[::1:80",
        "[::1]80",
        "[0:0:0:0:0:0:0:1]:80",
        "[FE80::1]:80",
        "[fe80::1%eth0]:80",
        "[127.0.0.1]:80",
        "::1:80",
        "-a.example.com:443",
        "a-.example.com:443",
        "*.example.com:443",
        f"{'a' * 64}.com:443",
        f"{'a.' * 127}com:443",
    ],
)
def test_a_name_that_could_be_read_two_ways_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_target(text)


@pytest.mark.parametrize(
    ("line", "target", "permitted"),
    [
        ("example.com:443", "example.com:443", True),
        ("example.com:443", "example.com:80", False),
        ("example.com:443", "evilexample.com:443", False),
        ("example.com:443", "www.example.com:443", False),
        ("example.com:443", "example.com.evil.com:443", False),
        ("*.example.com:443", "www.example.com:443", True),
        ("*.example.com:443", "a.b.example.com:443", True),
        ("*.example.com:443", "example.com:443", False),
        ("*.example.com:443", "evilexample.com:443", False),
        ("192.0.2.1:443", "192.0.2.1:443", True),
        ("192.0.2.1:443", "192.0.2.10:443", False),
        ("[2001:db8::1]:443", "[2001:db8::1]:443", True),
        ("[2001:db8::1]:443", "[2001:db8::2]:443", False),
    ],
)
def test_lists_match_whole_labels_and_exact_addresses(line: str, target: str, permitted: bool) -> None:
    assert AllowList.of([line]).permits(parse_target(target)) is permitted


@pytest.mark.parametrize(
    "line", ["*", "*:443", "*.com:443", "*.10.0.0.1:443", "a.*.com:443", "example.com", "http://example.com:80", "10.0.0.0/8:443"]
)
def test_a_list_that_would_let_through_more_than_it_says_is_refused(line: str) -> None:
    with pytest.raises(CohortError) as caught:
        AllowList.of([line])
    assert caught.value.code == "FIELD_INVALID"


def test_an_origin_is_allowed_by_scheme_host_and_port() -> None:
    allowed = ("https://api.example.com", "http://*.example.org:8080")
    assert origin_allowed("https://api.example.com:443", allowed)
    assert not origin_allowed("http://api.example.com:443", allowed)
    assert not origin_allowed("https://api.example.com:8443", allowed)
    assert origin_allowed("http://a.example.org:8080", allowed)
    assert not origin_allowed("https://API.example.com:443", allowed)
    assert not origin_allowed("file:///etc/passwd", allowed)
    assert hosts_of(allowed) == ("api.example.com:443", "*.example.org:8080")
    with pytest.raises(CohortError):
        origin_allowed("https://api.example.com:443", ["api.example.com"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b:1::808:808",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "4000::1",
        "localhost",
        "",
    ],
)
def test_what_is_not_plainly_public_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)


def test_a_name_at_a_private_address_is_refused_unless_the_configuration_names_it() -> None:
    with pytest.raises(CohortError) as caught:
        resolve_public("localhost", 8080)
    assert caught.value.code == "EGRESS_REFUSED"
    assert "127.0.0.1" in resolve_public("localhost", 8080, private=("localhost:8080",))
    with pytest.raises(CohortError):
        resolve_public("169.254.169.254", 80)
    assert resolve_public("8.8.8.8", 53) == ("8.8.8.8",)


def test_a_name_nobody_knows_is_a_failure_and_not_a_refusal() -> None:
    with pytest.raises(CohortError) as caught:
        resolve_public("no-such-host.invalid", 443)
    assert caught.value.code == "EGRESS_FAILED"
