"""Agreement with savvi's anytime-valid multinomial test (Lindon & Malek 2022) where the two overlap.

Theirs is a mixture over every share under a Beta prior; ours a mixture over a few odds. Each single odds of ours is a likelihood ratio
against the same null, so integrating ours over their prior must give their posterior odds.
"""

import math
import random

import numpy as np
import pytest
from savvi.multinomial import Multinomial

from cohort.stats import SplitAudit, log_threshold
from cohort.stats.exact import mixture_log_e


def integrated(share, k, units, candidates, cells=4000):
    """Our likelihood ratios, mixed with the Beta(k w, k (1 - w)) prior by the midpoint rule."""
    points = [(cell + 0.5) / cells for cell in range(cells)]
    a, b = k * share, k * (1 - share)
    densities = [math.exp((a - 1) * math.log(p) + (b - 1) * math.log(1 - p)) for p in points]
    total = math.fsum(densities)
    odds = [p / (1 - p) * (1 - share) / share for p in points]
    return mixture_log_e(odds, [density / total for density in densities], share, units, candidates)


@pytest.mark.parametrize(("share", "units", "candidates"), [(0.25, 50, 20), (0.25, 50, 12), (0.5, 400, 240), (0.05, 300, 30)])
def test_their_odds_are_our_likelihood_ratios_under_their_prior(share, units, candidates):
    theirs = Multinomial(0.05, np.array([1 - share, share]), k=100)
    theirs.update(np.array([units - candidates, candidates]))
    assert integrated(share, 100, units, candidates) == pytest.approx(math.log(theirs.odds), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("true_share", "share"), [(0.08, 0.05), (0.35, 0.25), (0.42, 0.5)])
def test_both_find_a_broken_split_after_about_as_many_units(true_share, share):
    rng = random.Random(4)
    ours, theirs = SplitAudit(), Multinomial(0.001, np.array([1 - share, share]), k=100)
    found = {}
    for unit in range(1, 6001):
        arm = 1 if rng.random() < true_share else 0
        ours.update(arm, share)
        theirs.update(np.array([1 - arm, arm]))
        if ours.log_e >= log_threshold(0.001):
            found.setdefault("ours", unit)
        if theirs.calculate_p_value() <= 0.001:
            found.setdefault("theirs", unit)
    assert found["ours"] <= 1.5 * found["theirs"]
