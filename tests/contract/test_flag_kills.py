"""The kill list of flags: kept on both stores, in the gateway's table before the answer, in the audit log before it is done."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.errors import CohortError, Retry
from cohort.delivery.controller import RECONCILE_EVERY_S
from cohort.delivery.face import Flags
from cohort.delivery.flags import SqlFlags
from cohort.gateway.contract import GATEWAY_FLAGS, is_killed
from support_engine import House


class Log:
    """An audit log that may be away."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.away = False

    def __call__(self, body: Any) -> None:
        if self.away:
            raise CohortError("AUDIT_UNAVAILABLE", "the log is away", retry=Retry.SAFE, hint="Wait.")
        self.bodies.append(body)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def flags(house: House, log: Log) -> Flags:
    house.ready()
    return SqlFlags(house.database, house.reconciler, house.clock, log)


def killed(house: House) -> frozenset[str]:
    snapshot = house.gateway.snapshot
    assert snapshot is not None
    return snapshot.killed


def test_a_killed_flag_is_off_at_the_gateway_before_the_answer_and_on_again_after_restoring(house: House, flags: Flags, log: Log) -> None:
    done = flags.kill("routing.adaptive", False, "alice", "costs jump")
    assert done.confirmed
    assert killed(house) == {"routing.adaptive"}
    assert [(kill.flag, kill.reason, kill.killed_by) for kill in flags.list()] == [("routing.adaptive", "costs jump", "alice")]
    assert flags.restore("routing.adaptive", False, "bob", "over").items == ()
    assert killed(house) == frozenset()
    assert [(body["event"], body["flag"], body["actor"]) for body in log.bodies] == [
        ("flag_killed", "routing.adaptive", "alice"),
        ("flag_restored", "routing.adaptive", "bob"),
    ]


def test_a_prefix_kills_every_flag_that_begins_so(house: House, flags: Flags) -> None:
    flags.kill("cache", True, "alice", "")
    assert killed(house) == {"cache.exact", "cache.semantic"}
    assert [kill.flag for kill in flags.list()] == ["cache*"]


def test_killing_again_keeps_the_first_reason(flags: Flags) -> None:
    flags.kill("shadow", False, "alice", "first")
    assert [kill.reason for kill in flags.kill("shadow", False, "bob", "second").items] == ["first"]


def test_the_list_is_by_name_and_bounded(house: House, log: Log) -> None:
    house.ready()
    flags = SqlFlags(house.database, house.reconciler, house.clock, log, kills_max=2)
    flags.kill("shadow", False, "alice", "")
    flags.kill("cache", True, "alice", "")
    with pytest.raises(CohortError, match="holds 2 entries"):
        flags.kill("third", False, "alice", "")
    assert [kill.flag for kill in flags.list()] == ["cache*", "shadow"]


def test_the_list_survives_a_restart_of_control_and_a_rollback(house: House, flags: Flags) -> None:
    flags.kill("shadow", False, "alice", "")
    house.crash()
    house.gateway.restart()
    house.tick(2)
    assert killed(house) == {"shadow"}


def test_without_a_record_nothing_is_killed_or_restored(house: House, flags: Flags, log: Log) -> None:
    flags.kill("shadow", False, "alice", "")
    log.away = True
    for verb in (flags.kill, flags.restore):
        with pytest.raises(CohortError, match="the log is away"):
            verb("shadow" if verb == flags.restore else "cache.exact", False, "alice", "")
    assert [kill.flag for kill in flags.list()] == ["shadow"]
    assert killed(house) == {"shadow"}


def test_a_gateway_that_is_away_is_told_later(house: House, flags: Flags) -> None:
    house.gateway.reachable = False
    done = flags.kill("shadow", False, "alice", "")
    assert (done.confirmed, [kill.flag for kill in done.items]) == (False, ["shadow"])
    assert done.detail
    house.gateway.reachable = True
    house.clock.advance(RECONCILE_EVERY_S)
    house.tick()
    assert killed(house) == {"shadow"}


@pytest.mark.parametrize("name", ["", "*", "a*", " shadow", "x" * 129, "ß", "a\nb"])
def test_what_is_no_name_of_a_flag_is_refused(flags: Flags, name: str) -> None:
    with pytest.raises(CohortError) as caught:
        flags.kill(name, False, "alice", "")
    assert (caught.value.code, caught.value.field) == ("FIELD_INVALID", "flag")
    assert flags.list() == []


def test_what_is_not_killed_cannot_be_restored(flags: Flags) -> None:
    flags.kill("shadow", True, "alice", "")
    with pytest.raises(CohortError) as caught:
        flags.restore("shadow", False, "alice", "")
    assert caught.value.code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("killed", "prefix", "asked", "as_prefix", "fix"),
    [
        ("v4.1", True, "v4.1", False, "`cohort flag restore --prefix v4.1`"),
        ("v4.1", False, "v4.1", True, "`cohort flag restore v4.1`"),
        ("v4", True, "v4.1", False, "off by v4*: `cohort flag restore --prefix v4`"),
        ("v4", False, "v5", False, "`cohort flag list`"),
    ],
)
def test_who_restores_by_another_form_is_told_the_command(
    flags: Flags, killed: str, prefix: bool, asked: str, as_prefix: bool, fix: str
) -> None:
    flags.kill(killed, prefix, "alice", "")
    with pytest.raises(CohortError) as caught:
        flags.restore(asked, as_prefix, "alice", "")
    assert (caught.value.code, fix in (caught.value.hint or "")) == ("NOT_FOUND", True)


@given(st.sampled_from(sorted(GATEWAY_FLAGS)), st.integers(0, 20))
def test_a_flag_is_killed_by_itself_and_by_every_beginning_of_it(flag: str, length: int) -> None:
    assert is_killed(flag, ["other", flag])
    assert is_killed(flag, [flag[:length] + "*"])
    assert not is_killed(flag, [flag + "x", flag + "x*", flag[:-1]])
