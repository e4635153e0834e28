"""When a dead process is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cohort.ops.restarts import DELAY_MAX_S, QUICK_DEATHS_MAX, QUICK_S, RETRY_S, after_death


def test_a_process_that_lived_long_is_started_at_once_and_starts_with_a_clean_record() -> None:
    restart = after_death(QUICK_S, quick_deaths=4)
    assert (restart.delay_s, restart.quick_deaths, restart.given_up) == (0.0, 0, False)


def test_quick_deaths_wait_longer_each_time_and_then_give_up() -> None:
    delays, count = [], 0
    for _ in range(QUICK_DEATHS_MAX - 1):
        restart = after_death(0.5, count)
        delays.append(restart.delay_s)
        count = restart.quick_deaths
        assert not restart.given_up
    assert delays == [0.1, 0.2, 0.4, 0.8]
    last = after_death(0.5, count)
    assert (last.given_up, last.delay_s) == (True, RETRY_S)


def test_a_process_that_is_killed_while_it_works_is_never_given_up() -> None:
    count, delays = 0, []
    for _ in range(3 * QUICK_DEATHS_MAX):
        restart = after_death(0.5, count, killed=True)
        count = restart.quick_deaths
        delays.append(restart.delay_s)
        assert not restart.given_up
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert 1.0 < delays[-1] == max(delays) <= DELAY_MAX_S


@given(lived=st.floats(0, 1e6), quick=st.integers(0, 10_000), killed=st.booleans())
def test_a_delay_is_always_bounded(lived: float, quick: int, killed: bool) -> None:
    restart = after_death(lived, quick, killed=killed)
    assert 0 <= restart.delay_s <= (RETRY_S if restart.given_up else DELAY_MAX_S)
