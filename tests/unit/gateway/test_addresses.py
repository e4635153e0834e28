"""Which addresses of upstreams may be dialled, and that the dialled one is the checked one."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.clock import SystemClock
from cohort.gateway.addresses import LOOPBACK_ONLY, METADATA, AddressGuard, inner, is_public, networks
from cohort.gateway.origins import Origin
from cohort.gateway.settings import Limits
from cohort.gateway.upstream_connection import Forbidden, Unreachable
from cohort.gateway.upstreams import Upstreams

DEFAULT = AddressGuard(networks(LOOPBACK_ONLY))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "64:ff9b::5db8:d822"]
)
def test_public_addresses_and_this_machine_may_be_dialled(address: str) -> None:
    assert DEFAULT.permits(address)


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::", "2001:db8::1", "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::a00:1"),
        *("2002:a00:1::1", "64:ff9b::a9fe:a9fe", "not an address", ""),
    ],
)
def test_everything_else_may_not(address: str) -> None:
    assert not DEFAULT.permits(address)


def test_a_network_can_be_allowed_and_the_addresses_of_credentials_never() -> None:
    wide = AddressGuard(networks(["0.0.0.0/0", "::/0"]))
    assert wide.permits("10.0.0.1")
    assert wide.permits("fe80::1")
    for address in METADATA:
        assert not wide.permits(str(address))
    assert not wide.permits("::ffff:169.254.169.254")
    assert not AddressGuard(networks([])).permits("127.0.0.1")


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_each_of_its_ipv6_dresses(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    dressed = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    ]
    assert {inner(dress) for dress in dressed} == {address}
    assert {DEFAULT.permits(str(dress)) for dress in dressed} == {DEFAULT.permits(str(address))}
    assert not (is_public(address) and address.is_private)


class Names(asyncio.SelectorEventLoop):
    """A loop whose name server gives each name one answer after the other."""

    def __init__(self, answers: list[list[str]]) -> None:
        super().__init__()
        self._answers = answers
        self.dialled: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._answers.pop(0)]

    async def create_connection(self, _factory: Any, host: Any = None, _port: Any = None, **_: Any) -> Any:
        self.dialled.append(host)
        raise ConnectionRefusedError


def dial(answers: list[list[str]]) -> tuple[list[str], type[BaseException]]:
    loop = Names(answers)

    async def scene() -> type[BaseException]:
        upstreams = Upstreams(Limits(connect_retry_wait_s=1e-6), lambda *_: None, DEFAULT, SystemClock())
        with pytest.raises((Forbidden, Unreachable)) as caught:
            await upstreams.exchange(Origin("http", "models.example", 80), b"")
        assert upstreams.open == 0
        return caught.type

    try:
        return loop.dialled, loop.run_until_complete(scene())
    finally:
        loop.close()


def test_a_name_is_checked_again_at_every_new_connection() -> None:
    assert dial([["93.184.216.34"], ["10.0.0.1"]]) == (["93.184.216.34"], Forbidden)


def test_of_several_addresses_only_the_allowed_ones_are_dialled_as_literals() -> None:
    both = ["10.0.0.1", "93.184.216.34", "169.254.169.254", "93.184.216.35"]
    assert dial([both, both]) == (["93.184.216.34", "93.184.216.35"] * 2, Unreachable)


def test_nothing_is_dialled_where_no_address_is_allowed() -> None:
    assert dial([["169.254.169.254", "192.168.0.1"]]) == ([], Forbidden)
