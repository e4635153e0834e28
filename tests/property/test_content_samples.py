"""What a sample keeps, for any request and any answer: never more than its limit, never a planted number, never an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.gateway.personal.detector import Detector
from cohort.gateway.telemetry.content_text import TEXT_CHARS_MAX, answered_text, kept_request, kept_text

CARD = "4111 1111 1111 1111"
DETECTOR = Detector()
WORDS = (
    "role",
    "content",
    "text",
    "type",
    "tool_calls",
    "function",
    "arguments",
    "choices",
    "delta",
    "message",
    "messages",
    "input",
    "partial_json",
)
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=20)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4), max_leaves=25
)
objects = st.dictionaries(st.sampled_from(WORDS), anything, max_size=5)


def redact(text: str) -> tuple[str, Mapping[str, int]]:
    return DETECTOR.redact(text)


@settings(max_examples=200)
@given(objects, st.integers(1, 400))
def test_any_request_is_taken_within_its_limit(fields: dict[str, Any], limit: int) -> None:
    rows, _ = kept_request(fields, redact, limit)
    kept = [row["text"].removesuffix(" [cut]") for row in rows if row["role"]]
    assert sum(len(text.encode()) for text in kept) <= limit
    assert all(set(row) == {"role", "text"} for row in rows)


@settings(max_examples=200)
@given(st.lists(objects, max_size=4), st.booleans(), st.binary(max_size=20))
def test_any_answer_is_taken(events: list[dict[str, Any]], streamed: bool, noise: bytes) -> None:
    lines = [b"data: " + json.dumps(event).encode() for event in events]
    assert isinstance(answered_text(b"\n\n".join([*lines, noise]) if streamed else lines[0][6:] if lines else noise, streamed), str)


@settings(max_examples=100)
@given(st.text(alphabet="ab \n", max_size=80), st.text(alphabet="ab \n", max_size=80), st.integers(1, 120))
def test_a_number_is_taken_out_wherever_the_cut_falls(before: str, after: str, limit: int) -> None:
    kept, _ = kept_text(f"{before} {CARD} {after}", redact, limit)
    assert "4111" not in kept
    assert len(kept.removesuffix(" [cut]").encode()) <= limit


def test_a_text_that_is_not_looked_through_is_not_kept() -> None:
    kept, _ = kept_text(CARD + "x" * TEXT_CHARS_MAX, redact, 4096)
    assert "4111" not in kept


@settings(max_examples=100)
@given(st.lists(st.integers(1, 5), min_size=4, max_size=19), st.sampled_from(["choice", "block", "call"]))
def test_a_number_that_comes_beside_another_answer_is_found_all_the_same(steps: list[int], kind: str) -> None:
    events, at = [], 0
    while at < len(CARD):
        size = steps[len(events) // 2 % len(steps)]
        events += [_event(kind, 0, CARD[at : at + size]), _event(kind, 1, "and ")]
        at += size
    said = answered_text(b"\n\n".join(b"data: " + json.dumps(event).encode() for event in events), streamed=True)
    assert "and and" in said
    assert redact(said)[1] == {"card": 1}


def _event(kind: str, index: int, text: str) -> dict[str, Any]:
    if kind == "block":
        return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}
    call = {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
    return {"choices": [{"index": 0, "delta": call} if kind == "call" else {"index": index, "delta": {"content": text}}]}
