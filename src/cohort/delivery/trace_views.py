"""What happened to one call, as bars on one line of time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cohort.delivery.traces import ids_of
from cohort.gateway.contract import Call, Result
from cohort.gateway.contract_trace import ASKED_NOTHING, Attempt, parent_of

ENDINGS = {
    "ok": "answered",
    "event": "the stream began with an error",
    "unreachable": "no connection",
    "overloaded": "no free connection",
    "forbidden": "an address that is not allowed",
    "no_answer": "closed without an answer",
    "interrupted": "broke off",
    "invalid": "not an answer that can be passed on",
    "key_missing": "no key for the upstream",
    "timeout": "too slow",
    "given_up": "given up",
    "circuit_open": "not asked: its circuit is open",
    "impossible": "not asked: it has no such operation",
}


class Kind(StrEnum):
    STEP = "step"
    WAIT = "wait"
    ATTEMPT = "attempt"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Bar:
    """Microseconds from the call's assignment. `good`: None where it cannot be good or bad. `connect_us`, `first_us`: of an attempt, from its start."""

    kind: Kind
    name: str
    start_us: int
    total_us: int
    words: str = ""
    good: bool | None = None
    connect_us: int = 0
    first_us: int | None = None
    attempt: Attempt | None = None  # what a bar of an attempt is made of


@dataclass(frozen=True, slots=True)
class Timeline:
    """From `from_us` (0, or before it where the request was looked at for long) to `to_us`, the call's last byte. `parent_id`: the caller's span, if it said."""

    trace_id: str
    span_id: str
    parent_id: str
    from_us: int
    to_us: int
    bars: tuple[Bar, ...]


def timeline_of(call: Call) -> Timeline:
    """Bars in the order in which they begin."""
    bars = sorted([*_steps(call), *_attempts(call), *_passed_on(call)], key=lambda bar: bar.start_us)
    ids, parent = ids_of(call), parent_of(call.parent)
    to_us = max([call.total_us or 0, 1, *(bar.start_us + bar.total_us for bar in bars)])
    from_us = min([0, *(bar.start_us for bar in bars)])
    return Timeline(ids.trace_id, ids.span_id, parent.span_id if parent is not None else "", from_us, to_us, tuple(bars))


def _steps(call: Call) -> Iterator[Bar]:
    for step in call.steps:
        words = {"cache": _cache_words(call), "budget": _budget_words(call), "routing": _routing_words(call)}.get(step.name, "")
        yield Bar(Kind.STEP, step.name, step.start_us, step.total_us, words)


def _attempts(call: Call) -> Iterator[Bar]:
    if not call.tries and call.attempts == 1 and not call.cache:
        yield _only(call)
    for attempt in call.tries:
        if attempt.wait_us:
            yield Bar(Kind.WAIT, "wait", attempt.start_us - attempt.wait_us, attempt.wait_us, "before trying again")
        yield _attempt(call, attempt)


def _attempt(call: Call, attempt: Attempt) -> Bar:
    number = f"{attempt.number}. " if attempt.number != ASKED_NOTHING else ""
    if attempt.total_us is not None:
        total_us = attempt.total_us
    else:
        total_us = max((call.first_us if call.first_us is not None else call.total_us or 0) - attempt.start_us, 0)
    words = f"status {attempt.status}" if attempt.ended == "status" else ENDINGS.get(attempt.ended, attempt.ended)
    words += ", asked beside others" if attempt.hedged else ""
    good = True if attempt.ended == "ok" else None if attempt.number == ASKED_NOTHING or attempt.ended == "given_up" else False
    name = f"{number}{attempt.route}"
    return Bar(Kind.ATTEMPT, name, attempt.start_us, total_us, words, good, attempt.connect_us, attempt.first_us, attempt)


def _only(call: Call) -> Bar:
    """The one attempt of a call that has nothing to tell of it: from the last step on, until the first byte went to the client."""
    start_us = max([0, *(step.start_us + step.total_us for step in call.steps)])
    end_us = call.first_us if call.first_us is not None else call.total_us or 0
    good = call.result is Result.OK
    words = "answered" if good else f"{call.result.value.replace('_', ' ')}, status {call.status}"
    total_us = max(end_us - start_us, 0)
    attempt = Attempt(1, call.route, start_us, None if good and call.stream else total_us, "ok" if good else call.result.value, call.status)
    return Bar(Kind.ATTEMPT, f"1. {call.route}", start_us, total_us, words, good, attempt=attempt)


def _passed_on(call: Call) -> Iterator[Bar]:
    if call.stream and call.first_us is not None and call.total_us is not None and not call.cache:
        good = None if call.result is Result.OK else False
        words = "" if good is None else call.result.value.replace("_", " ")
        yield Bar(Kind.ANSWER, "passing on", call.first_us, max(call.total_us - call.first_us, 0), words, good)


def _cache_words(call: Call) -> str:
    if call.answered_from_cache:
        saved = f", ${call.saved_usd_micro / 1e6:.6f} saved" if call.saved_usd_micro else ""
        return f"answered from {call.cache}{saved}"
    return "nothing kept" if call.looked == "miss" or call.cache else "took no part"


def _budget_words(call: Call) -> str:
    if call.held_usd_micro is None:
        return "rate only"
    settled = f", ${call.cost_usd_micro / 1e6:.6f} settled" if call.cost_usd_micro is not None else ""
    return f"${call.held_usd_micro / 1e6:.6f} held{settled}"


def _routing_words(call: Call) -> str:
    model = "strong" if call.strong else "weak"
    if call.difficulty is None or call.boundary is None:
        return f"{model} model, as the release says"
    return f"{model} model: difficulty {call.difficulty:.2f}, boundary {call.boundary:.2f} ({call.bucket})"
