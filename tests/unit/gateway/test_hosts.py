"""By which names callers may call the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.errors import CohortError
from cohort.gateway.hosts import KNOWN_MAX, Hosts, bracketed
from cohort.gateway.settings import load_settings
from support_gateway import GatewayProcess, write_config


@pytest.mark.parametrize(
    "host",
    [
        b"gateway",
        b"Gateway:8700",
        b"gateway.internal",
        b"[fd00::7]:80",
        b"10.1.2.3",
        b"localhost",
        b"[::1]:1",
        b"localhost.",
        b"gateway.:80",
    ],
)
def test_names_that_were_set_are_answered_beside_those_of_this_machine(host: bytes) -> None:
    hosts = Hosts(("gateway", "GATEWAY.internal", bracketed("fd00::7"), bracketed("10.1.2.3")), anybody=False)
    assert [hosts.answer(host), hosts.answer(host)] == [True, True]


@pytest.mark.parametrize(
    "host",
    [
        b"", b":80", b"gateway:", b"gateway:x", b"gateway:123456", b"gateway:80:80", b"gateway..", b".", b"x.gateway", b"gateway@evil.example",
        b"gateway, evil.example", b"evil.example, gateway", b"0.0.0.0", b"127.1", b"2130706433", b"[::ffff:127.0.0.1]", b"[::1", b"::1", b"\xff",
        b"[::1].evil.example", b"[::1]evil:80",
    ],
)  # fmt: skip
def test_everything_else_is_not(host: bytes) -> None:
    assert not Hosts(("gateway",), anybody=False).answer(host)


@given(st.binary(max_size=40))
def test_what_is_answered_is_a_known_name_and_perhaps_a_port(host: bytes) -> None:
    if Hosts((), anybody=False).answer(host):
        name = host.decode().lower()
        assert name.startswith(("localhost", "127.", "[::1]"))


def test_any_name_where_other_machines_are_meant_to_come() -> None:
    assert Hosts((), anybody=True).answer(b"anything.example")


def test_what_is_remembered_of_names_is_bounded() -> None:
    hosts = Hosts((), anybody=False)
    assert all(hosts.answer(b"127.0.0.1:%d" % port) for port in range(2 * KNOWN_MAX))
    assert len(hosts.known) <= KNOWN_MAX


@pytest.mark.parametrize("names", ["gateway", [""], ["gateway:80"], ["http://gateway"], [7], ["a b"], ["a"] * 101])
def test_a_name_that_is_none_is_refused_by_field(tmp_path: Path, names: object) -> None:
    with pytest.raises(CohortError) as caught:
        load_settings(write_config(tmp_path, hosts=names))
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "hosts")


def test_a_process_answers_for_the_names_it_was_told(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, hosts=["gateway.internal"])
    try:
        assert gateway.request("GET", "/metrics", Host="gateway.internal:8700")[0] == 200
        assert gateway.request("GET", "/metrics", Host="other.internal:8700")[0] == 421
    finally:
        gateway.close()


@pytest.mark.parametrize(("hosts", "status"), [([], 200), (["gateway.internal"], 421)])
def test_an_exposed_one_answers_by_any_name_unless_it_was_told_names(tmp_path: Path, hosts: list[str], status: int) -> None:
    gateway = GatewayProcess(tmp_path, hosts=hosts, expose=True)
    try:
        assert gateway.request("GET", "/health", Host="other.internal")[0] == status
    finally:
        gateway.close()
