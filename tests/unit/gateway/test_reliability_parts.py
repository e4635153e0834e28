"""What may be tried again, circuits, first events, limits of waits: each by itself."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.contract_reliability import Reliability, decode_reliability
from cohort.gateway.deadlines import Deadline, Deadlines, Expired
from cohort.gateway.keys import KeyMissing
from cohort.gateway.reliability.breakers import Breaker, Breakers, Circuit
from cohort.gateway.reliability.first_event import fault_of_first_event
from cohort.gateway.reliability.retrying import Fault, Slow, fault_of_error, fault_of_status, retry_after_s, wait_s
from cohort.gateway.upstream_connection import Broken, Invalid, NoAnswer, Overloaded, Unreachable

LIMITS = Reliability(backoff_s=0.1, retry_wait_s_max=2.0, breaker_failures=3, breaker_open_s=10.0)


@given(st.integers(1, 10), st.binary(min_size=4, max_size=4), st.none() | st.floats(0, 1e9))
def test_a_wait_is_random_below_a_doubling_ceiling_and_never_below_what_was_asked(tried: int, chance: bytes, asked_s: float | None) -> None:
    wait = wait_s(tried, asked_s, LIMITS, lambda _: chance)
    if asked_s is not None and asked_s > LIMITS.retry_wait_s_max:
        assert wait is None
        return
    assert wait is not None
    assert (asked_s or 0) <= wait <= max(min(0.1 * 2 ** (tried - 1), 2.0), asked_s or 0)


def test_full_jitter_reaches_both_ends() -> None:
    assert wait_s(1, None, LIMITS, lambda _: bytes(4)) == 0
    assert wait_s(3, None, LIMITS, lambda _: b"\xff" * 4) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ([(b"retry-after", b"3")], 3.0),
        ([(b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after", b"Wed, 21 Oct 2026 07:28:00 GMT")], None),
        ([(b"retry-after", b"9" * 40)], None),
        ([], None),
    ],
)
def test_retry_after_is_read_in_seconds(headers: list[tuple[bytes, bytes]], wait: float | None) -> None:
    assert retry_after_s(headers) == wait


def test_only_what_did_no_work_is_surely_asked_again() -> None:
    assert {s for s in range(100, 600) if fault_of_status(s) is Fault.REFUSED} == {408, 425, 429, 503, 529}
    assert {fault_of_status(s) for s in (200, 204, 400, 413, 422)} == {Fault.NONE}
    assert {fault_of_status(s) for s in (302, 401, 402, 403, 404)} == {Fault.ELSEWHERE}
    assert {fault_of_status(s) for s in (500, 502, 504, 599)} == {Fault.UNCERTAIN}
    assert fault_of_error(Unreachable("")) is Fault.REFUSED
    assert {fault_of_error(e) for e in (NoAnswer(""), Broken(""), Invalid(""))} == {Fault.UNCERTAIN}
    assert {fault_of_error(e) for e in (KeyMissing(""), Overloaded(""), Slow(""))} == {Fault.ELSEWHERE}


class Circle:
    """A breaker and the states it left and reached."""

    def __init__(self) -> None:
        self.changes: list[tuple[Circuit, Circuit]] = []
        self.breaker = Breaker("rel_1", "v1", "main", LIMITS, lambda breaker, before: self.changes.append((before, breaker.state)))

    def fail(self, now_s: float, slow: bool = False) -> None:
        self.breaker.failed(now_s, 7, slow=slow)


def test_a_circuit_opens_after_failures_in_a_row_and_one_probe_at_a_time_tries_it() -> None:
    circle = Circle()
    breaker = circle.breaker
    circle.fail(0)
    circle.fail(1)
    breaker.succeeded()
    for now_s in (2, 3):
        circle.fail(now_s)
    assert breaker.admits(3), "two in a row are not three"
    circle.fail(4)
    assert not breaker.admits(13.9)
    assert breaker.wait_s(10) == 4
    assert breaker.admits(14)
    breaker.begin()
    assert not breaker.admits(14), "one probe at a time"
    circle.fail(15)
    assert not breaker.admits(24)
    breaker.begin()
    breaker.left()
    assert breaker.admits(25), "a probe whose client left makes room for the next"
    breaker.begin()
    breaker.succeeded()
    assert (breaker.state, breaker.failures) == (Circuit.CLOSED, 0)
    assert circle.changes[0] == (Circuit.CLOSED, Circuit.OPEN)
    assert circle.changes[-1] == (Circuit.PROBING, Circuit.CLOSED)


@given(st.lists(st.sampled_from(["fail", "succeed", "leave", "begin"]), max_size=60))
def test_a_breaker_always_lets_a_probe_through_in_the_end(steps: list[str]) -> None:
    breaker, now_s = Circle().breaker, 0.0
    for step in steps:
        now_s += 1
        if step == "fail":
            breaker.failed(now_s, 0, slow=False)
        elif step == "succeed":
            breaker.succeeded()
        elif step == "leave":
            breaker.left()
        elif breaker.admits(now_s):
            breaker.begin()
            breaker.left()
    assert breaker.admits(now_s + LIMITS.breaker_open_s)
    assert (breaker.state is Circuit.CLOSED) or breaker.failures > 0


def test_breakers_outlive_tables_and_go_with_the_last_release_that_uses_them() -> None:
    known = Breakers()
    first = known.of("rel_1", "v1", "main", LIMITS)
    known.keep([first])
    first.failed(0, 7, slow=False)
    assert known.of("rel_1", "v1", "main", LIMITS) is first
    assert [(t.route, t.state, t.failures, t.since_us) for t in known.troubles()] == [("main", "closed", 1, 7)]
    known.keep([known.of("rel_2", "v2", "main", LIMITS)])
    assert known.of("rel_1", "v1", "main", LIMITS) is not first


@pytest.mark.parametrize(
    ("piece", "fault"),
    [
        (b'data: {"id":"c"}\n\n', Fault.NONE),
        (b'data: {"id":"c","usa', Fault.NONE),
        (b"dat", Fault.NONE),
        (b": keep-alive\n\n", Fault.NONE),
        (b"event: message_start\ndata: {}\n\n", Fault.NONE),
        (b"data: [DONE]\n\n", Fault.NONE),
        (b'data: {"id":"c","error":null}\n\n', Fault.NONE),
        (b'data: {"error":{"message":"no"}}\n\n', Fault.UNCERTAIN),
        (b'event: error\ndata: {"type":"error"}\n\n', Fault.UNCERTAIN),
    ],
)
def test_the_first_event_of_a_stream_is_looked_at(piece: bytes, fault: Fault) -> None:
    assert fault_of_first_event(piece) is fault


@pytest.mark.parametrize("piece", [b"<html>oops</html>", b'{"id":"c"}', b"data: {no\n\n", b"        "])
def test_what_is_no_stream_is_found_before_the_client_is_told_of_one(piece: bytes) -> None:
    with pytest.raises(Invalid):
        fault_of_first_event(piece)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_named_as_none(piece: bytes) -> None:
    try:
        fault_of_first_event(piece)
    except Invalid:
        return


def test_a_deadline_has_a_total_that_no_piece_of_an_answer_moves() -> None:
    deadline = Deadline(None, 10.0)
    assert deadline.overdue(10.0) is Expired.TOTAL
    assert deadline.overdue(5.0) is Expired.ATTEMPT
    deadline.answering(5.0, 2.0)
    assert (deadline.due_s, deadline.overdue(7.0)) == (7.0, Expired.IDLE)
    deadline.moved_s = 6.5
    assert (deadline.overdue(7.0), deadline.due_s) == (None, 8.5)
    deadline.moved_s = float("inf")
    assert (deadline.overdue(8.5), deadline.due_s) == (None, 10.0), "a slow client is not the upstream's silence"
    deadline.moved_s = 9.9
    assert deadline.overdue(10.0) is Expired.TOTAL


def test_a_loop_that_comes_late_once_is_not_overloaded_and_twice_is() -> None:
    async def scene() -> list[bool]:
        deadlines, seen = Deadlines(late_s=0.5), []
        for late_by_s in (1.0, 1.0, 0.0):
            deadlines._timer.cancel()
            deadlines._next_s = deadlines._loop.time() - late_by_s
            deadlines._tick()
            seen.append(deadlines.late)
        deadlines.close()
        return seen

    assert asyncio.run(scene()) == [False, True, False]


def test_a_section_of_a_table_is_read_or_its_field_named() -> None:
    assert decode_reliability(None) is None
    assert decode_reliability({"retries": 3}) == Reliability(retries=3)
    for wrong in ({"retries": 11}, {"backoff_s": float("nan")}, {"hedges": 1}, {"breaker_failures": 0}, {"idle_s": True}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            decode_reliability(wrong)
