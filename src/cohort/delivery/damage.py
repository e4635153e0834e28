"""Whether stored releases still match their digests: the invariant that rolls back at once."""

from __future__ import annotations

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import ReleaseDigest
from cohort.delivery.face import Registry

CHECK_EVERY_S = 5.0
REMEMBERED_MAX = 1000


class DamageWatch:
    """Verifies a release at most every `CHECK_EVERY_S`; damage once seen stays."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._seen: dict[str, tuple[float, str | None]] = {}

    def __call__(self, digest: str) -> str | None:
        """What is damaged, in words; None when every object matched at the last look."""
        now_s = self._clock.monotonic_s()
        checked = self._seen.get(digest)
        if checked is not None and (checked[1] is not None or now_s - checked[0] < CHECK_EVERY_S):
            return checked[1]
        if len(self._seen) >= REMEMBERED_MAX:
            self._seen.clear()
        self._seen[digest] = (now_s, self._look(digest))
        return self._seen[digest][1]

    def _look(self, digest: str) -> str | None:
        try:
            self._registry.verify(ReleaseDigest(digest))
        except CohortError as error:
            if error.code != "RELEASE_DAMAGED":
                raise
            return error.message
        return None
