"""Evidence of every gate on one scale: to the left towards harmful, to the right towards safe, the same length for the same evidence.

The unit is the logarithm of an e-value; the middle is no evidence. All gates of a page share the scale, so rows can be compared by eye.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.delivery.model import GateView, ScaleView

BEYOND = 1.22
"""How far the scale goes on behind the furthest threshold."""
SPAN_MIN = 1.0
LABEL_MIN = 9.0
LABEL_FULL_MIN = 40.0
ODDS_SHOWN_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Mark:
    """A threshold: where it stands, in percent of the width, and the odds it stands for ("300 to 1")."""

    at: float
    odds: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Evidence from the middle outwards, in percent of the width; `tip` is its outer end. `odds`: what it stands for ("9 to 1")."""

    left: float
    width: float
    tip: float
    full: bool
    odds: str

    @property
    def label(self) -> bool:
        """Whether there is room for the odds under it, beside the threshold's."""
        return self.width > (LABEL_FULL_MIN if self.full else LABEL_MIN)


@dataclass(frozen=True, slots=True)
class EvidenceScale:
    """`text` says the same for those who do not see it."""

    middle: float
    harm_mark: Mark | None
    safe_mark: Mark | None
    harm: Bar | None
    safe: Bar | None
    text: str


def evidence_scales(gates: Sequence[GateView]) -> list[EvidenceScale]:
    left = max((gate.harmful.threshold for gate in gates if gate.harmful), default=SPAN_MIN) * BEYOND
    right = max((gate.safe.threshold for gate in gates if gate.safe), default=SPAN_MIN) * BEYOND
    return [_scale(gate, left, right) for gate in gates]


def odds(log_e: float) -> str:
    if log_e > math.log(ODDS_SHOWN_MAX):
        return "over a million to 1"
    e = math.exp(log_e)
    return f"{e:,.0f} to 1" if e >= 10 else f"{e:.1f} to 1"


def _scale(gate: GateView, left: float, right: float) -> EvidenceScale:
    width = left + right
    middle = 100 * left / width

    def place(log_e: float) -> float:
        return round(min(100.0, max(0.0, middle + 100 * log_e / width)), 2)

    return EvidenceScale(
        middle=round(middle, 2),
        harm_mark=Mark(place(-gate.harmful.threshold), odds(gate.harmful.threshold)) if gate.harmful else None,
        safe_mark=Mark(place(gate.safe.threshold), odds(gate.safe.threshold)) if gate.safe else None,
        harm=_bar(place(-max(0.0, gate.harmful.log_e)), middle, gate.harmful) if gate.harmful else None,
        safe=_bar(place(max(0.0, gate.safe.log_e)), middle, gate.safe) if gate.safe else None,
        text=_text(gate),
    )


def _bar(tip: float, middle: float, scale: ScaleView) -> Bar:
    return Bar(round(min(tip, middle), 2), round(abs(tip - middle), 2), tip, scale.log_e >= scale.threshold, odds(scale.log_e))


def _text(gate: GateView) -> str:
    harm = f"{gate.harmful.part:.0%} of the way to harmful" if gate.harmful else "this gate cannot alarm"
    safe = f"{gate.safe.part:.0%} of the way to safe" if gate.safe else "no certificate is asked of it"
    return f"Evidence for {gate.name}: {harm}, {safe}."
