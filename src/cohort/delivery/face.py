"""The verbs of delivery, as every surface calls them. `registry.py` and `rollouts.py` implement them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cohort.base.ids import ReleaseDigest
from cohort.delivery.cache_state import Person
from cohort.delivery.cache_views import CacheView, Erasure
from cohort.delivery.model import FlagKill, Forecast, Killed, Plan, Release, Replay, RollbackResult, RolloutRow, RolloutView, ServiceView
from cohort.delivery.routing_fit import Fit
from cohort.delivery.routing_views import RoutingReplay, RoutingView


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest as written (`source` is its file name, for errors) and the text of every file it names."""

    source: str
    manifest: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Created:
    """`created` is False when the very same release was there already; `became_stable` when the service had none before.

    `unpriced_routes`: those whose price is not known today. Their calls have no cost, and a budget refuses them.
    """

    release: Release
    created: bool
    became_stable: bool
    unpriced_routes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something to a rollout, why, and on what they had seen.

    `revision`: refuse (ROLLOUT_CHANGED) when the rollout has moved on since; None: whatever it is now.
    `idempotency_key`: the same key again answers as the first time and changes nothing.
    """

    actor: str
    reason: str = ""
    revision: int | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Ask for a rollout. `plan` is a preset's name or a plan document's text; `at` starts at the first stage with at least that percentage.

    `strict`: refuse (PLAN_UNDERPOWERED) where the forecast warns.
    """

    service: str
    to: str
    plan: str
    act: Act
    speed: float = 1.0
    at_pct: float | None = None
    strict: bool = False


class Registry(Protocol):
    def create(self, bundle: Bundle, actor: str) -> Created:
        """Validate, freeze and store. Errors: DOCUMENT_INVALID, FILE_MISSING, PROVIDER_UNKNOWN, RELEASE_VERSION_TAKEN."""
        ...

    def list(self, service: str | None = None) -> Sequence[Release]:
        """Newest first."""
        ...

    def find(self, ref: str, service: str | None = None) -> Release:
        """By digest, unique digest prefix (8 digits or more), or within `service` by version or tag; `service@version` also works.

        Errors: RELEASE_UNKNOWN, RELEASE_AMBIGUOUS, RELEASE_DAMAGED.
        """
        ...

    def verify(self, digest: ReleaseDigest) -> None:
        """Re-read every object of the release and its row against its digest; raises RELEASE_DAMAGED naming the object."""
        ...


class Rollouts(Protocol):
    def version(self) -> int:
        """Grows whenever anything shown here may have changed; cheap, for live pages."""
        ...

    def services(self) -> Sequence[ServiceView]: ...
    def service(self, name: str) -> ServiceView: ...
    def plans(self) -> Sequence[Plan]: ...

    def forecast(
        self, service: str, plan: str, *, speed: float = 1.0, units_per_s: float | None = None, failure_rate: float | None = None
    ) -> Forecast:
        """What this plan can see with this traffic; figures left out are taken from what the service has seen."""
        ...

    def start(self, start: Start) -> RolloutView: ...
    def list(
        self, service: str | None = None, active: bool | None = None, limit: int = 50, before_us: int | None = None
    ) -> Sequence[RolloutRow]: ...
    def show(self, rollout: str) -> RolloutView:
        """`rollout`: an id, or a service's name for its newest."""
        ...

    def pause(self, rollout: str, act: Act) -> RolloutView: ...
    def resume(self, rollout: str, act: Act) -> RolloutView: ...
    def approve(self, rollout: str, act: Act) -> RolloutView: ...
    def promote(self, rollout: str, act: Act) -> RolloutView:
        """One stage on by a person's word: the certificate is waived with `act.reason`; an alarm is not waivable."""
        ...

    def rollback(self, rollout: str, act: Act) -> RolloutView: ...
    def abort(self, rollout: str, act: Act) -> RolloutView: ...
    def replay(self, rollout: str) -> Replay: ...
    def rollback_service(self, service: str, act: Act, to: str | None = None) -> RollbackResult:
        """The emergency verb: end the active rollout, or without one go back to the previous stable (or to `to`); verified."""
        ...


class Flags(Protocol):
    """The kill list. Errors: FIELD_INVALID, NOT_FOUND, AUDIT_UNAVAILABLE (nothing was done)."""

    def list(self) -> Sequence[FlagKill]: ...
    def kill(self, flag: str, prefix: bool, actor: str, reason: str) -> Killed: ...
    def restore(self, flag: str, prefix: bool, actor: str, reason: str) -> Killed: ...


class Routing(Protocol):
    """How services choose between two models. Errors: NOT_FOUND: no such service, or its stable release does not choose."""

    def chooses(self, service: str) -> bool:
        """Whether the stable release chooses at all. Cheap; False also where there is no such service."""
        ...

    def view(self, service: str) -> RoutingView: ...
    def replay(self, service: str, boundaries: Sequence[float], weights: Mapping[str, float] | None = None) -> RoutingReplay:
        """Errors: FIELD_INVALID."""
        ...

    def fit(self, service: str) -> Fit:
        """Errors: NOT_ENOUGH_EVIDENCE."""
        ...


class Caching(Protocol):
    """The gateway's caches. Errors: NOT_FOUND: no such service, or its stable release has no cache."""

    def keeps(self, service: str) -> bool:
        """Whether the stable release has a cache at all. Cheap; False also where there is no such service."""
        ...

    def view(self, service: str) -> CacheView: ...
    def erase(self, person: Person, actor: str) -> Erasure:
        """Forget a person. Errors: FIELD_INVALID, AUDIT_UNAVAILABLE (nothing was erased), CACHE_NOT_ERASED (not everything was)."""
        ...


__all__ = ["Act", "Bundle", "Caching", "Created", "Flags", "Registry", "Rollouts", "Routing", "Start"]
