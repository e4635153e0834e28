"""L4's promises for all inputs: partitions never meet, the store keeps its bounds, an index finds what is nearest, acceptance is careful."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cohort.base.clock import ManualClock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.semantic.acceptance import Labels, accepts
from cohort.gateway.cache.semantic.asking import Question, question
from cohort.gateway.cache.semantic.embedding import NoVector, from_answer, lexical
from cohort.gateway.cache.semantic.guards import objections
from cohort.gateway.cache.semantic.index import VectorIndex
from cohort.gateway.cache.semantic.proportion import beta_cdf, clopper_pearson
from cohort.gateway.cache.semantic.store import FEATURES_BYTES, FOLLOWING_SHARE_MAX, NEAREST, ON_LOOP_NUMBERS_MAX, Store, key_of
from cohort.gateway.cache.semantic.text import features

WORDS = st.text(alphabet="abc ", max_size=5)
PLACES = st.lists(WORDS, min_size=5, max_size=5)
SYSTEMS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": WORDS}), max_size=2)
FIELDS = st.fixed_dictionaries(
    {}, optional={"temperature": st.sampled_from([0, 0.5]), "tools": st.lists(WORDS, max_size=2), "seed": st.integers(0, 2)}
)


HISTORIES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": WORDS}), max_size=3)


def at_once(search: Coroutine[Any, Any, Any]) -> Any:
    """What a search finds that waits for nothing."""
    try:
        search.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def asked(place: list[str], system: list[dict[str, str]], fields: dict[str, Any], text: str) -> Question | None:
    return question(*place, {**fields, "messages": [*system, {"role": "user", "content": text}]})


@given(PLACES, PLACES, SYSTEMS, SYSTEMS, FIELDS, FIELDS)
def test_two_questions_share_a_partition_only_if_all_but_the_text_is_equal(
    place: list[str], place2: list[str], system: Any, system2: Any, fields: Any, fields2: Any
) -> None:
    one, other = asked(place, system, fields, "a question"), asked(place2, system2, fields2, "another")
    assert one is not None
    assert other is not None
    assert (one.partition == other.partition) == ((place, system, fields) == (place2, system2, fields2))


@given(HISTORIES, HISTORIES, SYSTEMS, st.sampled_from(["messages", "input"]))
def test_a_later_question_meets_only_those_with_the_same_said_before_it(one: Any, other: Any, system: Any, field: str) -> None:
    last = {"role": "user", "content": "and now?"}
    found = [question("", "s", "r", "m", "o", {field: [*system, *before, last]}) for before in (one, other)]
    assert found[0] is not None
    assert found[1] is not None
    assert (found[0].partition == found[1].partition) == (one == other)
    assert [asked.follows for asked in found] == [bool(one), bool(other)]


def test_a_text_written_as_a_part_is_the_same_question_and_what_else_it_says_counts() -> None:
    def of(content: Any, field: str = "messages") -> Question | None:
        return question("t", "s", "r", "m", "o", {field: [{"role": "user", "content": content}]})

    plain = of("hello")
    assert plain == of([{"type": "text", "text": "hello"}])
    marked = of([{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}])
    assert marked is not None
    assert marked != plain
    assert of([{"type": "input_text", "text": "hello"}], "input") == question("t", "s", "r", "m", "o", {"input": "hello"})
    going_on = question("t", "s", "r", "m", "o", {"input": "hello", "previous_response_id": "resp_1"})
    assert going_on is not None
    assert going_on.follows


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"messages": []}, {"messages": ["x"]}, {"messages": [{"role": "user"}]}, {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "assistant", "content": "x"}]}, {"messages": [{"role": "user", "content": "x"}], "n": 2},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": "x" * 5000}]},
        {"messages": ["x", {"role": "user", "content": "z"}]}, {"input": [{"role": "assistant", "content": "y"}]}, {"messages": "x"},
    ],
)  # fmt: skip
def test_what_does_not_stand_for_itself_is_no_question(fields: dict[str, Any]) -> None:
    assert question("", "s", "r", "m", "o", fields) is None


@given(st.text(max_size=200), st.text(max_size=200))
def test_guards_take_any_text_are_symmetric_and_never_object_to_the_same_text(one: str, other: str) -> None:
    assert objections(features(one), features(one)) == []
    assert objections(features(one), features(other)) == objections(features(other), features(one))


@given(st.text(max_size=200))
def test_the_lexical_vector_has_length_one_or_is_none(text: str) -> None:
    try:
        assert float(numpy.linalg.norm(lexical(text))) == pytest.approx(1, abs=1e-5)
    except NoVector:
        assert not any(c.isalnum() for c in text) or len(text) > 0


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data":[]}', b'{"data":[{"embedding":[]}]}', b'{"data":[{"embedding":[0,0]}]}', b'{"data":[{"embedding":"x"}]}',
     b'{"data":[{"embedding":[[1]]}]}', b'{"data":[{"embedding":[1e400]}]}', b'{"data":[{"embedding":null}]}'],
)  # fmt: skip
def test_what_is_no_embedding_is_refused(body: bytes) -> None:
    with pytest.raises(NoVector):
        from_answer(body)


# --- index ---------------------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 80), st.sets(st.integers(0, 79), max_size=30))
@pytest.mark.parametrize("exact_max", [1000, 10])
def test_the_nearest_is_found_among_what_was_not_removed(exact_max: int, seed: int, count: int, gone: set[int]) -> None:
    chance = numpy.random.default_rng(seed)
    vectors = chance.normal(size=(count, 8)).astype(numpy.float32)
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex(8, exact_max)
    slots = [index.add(vector) for vector in vectors]
    for at in gone & set(range(count)):
        index.remove(slots[at])
    left = [at for at in range(count) if at not in gone]
    assert len(index) == len(left)
    for at in left[:5]:
        (slot, cosine), *_ = index.nearest(vectors[at], 3, 0.5)
        assert slot == slots[at]
        assert cosine == pytest.approx(1, abs=1e-5)
    for at in gone & set(range(count)):
        assert all(slot in {slots[n] for n in left} for slot, _ in index.nearest(vectors[at], 3, -1.0))


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 4500))
def test_candidates_hold_the_nearest_of_every_block_however_many_are_near(seed: int, count: int) -> None:
    chance = numpy.random.default_rng(seed)
    vectors = chance.normal(size=(count, 4)).astype(numpy.float32)
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex(4)
    slots = [index.add(vector) for vector in vectors]
    asked = vectors[chance.integers(count)]
    exact = sorted(((float(vector @ asked), slot) for vector, slot in zip(vectors, slots, strict=True)), reverse=True)[:5]
    found = index.nearest(asked, 5, -1.0)
    assert [cosine for _, cosine in found] == pytest.approx([cosine for cosine, _ in exact], abs=1e-5)


def test_what_leaves_while_a_thread_searches_is_not_found(clock: ManualClock) -> None:
    dimension = 2048
    store = Store(1 << 30, 10_000, clock)
    vector = numpy.zeros(dimension, dtype=numpy.float32)
    vector[0] = 1.0
    store.keep(Question(b"p", "0"), vector, Answer(b"x", True), "u", 100)
    other = numpy.roll(vector, 1)
    for n in range(1, ON_LOOP_NUMBERS_MAX // dimension + 2):
        store.keep(Question(b"p", str(n)), other, Answer(b"x", True), "v", 100)

    async def search() -> list[Any]:
        task = asyncio.create_task(store.nearest(b"p", vector, 0.9))
        await asyncio.sleep(0)
        assert not task.done(), "large searches are left to a thread"
        store.erase("u")
        store.keep(Question(b"p", "new"), other, Answer(b"x", True), "v", 100)  # takes the place that became free
        return await task

    assert asyncio.run(search()) == []
    assert len(asyncio.run(store.nearest(b"p", other, 0.9))) == NEAREST


def test_a_graph_is_left_alone_while_a_thread_is_in_it_and_catches_up_afterwards() -> None:
    chance = numpy.random.default_rng(5)
    vectors = chance.normal(size=(60, 8)).astype(numpy.float32)
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    index = VectorIndex(8, exact_max=10)
    slots = [index.add(vector) for vector in vectors[:40]]
    assert not index.exact
    search = index.search()
    with index._in_use:  # as a thread that searches
        index.remove(slots[0])
        slots.append(index.add(vectors[40]))
        assert slots[40] == slots[0], "its slot is taken again"
        assert index.exact, "what the graph does not have yet is looked for exactly"
        assert index.nearest(vectors[40], 1, 0.9)[0][0] == slots[40]
    found = search(vectors[0], 5, 0.9)
    assert index.confirmed(found, vectors[0], 5, 0.99) == [], "what a search brings of what left is not confirmed"
    slots += [index.add(vector) for vector in vectors[41:]]
    assert not index.exact
    assert [index.nearest(vectors[at], 1, 0.9)[0][0] for at in range(1, 60)] == slots[1:]


# --- store ---------------------------------------------------------------------------------------------------------------------

BYTES_MAX, ENTRIES_MAX = 40_000, 8


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store = Store(BYTES_MAX, ENTRIES_MAX, self.clock, exact_max=5)
        self.expires: dict[tuple[bytes, str], float] = {}

    @rule(
        partition=st.sampled_from([b"p", b"q"]), word=st.sampled_from("abcdefghijkl"), size=st.integers(0, 20_000), unit=st.sampled_from("uv"),
        ttl_s=st.integers(1, 60), dimension=st.sampled_from([4, 4, 4, 6]), follows=st.booleans(),
    )  # fmt: skip
    def keep(self, partition: bytes, word: str, size: int, unit: str, ttl_s: int, dimension: int, follows: bool) -> None:
        vector = numpy.ones(dimension, dtype=numpy.float32) / math.sqrt(dimension)
        self.store.keep(Question(partition, word, "", follows), vector, Answer(b"x" * size, True), unit, ttl_s)
        self.expires[(partition, word)] = self.clock.monotonic_s() + ttl_s

    @rule(partition=st.sampled_from([b"p", b"q"]), dimension=st.sampled_from([4, 6]))
    def look(self, partition: bytes, dimension: int) -> None:
        vector = numpy.ones(dimension, dtype=numpy.float32) / math.sqrt(dimension)
        for entry, cosine in asyncio.run(self.store.nearest(partition, vector, 0.5)):
            assert entry.partition == partition
            assert cosine == pytest.approx(1, abs=1e-5)
            kept = self.store.kept(entry)
            if kept is not None:
                assert self.clock.monotonic_s() < kept.expires_s <= max(self.expires.values())

    @rule(seconds=st.integers(0, 40))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(unit=st.sampled_from("uv"))
    def erase(self, unit: str) -> None:
        self.store.erase(unit)
        assert not [kept for kept in self.store._memory if kept.unit == unit]

    @rule()
    def sweep(self) -> None:
        self.store.sweep()

    @invariant()
    def it_stays_within_its_bounds_and_whole(self) -> None:
        assert self.store.used_bytes <= BYTES_MAX
        assert len(self.store) <= ENTRIES_MAX
        assert len(self.store._following) <= ENTRIES_MAX * FOLLOWING_SHARE_MAX
        assert set(self.store._following) <= set(self.store._entries)
        held = {entry.key for _, entries in self.store._partitions.values() for entry in entries.values()}
        assert held == set(self.store._entries) == {kept.key for kept in self.store._memory}
        assert all(len(index) == len(entries) > 0 for index, entries in self.store._partitions.values())


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_conversations_never_push_out_more_than_their_part(clock: ManualClock) -> None:
    store = Store(1 << 20, 10, clock)
    vector = numpy.ones(4, dtype=numpy.float32) / 2
    for n in range(5):
        store.keep(Question(b"p", f"question {n}"), vector, Answer(b"x", True), "u", 100)
    for n in range(50):
        store.keep(Question(b"history %d" % n, "and now?", "", True), vector, Answer(b"x", True), "u", 100)
    assert len(at_once(store.nearest(b"p", vector, 0.5))) == 5
    assert (len(store), store.partitions) == (10, 6)
    assert len({key_of(Question(b"history %d" % n, "and now?")) for n in range(50)}) == 50


def test_a_store_short_of_room_clears_away_what_nobody_asked_for_again(clock: ManualClock) -> None:
    store = Store(1 << 20, 10, clock)
    vector = numpy.ones(4, dtype=numpy.float32) / 2
    for n in range(10):
        store.keep(Question(b"p", f"question {n}"), vector, Answer(b"x", True), "u", 100)
    wanted = at_once(store.nearest(b"p", vector, 0.5))[0][0]
    assert store.kept(wanted) is not None
    clock.advance(51)
    store.sweep()
    assert [len(store), store.kept(wanted) is not None] == [1, True]
    assert store.used_bytes >= FEATURES_BYTES


# --- acceptance ----------------------------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 600)


@given(COUNTS, st.integers(0, 5), COUNTS, st.integers(0, 20), st.sampled_from([0.01, 0.05, 0.2]))
def test_more_right_answers_never_take_acceptance_away_and_wrong_ones_never_give_it(
    same: int, against: int, pool: int, pool_against: int, budget: float
) -> None:
    own = Labels(same, against)
    pooled = Labels(same + pool, against + pool_against)
    now = accepts(own, pooled, budget)
    if now:
        assert accepts(Labels(same + 1, against), Labels(pooled.same + 1, pooled.against), budget)
    else:
        assert not accepts(Labels(same, against + 1), Labels(pooled.same, pooled.against + 1), budget)


def test_nothing_known_is_not_accepted_and_what_its_like_have_proved_is() -> None:
    assert not accepts(Labels(), Labels(), 0.01)
    assert not accepts(Labels(), Labels(100, 0), 0.01)
    assert accepts(Labels(), Labels(200, 0), 0.01), "an entry nobody tried serves where its like proved right"
    assert not accepts(Labels(0, 1), Labels(2000, 1), 0.01), "its own wrong answer weighs more than the others' right ones"
    assert not accepts(Labels(), Labels(2000, 60), 0.01)


@pytest.mark.parametrize(
    ("x", "a", "b", "share"),
    [(0.3, 1, 1, 0.3), (0.5, 3, 3, 0.5), (0.2, 1, 5, 1 - 0.8**5), (0.9, 5, 1, 0.9**5), (0.01, 1, 300, 1 - 0.99**300)],
)
def test_the_beta_distribution_where_it_is_known(x: float, a: float, b: float, share: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(share, rel=1e-9)


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_interval_leaves_the_binomial_tails_it_promises(trials: int, hits: int) -> None:
    hits = min(hits, trials)
    low, high = clopper_pearson(hits, trials, 0.05)

    def tail(p: float, counts: range) -> float:
        return sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in counts)

    assert low <= hits / trials <= high
    assert low == 0 if hits == 0 else tail(low, range(hits, trials + 1)) == pytest.approx(0.025, rel=1e-6)
    assert high == 1 if hits == trials else tail(high, range(hits + 1)) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="hits"):
        clopper_pearson(hits, trials)
    with pytest.raises(ValueError, match="above 0"):
        beta_cdf(0.5, 0, 1)


def test_a_gateway_loads_nothing_for_the_semantic_tier_or_for_compressing_before_a_release_needs_it() -> None:
    heavy = ("numpy", "usearch", "zstandard", "lzma", "pydantic", "cohort.gateway.cache.semantic")
    program = f"import sys, cohort.gateway.process; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
