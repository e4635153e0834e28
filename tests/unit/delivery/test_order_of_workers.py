"""Evidence keeps the order of assignment when several workers report: nobody is judged before every worker was heard up to that moment."""

from __future__ import annotations

from typing import Any

from cohort.delivery.intake import Live
from cohort.delivery.plans import PRESETS
from cohort.delivery.taps import SETTLE_US, Tap
from cohort.gateway.contract import Arm, Batch, Call, Cursor


def call(gateway: str, at_us: int, kind: str = "call") -> Call:
    return Call(kind, gateway, 1, at_us, at_us, "s", "rel_a", f"u{at_us}", Arm.STABLE, "ro", 1, 0.5)


def live(*calls: Call) -> Live:
    made = Live.__new__(Live)
    made.plan, made.position, made.open, made.waiting, made._epochs = PRESETS["fast-10-50-100"], None, {}, {}, {}
    for each in calls:
        made.receive(each)
    return made


def moments(groups: list[list[Call]]) -> list[int]:
    return [group[0].at_us for group in groups]


def test_what_a_silent_worker_may_still_report_is_waited_for() -> None:
    found = live(call("gw", 10), call("gw", 30), call("gw", 50))
    assert moments(found.ready(complete_us=30)) == [10]
    found.receive(call("gw-2", 20))
    assert moments(found.ready(complete_us=31)) == [20, 30]
    assert moments(found.ready(complete_us=None)) == [50]


def test_an_open_call_of_one_worker_holds_back_the_later_ones_of_the_other() -> None:
    found = live(call("gw-2", 20, "assigned"), call("gw", 10), call("gw", 30))
    assert moments(found.ready(complete_us=100)) == [10]
    found.receive(call("gw-2", 20))
    assert moments(found.ready(complete_us=100)) == [20, 30]


class Reports:
    """A worker that reports what it is given."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = list(batches)

    def pull(self, _after: Cursor, **_: Any) -> Batch:
        return self.batches.pop(0)


def batch(behind: int, *at_us: int) -> Batch:
    return Batch("gw", 1, tuple(call("gw", at) for at in at_us), Cursor(1, 1), behind)


def test_a_worker_is_heard_up_to_its_last_record_or_up_to_now_when_nothing_is_left() -> None:
    tap = Tap(Reports(batch(500, 10, 20), batch(500), batch(0), batch(500, 30)))  # type: ignore[arg-type]
    heard = []
    for now_us in (1_000_000, 2_000_000, 3_000_000, 4_000_000):
        tap.pull(0, now_us)
        heard.append(tap.complete_us)
    assert heard == [20, 20, 3_000_000 - SETTLE_US, 3_000_000 - SETTLE_US]
