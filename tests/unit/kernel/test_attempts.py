"""Counting wrong attempts per source."""

from __future__ import annotations

import pytest

from cohort.base.errors import CohortError
from cohort.kernel import attempts
from cohort.kernel.attempts import Attempts


def locked(subject, source) -> bool:
    try:
        subject.check(source)
    except CohortError as error:
        return error.code == "TOO_MANY_ATTEMPTS"
    return False


@pytest.fixture
def subject(clock) -> Attempts:
    return Attempts(clock)


def fail(subject, source, times=attempts.FAILURES_MAX):
    for _ in range(times):
        subject.failed(source)


def test_a_few_failures_are_forgiven(subject):
    fail(subject, "a", attempts.FAILURES_MAX - 1)
    assert not locked(subject, "a")


def test_too_many_lock_the_source_and_no_other(subject):
    fail(subject, "a")
    assert locked(subject, "a")
    assert not locked(subject, "b")


def test_the_lock_ends(subject, clock):
    fail(subject, "a")
    clock.advance(attempts.LOCK_S - 0.5)
    assert locked(subject, "a")
    clock.advance(0.5)
    assert not locked(subject, "a")


def test_slow_failures_never_lock(subject, clock):
    for _ in range(3 * attempts.FAILURES_MAX):
        fail(subject, "a", 1)
        clock.advance(attempts.LOCK_S)
    assert not locked(subject, "a")


def test_success_forgives(subject):
    fail(subject, "a", attempts.FAILURES_MAX - 1)
    subject.succeeded("a")
    fail(subject, "a", 1)
    assert not locked(subject, "a")


def test_memory_is_bounded_and_the_newest_are_kept(subject):
    fail(subject, "old")
    for number in range(attempts.SOURCES_MAX):
        subject.failed(f"source {number}")
    assert not locked(subject, "old")
    assert len(subject._records) == attempts.SOURCES_MAX
