"""Is the candidate slower, dearer or worse? A test on ranks, for any ordered outcome (gates.md section 6.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Self

from cohort.stats.mixture import Mixture, check_positive, field, is_informative
from cohort.stats.sketch import Sketch

# Shapes of harm, in the order of their weights. A shift moves every outcome; a contamination moves a part `eps` of them by `eta`; a
# Lehmann shape stretches the upper tail.
SHIFT_ETAS = (0.15, 0.35, 0.7, 1.3)
CONTAMINATIONS = ((1.0, 0.1), (1.0, 0.35), (2.0, 0.05), (2.0, 0.2), (3.2, 0.03), (3.2, 0.12))
LEHMANN_THETAS = (0.85, 0.6)

_RAW_WEIGHTS = (0.11, 0.10, 0.10, 0.08, 0.08, 0.06, 0.08, 0.08, 0.08, 0.08, 0.075, 0.075)
SHAPE_WEIGHTS = tuple(weight / math.fsum(_RAW_WEIGHTS) for weight in _RAW_WEIGHTS)

_inverse_normal = NormalDist().inv_cdf


def likelihood_ratios(rank: float) -> list[float]:
    """rho of each shape at a rank `u` (0 to 1, both excluded): how much likelier such an outcome is from a harmed candidate.

    All increase with the rank and have mean one over uniform ranks.
    """
    exp = math.exp
    z = _inverse_normal(rank)
    rhos = [exp(eta * z - eta * eta / 2.0) for eta in SHIFT_ETAS]
    one, two, three = exp(z - 0.5), exp(2.0 * z - 2.0), exp(3.2 * z - 5.12)
    rhos += [0.9 + 0.1 * one, 0.65 + 0.35 * one, 0.95 + 0.05 * two, 0.8 + 0.2 * two, 0.97 + 0.03 * three, 0.88 + 0.12 * three]
    upper = 1.0 - rank
    rhos += [theta * upper ** (theta - 1.0) for theta in LEHMANN_THETAS]
    return rhos


class LabelOrdered(Mixture):
    """An ordered outcome >= 0 (section 6.4). Null: the candidate's outcomes, divided by `margin`, are stochastically no worse.

    Latency, cost and tokens: higher is worse, `margin` 1.05 tolerates 5 % more. Scores: `lower_is_worse`, and `margin` 1.05 tolerates
    scores 5 % lower (the candidate's are multiplied by it). One outcome per unit and stage. Ranks are taken among past outcomes of both
    arms; `warm` and `warm_from` give them a history (of stable, from before the rollout), which costs no validity and helps the first
    outcomes say something. Memory: twelve floats, two counts and one sketch.
    """

    __slots__ = ("_lower_is_worse", "_margin", "_ranks", "units_candidate", "units_stable")
    KIND = "label_ordered"

    def __init__(self, margin: float = 1.0, lower_is_worse: bool = False) -> None:
        super().__init__(SHAPE_WEIGHTS)
        self._margin = check_positive("margin", margin)
        self._lower_is_worse = lower_is_worse
        self._ranks = Sketch()
        self.units_stable = 0
        self.units_candidate = 0

    @property
    def margin(self) -> float:
        return self._margin

    @property
    def ranked(self) -> int:
        """How many outcomes ranks are taken among."""
        return self._ranks.count

    def warm(self, value: float) -> None:
        """Add one earlier outcome of the stable release to the ranks; no evidence changes."""
        self._ranks.add(value)

    def warm_from(self, history: Sketch) -> None:
        """Add a history of the stable release to the ranks; no evidence changes."""
        self._ranks.absorb(history)

    def update(self, arm: int, share: float, value: float) -> None:
        """One outcome of `arm` (1 = candidate) whose unit had probability `share` of being the candidate's.

        Share 0 or 1 changes nothing. Raises ValueError for a value that is negative or not finite, and nothing has changed.
        """
        if not is_informative(arm, share):
            return
        adjusted = self._adjusted(value) if arm else value
        rank = self._ranks.rank(adjusted)
        self._ranks.add(adjusted)
        self._step(_steps(arm, share, 1.0 - rank if self._lower_is_worse else rank))
        if arm:
            self.units_candidate += 1
        else:
            self.units_stable += 1

    def _adjusted(self, value: float) -> float:
        """A candidate's value with the tolerated difference taken out; a product too large to represent stays as it was."""
        scaled = value * self._margin if self._lower_is_worse else value / self._margin
        return scaled if scaled < math.inf else value

    def to_state(self) -> dict[str, Any]:
        """Plain JSON values from which `from_state` continues bit for bit."""
        return self._parts_state() | {
            "margin": self._margin,
            "lower_is_worse": self._lower_is_worse,
            "ranks": self._ranks.to_state(),
            "units_stable": self.units_stable,
            "units_candidate": self.units_candidate,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Raises ValueError if `state` is not one of `to_state`."""
        made = cls(float(field(state, cls.KIND, "margin")), bool(field(state, cls.KIND, "lower_is_worse")))
        made._restore_parts(state)
        made._ranks = Sketch.from_state(field(state, cls.KIND, "ranks"))
        made.units_stable = int(field(state, cls.KIND, "units_stable"))
        made.units_candidate = int(field(state, cls.KIND, "units_candidate"))
        return made


def _steps(arm: int, share: float, rank: float) -> list[float]:
    """ln e of each shape: A ln rho - ln(1 + w (rho - 1))."""
    log = math.log
    stable = 1.0 - share
    if arm:
        return [log(rho / (stable + share * rho)) for rho in likelihood_ratios(rank)]
    return [-log(stable + share * rho) for rho in likelihood_ratios(rank)]
