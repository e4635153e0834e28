"""Numbers in, numbers out: e-processes, intervals, sketches. No input or output, no clock, no randomness.

Every test here may be watched after each outcome: the probability of ever being wrong is bounded by the level it is read at. `log_e` is
the natural logarithm of the evidence now, `peak_log_e` its running maximum; compare them with `log_threshold`. How and why:
docs/explanation/gates.md.
"""

from cohort.stats.alarm import GlobalAlarm, global_log_e
from cohort.stats.binary import LabelBinary
from cohort.stats.certificate import SafetyCertificate
from cohort.stats.failures import LabelFailures, LabelSign
from cohort.stats.interval import RatioInterval
from cohort.stats.limits import LimitCertificate, OneSample
from cohort.stats.mixture import log_threshold
from cohort.stats.ordered import LabelOrdered
from cohort.stats.planning import expected_units_to_certificate, expected_units_to_detect, smallest_ratio_detected
from cohort.stats.sketch import Sketch
from cohort.stats.split import SplitAudit

__all__ = [
    "GlobalAlarm",
    "LabelBinary",
    "LabelFailures",
    "LabelOrdered",
    "LabelSign",
    "LimitCertificate",
    "OneSample",
    "RatioInterval",
    "SafetyCertificate",
    "Sketch",
    "SplitAudit",
    "expected_units_to_certificate",
    "expected_units_to_detect",
    "global_log_e",
    "log_threshold",
    "smallest_ratio_detected",
]
