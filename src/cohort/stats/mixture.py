"""The core of every test here: a weighted mixture of e-processes, kept as logarithms (gates.md section 6.1).

An e-process starts at 1 and, while the null holds, does not grow on average; so by Ville's inequality it ever reaches 1/alpha with
probability at most alpha, whenever and however often it is looked at. A mixture of e-processes is again one.

Floating-point operations happen in one fixed order, and never through `sum()` of floats (whose rounding differs between Python
versions), so the same updates give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

WEIGHTS_TOLERANCE = 1e-9  # how far the weights of a mixture may be from adding up to one


def log_threshold(alpha: float) -> float:
    """ln(1/alpha): the level at which evidence is decisive at error probability `alpha` (0 to 1, both excluded)."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; it must be above 0 and below 1")
    return -math.log(alpha)


def log_mixture(weights: Sequence[float], logs: Sequence[float]) -> float:
    """ln(sum of weight * exp(log)), without overflow. Weights are positive."""
    exp, top, total = math.exp, max(logs), 0.0
    for weight, log in zip(weights, logs, strict=True):
        total += weight * exp(log - top)
    return top + math.log(total)


def is_informative(arm: int, share: float) -> bool:
    """Whether an event of `arm` (1 = candidate, 0 = stable), assigned to the candidate with probability `share`, can say anything.

    With a share of 0 or 1 the arm was certain beforehand and the e-factor is exactly one (section 6.11.1).
    """
    if arm != 0 and arm != 1:
        raise ValueError(f"arm is {arm!r}; it must be 0 (stable) or 1 (candidate)")
    if 0.0 < share < 1.0:
        return True
    if share == 0.0 or share == 1.0:
        return False
    raise ValueError(f"share is {share!r}; it must be a probability from 0 to 1")


def check_positive(name: str, value: float) -> float:
    """`value` if it is a finite number above zero."""
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}; it must be a finite number above 0")
    return value


def label_steps(null_share: float, ratios: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """For each betted ratio r, what ln E_r gains when the betted arm's label comes up and when it does not (section 6.2).

    `null_share` is the largest probability of that label which the null allows:
    won = ln r - ln(1 + null_share (r - 1)), lost = -ln(1 + null_share (r - 1)).
    """
    lost = tuple(-math.log1p(null_share * (r - 1.0)) for r in ratios)
    won = tuple(math.log(r) + down for r, down in zip(ratios, lost, strict=True))
    return won, lost


def tolerated_share(share: float, margin: float) -> float:
    """w_m = w m / (w m + 1 - w): the largest P(candidate | failure) for a candidate at most `margin` times as bad (section 6.2)."""
    scaled = share * margin
    return scaled / (scaled + 1.0 - share)


def field(state: Mapping[str, Any], kind: str, name: str) -> Any:
    """One value of a saved state; says which is missing, and refuses the state of another class."""
    if state.get("kind") != kind:
        raise ValueError(f"state is of kind {state.get('kind')!r}, expected {kind!r}")
    if name not in state:
        raise ValueError(f"state of {kind!r} lacks {name!r}")
    return state[name]


class Mixture:
    """The running logarithms of a mixture's parts.

    `log_e`: natural logarithm of the mixture now; 0.0 before any update. `peak_log_e`: its running maximum, at least 0.0; an alarm
    that was once reached stays. Subclasses move `_logs` and call `_settle`.
    """

    __slots__ = ("_logs", "_weights", "log_e", "peak_log_e")
    KIND = "mixture"

    def __init__(self, weights: Sequence[float]) -> None:
        if not weights or any(not weight > 0.0 for weight in weights) or abs(math.fsum(weights) - 1.0) > WEIGHTS_TOLERANCE:
            raise ValueError(f"weights are {tuple(weights)}; they must be positive and add up to 1")
        self._weights = tuple(weights)
        self._logs = [0.0] * len(self._weights)
        self.log_e = 0.0
        self.peak_log_e = 0.0

    def _step(self, steps: Sequence[float]) -> None:
        """Add one step to every part."""
        self._logs = [log + step for log, step in zip(self._logs, steps, strict=True)]
        self._settle()

    def _settle(self) -> None:
        self.log_e = log_e = log_mixture(self._weights, self._logs)
        if log_e > self.peak_log_e:
            self.peak_log_e = log_e

    def _parts_state(self) -> dict[str, Any]:
        return {"kind": self.KIND, "logs": list(self._logs), "log_e": self.log_e, "peak_log_e": self.peak_log_e}

    def _restore_parts(self, state: Mapping[str, Any]) -> None:
        logs = [float(log) for log in field(state, self.KIND, "logs")]
        if len(logs) != len(self._weights):
            raise ValueError(f"state of {self.KIND!r} has {len(logs)} parts, expected {len(self._weights)}")
        self._logs = logs
        self.log_e = float(field(state, self.KIND, "log_e"))
        self.peak_log_e = float(field(state, self.KIND, "peak_log_e"))
