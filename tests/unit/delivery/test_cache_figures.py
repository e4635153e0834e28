"""What is shown of caches follows from what gateways count: tiers in their order, several workers together, other thresholds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cohort.delivery.cache_state import BandCounts, CacheState, DriftCounts, Held, SemanticCounts, cache_state, together
from cohort.delivery.cache_views import cache_figures, semantic_figures, share
from cohort.gateway.cache.semantic.drift import Counts
from cohort.gateway.contract_cache import CachePolicy, SemanticPolicy

BANDS = (
    BandCounts(0.72, 8, 0, 3, 0, 1),
    BandCounts(0.85, 50, 10, 30, 5, 5),
    BandCounts(0.9, 20, 15, 20, 1, 1),
    BandCounts(0.95, 10, 10, 12, 0, 0),
    BandCounts(0.99, 5, 5, 7, 0, 0),
)
DRIFT = {"rel_1": {"hits": DriftCounts(Counts(400, 1000), Counts(100, 1000)), "false_hits": DriftCounts(Counts(1, 200), Counts(1, 200))}}
COUNTS = SemanticCounts(100, 40, 30, 2, {"numbers": 3}, {"same": 18, "unclear": 1, "other": 1}, 100, BANDS, DRIFT)
counts = st.integers(0, 10**6)
states = st.builds(
    CacheState,
    st.dictionaries(st.sampled_from(("a", "b")), st.dictionaries(st.sampled_from(("l1", "l2", "l3", "l4", "miss", "bypass")), counts)),
    st.fixed_dictionaries({tier: st.builds(Held, counts, counts, counts) for tier in ("l1", "l3", "l4")}),
    st.just({"a": COUNTS}),
)


def test_a_gateway_s_state_is_read() -> None:
    held = {"entries": 3, "bytes": 900, "evicted": 1}
    band = {"from": 0.9, "found": 2, "served": 1, "same": 1, "unclear": 0, "other": 1}
    entry = {
        "looked": 9,
        "served": 1,
        "unproven": 1,
        "without_vector": 0,
        "objections": {"names": 2},
        "sample": {"same": 1, "unclear": 0, "other": 0},
        "recorded": 9,
        "bands": [band],
        "drift": {"rel_1": {name: {"baseline": [4, 9], "recent": [1, 2]} for name in ("hits", "false_hits")}},
    }
    state = cache_state({"services": {"a": {"l1": 4}}, "l1": held, "l3": {**held, "damaged": 0}, "l4": {**held, "services": {"a": entry}}})
    assert state.held == dict.fromkeys(("l1", "l3", "l4"), Held(3, 900, 1))
    assert state.answered == {"a": {"l1": 4}}
    semantic = state.semantic["a"]
    assert semantic.drift["rel_1"]["false_hits"] == DriftCounts(Counts(4, 9), Counts(1, 2))
    assert (semantic.looked, semantic.objections, semantic.bands) == (9, {"names": 2}, (BandCounts(0.9, 2, 1, 1, 0, 1),))


@given(states, states)
def test_two_workers_count_together(one: CacheState, other: CacheState) -> None:
    both = together([one, other])
    for service in ("a", "b"):
        for what in ("l1", "l4", "miss", "bypass"):
            parts = [state.answered.get(service, {}).get(what, 0) for state in (one, other)]
            assert both.answered.get(service, {}).get(what, 0) == sum(parts)
    assert both.held["l3"].bytes == one.held["l3"].bytes + other.held["l3"].bytes
    assert both.semantic["a"].looked == 200
    assert [band.found for band in both.semantic["a"].bands] == [16, 100, 40, 20, 10]
    assert both.semantic["a"].drift["rel_1"]["hits"] == DriftCounts(Counts(800, 2000), Counts(200, 2000))
    assert both.semantic["a"].sample == {"same": 36, "unclear": 2, "other": 2}


def test_a_tier_is_asked_what_those_before_it_did_not_answer() -> None:
    state = CacheState({"a": {"l1": 50, "l3": 20, "miss": 30, "bypass": 7}}, {"l1": Held(3, 900, 1)}, {})
    figures = cache_figures("a", "rel_1", CachePolicy(shared=True, disk=True), state)
    assert [(tier.tier, tier.reached, tier.hits, tier.entries) for tier in figures.tiers] == [
        ("l1", 100, 50, 3),
        ("l2", 50, 0, None),
        ("l3", 50, 20, None),
    ]
    assert (figures.calls, figures.bypassed, figures.hits.count, figures.semantic) == (100, 7, 70, None)
    assert [(tier.hit_rate.share, tier.false) for tier in figures.tiers] == [(0.5, None), (0.0, None), (0.4, None)]


def test_only_tiers_that_take_part_or_did_are_shown() -> None:
    silent = cache_figures("a", "rel_1", CachePolicy(), CacheState())
    assert ([tier.tier for tier in silent.tiers], silent.calls, silent.hits.share) == (["l1"], 0, None)
    former = cache_figures("a", "rel_1", CachePolicy(exact=False, semantic=SemanticPolicy()), CacheState({"a": {"l1": 4}}))
    assert [tier.tier for tier in former.tiers] == ["l1", "l4"]


def test_what_is_unclear_counts_as_false_in_the_upper_end_only() -> None:
    figures = semantic_figures(SemanticPolicy(), COUNTS, "rel_1")
    assert (figures.sampled, figures.false.count, figures.unclear) == (20, 1, 1)
    assert (figures.false.low, figures.false.high) == (share(1, 20).low, share(2, 20).high)


def test_another_threshold_keeps_what_lies_above_it_and_a_lower_one_adds_what_was_looked_at_below() -> None:
    rows = semantic_figures(SemanticPolicy(threshold=0.85), COUNTS, "rel_1").what_if
    assert [(row.threshold, row.found.count, row.served and row.served.count, row.compared, row.wrong.count) for row in rows] == [
        (0.7, 93, None, 85, 7),
        (0.75, 85, None, 81, 6),
        (0.8, 85, None, 81, 6),
        (0.85, 85, 40, 81, 6),
        (0.9, 35, 30, 41, 1),
        (0.95, 15, 15, 19, 0),
        (0.97, 5, 5, 7, 0),
        (0.99, 5, 5, 7, 0),
    ]
    assert [row.threshold for row in rows if row.in_force] == [0.85]
    thresholds = [row.threshold for row in semantic_figures(SemanticPolicy(threshold=0.92), COUNTS, "rel_1").what_if]
    assert thresholds == [0.8, 0.85, 0.9, 0.92, 0.95, 0.97, 0.99]
    assert semantic_figures(SemanticPolicy(threshold=0.5), COUNTS, "rel_1").what_if[0].threshold == 0.5
    assert semantic_figures(SemanticPolicy(), SemanticCounts(), "rel_1").what_if == ()


def test_drift_is_of_the_release_that_is_shown_and_silent_about_others() -> None:
    assert [row.state for row in semantic_figures(SemanticPolicy(), COUNTS, "rel_1").drift] == ["drifted", "steady"]
    assert [row.state for row in semantic_figures(SemanticPolicy(), COUNTS, "rel_2").drift] == ["too few samples"] * 2
