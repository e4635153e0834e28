"""Section 6.11.3: a broken split is found, a sound one is left alone."""

import math
import random

import pytest

from cohort.stats import SplitAudit, log_threshold
from cohort.stats.split import AUDIT_ODDS, LOG_E_CERTAIN


def audited(true_share, share, units, seed):
    rng = random.Random(seed)
    audit = SplitAudit()
    for _ in range(units):
        audit.update(1 if rng.random() < true_share else 0, share)
    return audit


def test_one_unit_by_hand():
    audit = SplitAudit()
    audit.update(1, 0.5)
    assert math.exp(audit.log_e) == pytest.approx(sum(2 * odds / (1 + odds) for odds in AUDIT_ODDS) / 8, rel=1e-13)


@pytest.mark.parametrize(("true_share", "share"), [(0.07, 0.05), (0.035, 0.05), (0.6, 0.5), (0.4, 0.5)])
def test_a_split_that_is_off_on_either_side_is_found(true_share, share):
    assert audited(true_share, share, 8000, seed=1).peak_log_e > log_threshold(1e-4)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_a_sound_split_is_rarely_doubted(share):
    crossed = sum(audited(share, share, 600, seed).peak_log_e >= log_threshold(0.1) for seed in range(60))
    assert crossed <= 12


def test_an_assignment_that_could_not_happen_is_certain_proof():
    audit = SplitAudit()
    audit.update(0, 0.0)
    audit.update(1, 1.0)
    assert (audit.log_e, audit.impossible) == (0.0, 0)
    audit.update(1, 0.0)
    assert (audit.peak_log_e, audit.impossible) == (LOG_E_CERTAIN, 1)
    audit.update(0, 0.5)
    assert audit.log_e == LOG_E_CERTAIN
    assert SplitAudit.from_state(audit.to_state()).impossible == 1
