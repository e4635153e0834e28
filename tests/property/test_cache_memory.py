"""L1 beside a model of what it promises: never over its bounds, never past its time, and only what was kept comes back."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cohort.base.clock import ManualClock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.memory import ENTRY_BYTES, Memory

KEYS = st.sampled_from([bytes([n]) for n in range(12)])
UNITS = st.sampled_from(["a", "b", "c"])
BYTES_MAX, ENTRIES_MAX = 6 * ENTRY_BYTES, 5


class MemoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.memory = Memory(BYTES_MAX, ENTRIES_MAX, self.clock)
        self.kept: dict[bytes, tuple[bytes, str, float, float]] = {}  # body, unit, made, expires

    @rule(
        key=KEYS,
        size=st.integers(0, 3 * ENTRY_BYTES),
        unit=UNITS,
        ttl_s=st.integers(1, 60),
        age_s=st.integers(0, 70),
        cost=st.integers(0, 5000),
    )
    def keep(self, key: bytes, size: int, unit: str, ttl_s: int, age_s: int, cost: int) -> None:
        body = key * size
        done = self.memory.keep(key, Answer(body, True, cost), unit, ttl_s, age_s)
        assert done == (age_s < ttl_s and size + ENTRY_BYTES <= BYTES_MAX)
        self.kept.pop(key, None)
        if done:
            now_s = self.clock.monotonic_s()
            self.kept[key] = (body, unit, now_s - age_s, now_s - age_s + ttl_s)
            assert self.memory.find(key) is not None, "what was kept last is there"

    @rule(key=KEYS, age_max_s=st.none() | st.integers(0, 60))
    def find(self, key: bytes, age_max_s: int | None) -> None:
        found = self.memory.find(key, age_max_s)
        if found is None:
            return
        body, unit, made_s, expires_s = self.kept[key]
        assert (found.answer.body, found.unit) == (body, unit)
        assert self.clock.monotonic_s() < expires_s
        assert age_max_s is None or self.clock.monotonic_s() - made_s <= age_max_s

    @rule(seconds=st.integers(0, 40))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(unit=UNITS)
    def erase(self, unit: str) -> None:
        held = sum(kept.unit == unit for kept in self.memory)
        assert self.memory.erase(unit) == held
        assert not any(kept.unit == unit for kept in self.memory)

    @rule()
    def sweep(self) -> None:
        self.memory.sweep()
        assert all(self.clock.monotonic_s() < kept.expires_s for kept in self.memory)

    @rule(key=KEYS)
    def forget(self, key: bytes) -> None:
        self.memory.forget(key)
        assert self.memory.find(key) is None

    @invariant()
    def it_stays_within_its_bounds(self) -> None:
        sizes = [len(kept.answer.body) + ENTRY_BYTES for kept in self.memory]
        assert self.memory.used_bytes == sum(sizes) <= BYTES_MAX
        assert len(self.memory) == len(sizes) <= ENTRIES_MAX
        assert len(self.memory._order) <= 2 * ENTRIES_MAX + 64 + 1, "the heap is bounded too"


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_of_equal_worth_the_least_recently_used_goes_first() -> None:
    memory = Memory(1 << 20, 3, ManualClock())
    for key in (b"a", b"b", b"c"):
        memory.keep(key, Answer(b"x", True, 10), "u", 60)
    memory.find(b"a")
    memory.keep(b"d", Answer(b"x", True, 10), "u", 60)
    assert sorted(kept.key for kept in memory) == [b"a", b"c", b"d"]


def test_what_was_dear_outlives_what_was_cheap_but_not_for_ever() -> None:
    memory = Memory(1 << 20, 3, ManualClock())
    memory.keep(b"dear", Answer(b"x", True, 5_000), "u", 60)
    for n in range(8):
        memory.keep(b"cheap %d" % n, Answer(b"x", True, 1_000), "u", 60)
    assert memory.find(b"dear") is not None
    memory = Memory(1 << 20, 3, ManualClock())
    memory.keep(b"dear", Answer(b"x", True, 5_000), "u", 60)
    for n in range(40):
        memory.keep(b"cheap %d" % n, Answer(b"x", True, 1_000), "u", 60)
    assert memory.find(b"dear") is None
