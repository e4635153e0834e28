"""Personal data where a line begins, and in texts that look like something else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cohort.gateway.dialects.openai_same import parse_chat
from cohort.gateway.dialects.operations import CHAT, operations
from cohort.gateway.personal.guard import guard_of

UNUSED: Any = None
SSN, CARD, IP = "123-45-6789", "4111 1111 1111 1111", "8.8.8.8"


def sent(text: str) -> str:
    guard = guard_of("redact", ("card", "email", "iban", "ip", "phone", "secret", "ssn"))
    assert guard is not None
    body = {"model": "well", "messages": [{"role": "user", "content": text}]}
    made = guard.apply(parse_chat(CHAT, json.dumps(body).encode()), lambda *_: None)
    return str(json.loads(made.body)["messages"][0]["content"])


@pytest.mark.parametrize("before", ["\n", "\t", "\r", "\f", "\b", "\\", "\\\\", '"', "C:\\", "\\n\n"])
@pytest.mark.parametrize("found", [SSN, CARD, IP, "AKIAABCDEFGHIJKLMNOP", "rk_" + "a" * 30, "DE89370400440532013000"])
def test_what_begins_a_line_is_found(before: str, found: str) -> None:
    assert found not in sent(f"see{before}{found}")


@pytest.mark.parametrize("text", [f"data: my number is {SSN}", f"data:,{SSN}", f"data:text/plain;base64,{SSN} and more"])
def test_a_text_that_only_begins_like_a_file_is_looked_through(text: str) -> None:
    assert SSN not in sent(text)


def test_a_file_stays_as_it_is() -> None:
    text = "data:image/png;base64,4111111111111111"
    assert sent(text) == text


class Kept:
    """One response that was kept."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)

    def get(self, _response_id: str) -> dict[str, Any] | None:
        return {"unit": "a" * 32, "owner": "", "messages": self._messages, "response": {}}

    def now_s(self) -> float:
        return 0.0

    def keep(self, *_: Any) -> None:
        raise AssertionError("nothing is kept here")


def test_a_conversation_that_is_kept_is_looked_through_with_every_turn() -> None:
    memory = Kept({"role": "user", "content": f"I am {SSN}"}, {"role": "assistant", "content": "Hello."})
    operation = operations(memory, UNUSED, lambda: "resp_" + "b" * 32)[b"/v1/responses"]
    body = {"model": "well", "input": "And now?", "previous_response_id": "resp_" + "c" * 32}
    guard = guard_of("redact", ("ssn",))
    assert guard is not None
    made = guard.apply(operation.parse(operation, json.dumps(body).encode()), lambda *_: None)
    assert made.turn is not None
    assert SSN not in json.dumps(made.fields)
    assert SSN not in json.dumps(made.turn.messages)
    assert "[ssn]" in json.dumps(made.turn.messages)


def test_what_is_no_name_of_the_protocol_is_looked_through() -> None:
    guard = guard_of("redact", ("ssn",))
    assert guard is not None
    body = {"model": "well", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "id": {"of": SSN}}]}]}
    made = guard.apply(parse_chat(CHAT, json.dumps(body).encode()), lambda *_: None)
    assert SSN not in made.body.decode()
