"""Whether an entry may answer: what graded comparisons say of it and of its like, against the share of wrong answers that is put up with.

Beta-binomial with a pooled prior. Comparisons of all entries in the same band of likeness form the prior of each, at most as strong as
PRIOR_LABELS_MAX comparisons, so that an entry nobody has tried can serve where its like have proved right; an entry's own wrong answer
takes most of that credit away. An entry serves when the share of wrong answers lies below the budget with probability CONFIDENCE. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cohort.gateway.cache.semantic.proportion import beta_cdf

CONFIDENCE = 0.9
PRIOR_LABELS_MAX = 400.0
OWN_FAULT_FACTOR = 10.0
JEFFREYS = 0.5
BANDS = (0.9, 0.95, 0.99)
"""Lower ends of the bands of likeness above the threshold."""
FAULTS_MAX = 2
FAULTS_SHARE_MAX = 0.02
"""An entry leaves with so many comparisons against it, where they are more than this part of all of its own."""


class Grade(Enum):
    """How a kept answer compares with the model's own. UNCLEAR counts against an entry: it is no evidence that it is right."""

    SAME = "same"
    UNCLEAR = "unclear"
    OTHER = "other"


@dataclass(slots=True)
class Labels:
    """Comparisons: right, and not shown to be right."""

    same: int = 0
    against: int = 0

    def add(self, grade: Grade) -> None:
        if grade is Grade.SAME:
            self.same += 1
        else:
            self.against += 1


def band(cosine: float) -> int:
    return sum(cosine >= edge for edge in BANDS)


def accepts(own: Labels, pooled: Labels, false_hit_max: float) -> bool:
    """`pooled`: those of the band, the entry's own among them."""
    same, against = max(pooled.same - own.same, 0), max(pooled.against - own.against, 0)
    strength = PRIOR_LABELS_MAX / (1 + OWN_FAULT_FACTOR * own.against)
    weight = min(1.0, strength / (same + against)) if same + against else 0.0
    wrong = JEFFREYS + weight * against + own.against
    right = JEFFREYS + weight * same + own.same
    return beta_cdf(false_hit_max, wrong, right) >= CONFIDENCE


def refused(own: Labels) -> bool:
    """Too often wrong to be kept any longer; the same question is not kept again before its labels are over their time."""
    return own.against >= FAULTS_MAX and own.against > FAULTS_SHARE_MAX * (own.same + own.against)
