"""Small promises of retries, breakers, the memory of answers and translations, each at its edge."""

from __future__ import annotations

import json
from typing import Any

from cohort.base.clock import ManualClock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.memory import ENTRY_BYTES, Memory
from cohort.gateway.contract_reliability import Reliability
from cohort.gateway.dialects.chat_from_messages import completion_of
from cohort.gateway.dialects.face import Chat
from cohort.gateway.dialects.operations import CHAT
from cohort.gateway.reliability.breakers import Breaker
from cohort.gateway.reliability.retrying import wait_s


def test_an_upstream_that_asks_for_no_wait_gets_the_random_one() -> None:
    limits = Reliability(backoff_s=1.0, retry_wait_s_max=8.0)
    longest = wait_s(1, 0.0, limits, lambda size: b"\xff" * size)
    assert longest is not None
    assert longest > 0.9
    assert wait_s(1, 3.0, limits, lambda size: b"\xff" * size) == 3.0
    assert wait_s(1, 9.0, limits, lambda size: b"\xff" * size) is None


def test_trouble_is_since_its_first_failure() -> None:
    breaker = Breaker("rel_a", "1", "main")
    for number in (1, 2, 3):
        breaker.failed(float(number), number, slow=False)
    assert (breaker.trouble().failures, breaker.since_us) == (3, 1)
    breaker.succeeded()
    breaker.failed(9.0, 9, slow=False)
    assert breaker.since_us == 9


def test_an_answer_is_old_the_moment_after_its_age(clock: ManualClock) -> None:
    memory = Memory(10_000, 10, clock)
    assert memory.keep(b"k", Answer(b"{}", True), "u", 60.0)
    clock.advance(10.0)
    assert memory.find(b"k", 10.0) is not None
    clock.advance(0.5)
    assert memory.find(b"k", 10.0) is None
    assert memory.find(b"k") is not None


def test_what_is_held_elsewhere_for_an_answer_takes_room(clock: ManualClock) -> None:
    memory = Memory(10_000, 10, clock)
    memory.keep(b"k", Answer(b"{}", True), "u", 60.0, extra_bytes=700)
    assert memory.used_bytes == 2 + ENTRY_BYTES + 700
    memory.forget(b"k")
    assert memory.used_bytes == 0


def test_a_translated_answer_names_the_model_that_gave_it() -> None:
    call = Chat(b"{}", {}, "well", False, CHAT, {})
    message: dict[str, Any] = {"id": "msg_1", "model": "big-2026", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
    assert json.loads(completion_of(call, json.dumps(message).encode())[0])["model"] == "big-2026"
    del message["model"]
    assert json.loads(completion_of(call, json.dumps(message).encode())[0])["model"] == "well"
