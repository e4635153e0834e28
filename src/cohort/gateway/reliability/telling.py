"""What the record of a call says of its attempts. Nothing is told of the only one that answered over a connection that was there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cohort.gateway.contract_trace import ASKED_NOTHING
from cohort.gateway.keys import KeyMissing
from cohort.gateway.reliability.retrying import Fault, Slow
from cohort.gateway.upstream_connection import Broken, Forbidden, Invalid, NoAnswer, Overloaded, Unreachable

if TYPE_CHECKING:
    from cohort.gateway.compiled import Target
    from cohort.gateway.reliability.attempts import Answer, Asking

_ENDED: dict[type[Exception], str] = {
    Unreachable: "unreachable",
    Overloaded: "overloaded",
    Forbidden: "forbidden",
    NoAnswer: "no_answer",
    Broken: "interrupted",
    Invalid: "invalid",
    KeyMissing: "key_missing",
    Slow: "timeout",
}


def tell_answer(asking: Asking, target: Target, answer: Answer, now_s: float) -> None:
    """The attempt under way was answered, well or not."""
    status = answer.connection.status
    well = 200 <= status < 300
    ended = "status" if not well else "ok" if answer.fault is Fault.NONE else "event"
    _tell(asking, target, ended, None if ended == "ok" and answer.flow is not None else now_s, status)


def tell_failure(asking: Asking, target: Target, error: Exception, now_s: float) -> None:
    """The attempt under way came to nothing."""
    _tell(asking, target, _ENDED.get(type(error), "failed"), now_s)


def tell_end(asking: Asking, target: Target, now_s: float) -> None:
    """The attempt under way was cancelled: its time is over, another was quicker, or the client left."""
    if asking.number > 1 or asking.hedged or asking.ongoing.tries is not None:
        _tell(asking, target, "given_up" if asking.deadline.expired is None else "timeout", now_s)


def tell_passed_over(asking: Asking, targets: Iterable[Target], why: str, now_s: float) -> None:
    """Routes that were not asked at all."""
    start_us = int((now_s - asking.ongoing.started_s) * 1e6)
    for target in targets:
        asking.ongoing.tried((ASKED_NOTHING, target.route, start_us, 0, why))


def _tell(asking: Asking, target: Target, ended: str, now_s: float | None, status: int = 0) -> None:
    """`now_s` None: it goes on until the call ends."""
    began_s, ongoing = asking.began_s, asking.ongoing
    total_us = None if now_s is None else int((now_s - began_s) * 1e6)
    first_us = int((asking.head_s - began_s) * 1e6) if asking.head_s else None
    waits = (int(asking.wait_s * 1e6), int(asking.connect_s * 1e6), asking.hedged)
    ongoing.tried((asking.number, target.route, int((began_s - ongoing.started_s) * 1e6), total_us, ended, status, first_us, *waits))
