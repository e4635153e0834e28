"""Chooses for each request between the two routes of a release, and remembers what it chose for a conversation.

The boundary is each worker's own and starts again at the approved one after a restart; which conversations got the strong model is shared by
the workers of a machine, so that none goes back down at another one, and none is counted twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from cohort.gateway.adaptive.features import Features, Scorer
from cohort.gateway.adaptive.share import Boundary, Share
from cohort.gateway.assignment import Salt
from cohort.gateway.contract_routing import RoutingPolicy, RoutingState

KILL, FREEZE = "routing.adaptive", "routing.adapt"
"""Flags of the kill list: choose nothing; choose by the approved boundary."""
SHARE_SEEN_MIN = 200
"""Conversations before their share says something about drift."""
PINS_MAX = 100_000
"""Conversations whose model is remembered, of all services; the one unseen for longest is forgotten first."""
RELEASES_MAX = 1_024
CONTROL, ADAPTIVE = "control", "adaptive"
_BUCKETS = Salt(b"cohort routing bucket")
TIE_WIDTH = 0.01
"""Requests of the same difficulty are told apart by up to this much, by their unit, so that a share can be kept among equals."""


class Seen(Protocol):
    """What workers share of conversations, flagged where they got the strong model. May forget."""

    def note(self, flag: bool, *parts: str) -> bool | None:
        """Add something with a flag, which stays once it is set; returns the flag that it had, None: it was not there."""
        ...


class Choice(NamedTuple):
    """`strong`: which of the two answers first. `difficulty` and `boundary`: what it was compared with; None where nothing was compared."""

    strong: bool
    bucket: str
    difficulty: float | None = None
    boundary: float | None = None
    features: Features | None = None


@dataclass(slots=True)
class _Release:
    """What is learned of one release of a service."""

    policy: RoutingPolicy
    scorer: Scorer
    boundary: Boundary
    shares: dict[str, Share]


class AdaptiveRouter:
    """`enabled`: False where the process was told to choose nothing (`COHORT_ADAPTIVE=0`). `seen`: conversations that any worker has met."""

    def __init__(self, enabled: bool = True, pins_max: int = PINS_MAX, seen: Seen | None = None) -> None:
        self._seen = seen
        self.enabled = enabled
        self._pins_max = pins_max
        self._releases: OrderedDict[tuple[str, str], _Release] = OrderedDict()
        self._targets: Mapping[tuple[str, str], float] = {}
        self._pins: OrderedDict[tuple[str, str, str], bool] = OrderedDict()

    def choose(
        self,
        service: str,
        digest: str,
        policy: RoutingPolicy,
        unit: str,
        fields: Mapping[str, Any],
        killed: frozenset[str],
        lone: bool = False,
        like: str | None = None,
    ) -> Choice | None:
        """Which route of the release answers this request first; None: as its routes are written. `lone`: no other request is of its unit.

        `like`: the release whose boundary holds, where both choose by the same policy: stable's, for its candidate.
        """
        if KILL in killed or not self.enabled:
            return None
        if policy.override is not None:
            return Choice(policy.override == policy.strong, ADAPTIVE)
        known = self._release(service, digest, policy)
        follows = like is not None and like != digest and self._follow(service, known, like)
        difficulty, features = known.scorer.hardest(fields)
        bucketed, tie = _BUCKETS.two_buckets(unit)
        placed = difficulty + TIE_WIDTH * (tie - 0.5)
        control = bucketed < policy.control_bucket_share
        adapts = policy.adapt and FREEZE not in killed and not control
        boundary = known.boundary.value if adapts else policy.boundary
        strong, new = placed >= boundary, True
        if not lone:
            strong, new = self._pinned((service, digest, unit), strong)
        bucket = CONTROL if control else ADAPTIVE
        if new:
            known.shares[bucket].add(strong)
            if adapts and not follows:
                known.boundary.see(placed)
        return Choice(strong, bucket, difficulty, boundary, features)

    def aim(self, targets: Mapping[tuple[str, str], float]) -> None:
        """The wanted shares that follow from outcomes, by service and release; a release not named wants its own."""
        self._targets = targets
        for place, known in self._releases.items():
            known.boundary.aim(targets.get(place))

    def state(self, service: str, digest: str, policy: RoutingPolicy, killed: frozenset[str]) -> RoutingState:
        """How it stands with one release, for people."""
        known = self._releases.get((service, digest)) or _begin(policy, self._targets.get((service, digest)))
        held, mode = known.shares[ADAPTIVE], self._mode(policy, killed)
        away = abs(held.value - policy.strong_share) if held.value is not None and held.seen >= SHARE_SEEN_MIN else 0.0
        return RoutingState(
            release=digest,
            boundary=known.boundary.value if mode == "adaptive" else policy.boundary,
            target_share=known.boundary.target_share,
            drift=max(known.boundary.drift, away),
            shares={bucket: held.value for bucket, held in known.shares.items()},
            conversations=sum(held.seen for held in known.shares.values()),
            limited=known.boundary.limited,
            mode=mode,
        )

    def _mode(self, policy: RoutingPolicy, killed: frozenset[str]) -> str:
        if KILL in killed or not self.enabled:
            return "killed"
        if policy.override is not None:
            return "override"
        return "adaptive" if policy.adapt and FREEZE not in killed else "frozen"

    def _follow(self, service: str, known: _Release, like: str) -> bool:
        """Give a candidate the boundary that stable has at this moment, and keep it from one of its own; False: it has another policy."""
        model = self._releases.get((service, like))
        if model is None or model.policy != known.policy:
            return False
        known.boundary.value = model.boundary.value
        return True

    def _release(self, service: str, digest: str, policy: RoutingPolicy) -> _Release:
        place = (service, digest)
        known = self._releases.get(place)
        if known is None or (known.policy is not policy and known.policy != policy):
            known = self._releases[place] = _begin(policy, self._targets.get(place))
            if len(self._releases) > RELEASES_MAX:
                self._releases.popitem(last=False)
        return known

    def _pinned(self, place: tuple[str, str, str], strong: bool) -> tuple[bool, bool]:
        """The model of a conversation, which only goes up, and whether the conversation is new."""
        before = self._pins.pop(place, None)  # and to the end of them
        if self._seen is not None and not before:
            noted = self._seen.note(strong, *place)
            before = noted if noted is not None else before
        self._pins[place] = strong = strong or bool(before)
        if len(self._pins) > self._pins_max:
            self._pins.popitem(last=False)
        return strong, before is None


def _begin(policy: RoutingPolicy, target_share: float | None) -> _Release:
    return _Release(policy, Scorer(policy.weights), Boundary(policy, target_share), {CONTROL: Share(), ADAPTIVE: Share()})
