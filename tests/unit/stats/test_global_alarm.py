"""Section 6.8: one alarm over several metrics."""

import math

import pytest

from cohort.stats import GlobalAlarm, global_log_e, log_threshold


def test_the_average_is_weighted_and_taken_of_e_values_not_of_logarithms():
    assert global_log_e((0.006, 0.004), (math.log(10), math.log(5))) == pytest.approx(math.log(8), rel=1e-14)


def test_weights_may_be_on_any_scale():
    assert global_log_e((6, 4), (1.0, 2.0)) == pytest.approx(global_log_e((0.6, 0.4), (1.0, 2.0)), rel=1e-14)


def test_it_alarms_no_later_than_any_metric_at_its_own_part_of_alpha():
    parts = (0.005, 0.003, 0.002)
    for metric, part in enumerate(parts):
        log_es = [-50.0] * 3
        log_es[metric] = log_threshold(part)
        assert global_log_e(parts, log_es) >= log_threshold(0.01) - 1e-12


def test_huge_evidence_does_not_overflow():
    assert global_log_e((1, 1), (5000.0, -5000.0)) == pytest.approx(5000 - math.log(2))


def test_the_peak_of_the_alarm_stays():
    alarm = GlobalAlarm((1, 1))
    for log_es in ((0.0, 0.0), (3.0, 3.0), (-1.0, -1.0)):
        alarm.update(log_es)
    assert (alarm.log_e, alarm.peak_log_e) == (pytest.approx(-1.0), pytest.approx(3.0))


@pytest.mark.parametrize(("weights", "log_es"), [((), ()), ((1, 0), (0.0, 0.0)), ((1, -1), (0.0, 0.0)), ((1, 1), (0.0,))])
def test_weights_that_are_none_are_refused(weights, log_es):
    with pytest.raises(ValueError, match=r"weight"):
        global_log_e(weights, log_es)
