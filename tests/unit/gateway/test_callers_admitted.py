"""Who is let in by which key, and what wrong keys lead to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.gateway.contract_spend import ClientKey
from cohort.gateway.dialects.face import Refused
from cohort.gateway.log import Log
from cohort.gateway.shared.face import open_shared
from cohort.gateway.spend.callers import Callers, Guard, compile_keys
from cohort.gateway.spend.lockout import ADDRESSES_MAX, FAILURES_MAX, LOCK_S, Lockout

TEXT = "cgk_" + "a" * 43


def key(text: str = TEXT, **terms: object) -> ClientKey:
    return ClientKey("cgk_1", "shop", hashlib.sha256(text.encode()).hexdigest(), **terms)  # type: ignore[arg-type]


def guard(clock: ManualClock, *keys: ClientKey, required: bool = True, exposed: bool = False) -> Guard:
    table: tuple[Callers, bool] = (compile_keys(keys), required)
    return Guard(lambda: table, clock, exposed)


def bearer(text: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + text.encode()}


def refusal(door: Guard, headers: dict[bytes, bytes], peer: str = "10.0.0.1") -> Refused:
    with pytest.raises(Refused) as caught:
        door.admit(headers, peer)
    return caught.value


def test_without_keys_everybody_on_this_machine_is_let_in(clock: ManualClock) -> None:
    assert guard(clock, required=False).admit({}, "127.0.0.1") is None


def test_an_exposed_gateway_without_keys_lets_nobody_in(clock: ManualClock) -> None:
    refused = refusal(guard(clock, required=False, exposed=True), {})
    assert (refused.status, refused.code) == (401, "key_missing")
    assert "cohort gateway key create" in refused.message


def test_when_the_last_key_is_revoked_nobody_is_let_in(clock: ManualClock) -> None:
    assert refusal(guard(clock, required=True), bearer(TEXT)).status == 401


@pytest.mark.parametrize("header", [(b"authorization", b"bearer "), (b"x-api-key", b""), (b"api-key", b"")])
def test_a_key_is_taken_as_each_dialect_sends_it(clock: ManualClock, header: tuple[bytes, bytes]) -> None:
    caller = guard(clock, key()).admit({header[0]: header[1] + TEXT.encode()}, "10.0.0.1")
    assert caller is not None
    assert caller.key.name == "shop"


@pytest.mark.parametrize("sent", [{}, {b"authorization": b"Basic " + TEXT.encode()}, {b"authorization": b"Bearer "}])
def test_no_key_is_asked_for(clock: ManualClock, sent: dict[bytes, bytes]) -> None:
    refused = refusal(guard(clock, key()), sent)
    assert (refused.status, refused.code, refused.headers) == (401, "key_missing", b"www-authenticate: Bearer\r\n")


def test_a_wrong_key_is_not_repeated_in_the_answer(clock: ManualClock) -> None:
    refused = refusal(guard(clock, key()), bearer("cgk_secret-of-somebody"))
    assert (refused.status, refused.code) == (401, "invalid_api_key")
    assert "somebody" not in refused.message


def test_a_key_ends_at_its_end(clock: ManualClock) -> None:
    door = guard(clock, key(expires_us=clock.now_us() + 1_000_000))
    assert door.admit(bearer(TEXT), "10.0.0.1") is not None
    clock.advance(1)
    assert refusal(door, bearer(TEXT)).code == "key_expired"


def test_a_key_may_only_call_its_services(clock: ManualClock) -> None:
    caller = guard(clock, key(services=("support",))).admit(bearer(TEXT), "10.0.0.1")
    assert caller is not None
    caller.check("support")
    with pytest.raises(Refused) as caught:
        caller.check("billing")
    assert (caught.value.status, caught.value.code) == (403, "service_not_allowed")


def test_many_wrong_keys_lock_their_address_out_even_with_a_right_one(clock: ManualClock) -> None:
    door = guard(clock, key())
    for number in range(FAILURES_MAX):
        assert refusal(door, bearer(f"wrong-{number}")).status == 401
    refused = refusal(door, bearer(TEXT))
    assert (refused.status, refused.code, refused.headers) == (429, "too_many_attempts", b"retry-after: 60\r\n")
    assert door.admit(bearer(TEXT), "10.0.0.2") is not None
    clock.advance(LOCK_S)
    assert door.admit(bearer(TEXT), "10.0.0.1") is not None


def test_a_key_that_was_good_from_an_address_is_not_locked_out_by_others_there(clock: ManualClock) -> None:
    door = guard(clock, key())
    assert door.admit(bearer(TEXT), "10.0.0.1") is not None
    for _ in range(FAILURES_MAX):
        refusal(door, bearer("wrong"))
    assert door.admit(bearer(TEXT), "10.0.0.1") is not None
    assert refusal(door, bearer("wrong")).status == 429


def test_asking_whether_a_key_is_known_counts_nothing(clock: ManualClock) -> None:
    door = guard(clock, key(expires_us=clock.now_us() + 1_000_000))
    assert [door.knows(bearer("foreign")) for _ in range(FAILURES_MAX)] == [False] * FAILURES_MAX
    assert not door.lockout.any
    assert (door.knows(bearer(TEXT)), door.knows({})) == (True, False)
    clock.advance(1)
    assert not door.knows(bearer(TEXT)), "it has ended"


def test_a_key_is_known_where_none_is_needed_and_before_a_table_came_only_to_this_machine(clock: ManualClock) -> None:
    assert guard(clock, required=False).knows({})
    assert not guard(clock, required=False, exposed=True).knows({})
    assert [Guard(lambda: None, clock, exposed).knows(bearer(TEXT)) for exposed in (False, True)] == [True, False]


def test_addresses_of_one_ipv6_network_count_together(clock: ManualClock) -> None:
    lockout = Lockout(clock)
    for number in range(FAILURES_MAX):
        lockout.failed(f"2001:db8:1:2::{number:x}")
    assert lockout.wait_s("2001:db8:1:2:ffff::1") == LOCK_S
    assert lockout.wait_s("2001:db8:1:3::1") == 0


def test_the_table_of_addresses_is_bounded_and_forgets(clock: ManualClock) -> None:
    lockout = Lockout(clock)
    for number in range(ADDRESSES_MAX + 3000):
        lockout.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert ADDRESSES_MAX * 0.8 < lockout.addresses <= ADDRESSES_MAX
    clock.advance(LOCK_S)
    lockout.forget_old()
    assert not lockout.any
    assert lockout.addresses == 0


def test_failures_at_one_worker_lock_out_at_all_and_a_key_that_one_knows_is_known_to_all(clock: ManualClock, tmp_path: Path) -> None:
    table: tuple[Callers, bool] = (compile_keys([key()]), True)
    doors = [Guard(lambda: table, clock, False, open_shared(tmp_path, clock, Log("gw", clock)).lockout) for _ in range(3)]
    assert doors[0].admit(bearer(TEXT), "10.0.0.1") is not None
    for number in range(FAILURES_MAX):
        assert refusal(doors[number % 3], bearer(f"wrong-{number}")).status == 401
    for door in doors:
        assert refusal(door, bearer("wrong")).code == "too_many_attempts"
        assert door.admit(bearer(TEXT), "10.0.0.1") is not None, "it was good at one of them before"
        assert door.admit(bearer(TEXT), "10.0.0.2") is not None
        assert door.lockout.addresses == 1
    clock.advance(LOCK_S)
    assert refusal(doors[1], bearer("wrong")).status == 401


def test_a_lockout_of_another_boot_is_over(clock: ManualClock, tmp_path: Path) -> None:
    before = open_shared(tmp_path, clock, Log("gw", clock)).lockout
    for _ in range(FAILURES_MAX):
        before.failed("10.0.0.1")
    assert before.wait_s("10.0.0.1") == LOCK_S
    earlier = ManualClock(1_000_000)
    after = open_shared(tmp_path, earlier, Log("gw", earlier)).lockout
    assert after.wait_s("10.0.0.1") == 0
    after.failed("10.0.0.1")
    assert after.wait_s("10.0.0.1") == 0
    assert after.addresses == 1


def test_an_exposed_gateway_without_a_table_lets_nobody_in(clock: ManualClock) -> None:
    assert Guard(lambda: None, clock, exposed=False).admit({}, "127.0.0.1") is None
    assert refusal(Guard(lambda: None, clock, exposed=True), bearer(TEXT)).code == "not_ready"
