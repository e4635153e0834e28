"""What happened at each service: counts, the newest lookups, and whether its shares are still what they were."""

from __future__ import annotations

from typing import Any

from cohort.gateway.cache.semantic.acceptance import Grade
from cohort.gateway.cache.semantic.baselines import Baselines
from cohort.gateway.cache.semantic.drift import FALSE_HITS, HITS, MEASURES, Drift, Measure, Steadiness, Watch
from cohort.gateway.cache.semantic.proportion import clopper_pearson
from cohort.gateway.cache.semantic.recorded import Recorded
from cohort.gateway.log import Log

ALPHA = 0.05
SERVICES_MAX = 4096
WATCHED_MAX = 1024
"""Releases whose drift is watched; the one that was not begun for longest goes."""


class Tally:
    """One service. `sample`: comparisons of answers that would have been served, drawn by chance. `learned`: the others. `judged`: by a judge."""

    def __init__(self) -> None:
        self.looked = self.served = self.unproven = self.without_vector = 0
        self.objections: dict[str, int] = {}
        self.sample = dict.fromkeys(Grade, 0)
        self.learned = dict.fromkeys(Grade, 0)
        self.judged = dict.fromkeys(Grade, 0)
        self.recorded = Recorded()

    def objected(self, guard: str) -> None:
        self.objections[guard] = self.objections.get(guard, 0) + 1

    def state(self) -> dict[str, Any]:
        """Hit rate and false-hit rate side by side, each with its interval of 95 %. What is unclear counts as false in the upper bound only."""
        drawn = sum(self.sample.values())
        false, doubtful = self.sample[Grade.OTHER], self.sample[Grade.OTHER] + self.sample[Grade.UNCLEAR]
        return {
            "looked": self.looked,
            "served": self.served,
            "unproven": self.unproven,
            "without_vector": self.without_vector,
            "hit_rate": self.served / self.looked if self.looked else None,
            "hit_rate_95": clopper_pearson(self.served, self.looked, ALPHA),
            "sampled": drawn,
            "false_hit_rate": false / drawn if drawn else None,
            "false_hit_rate_95": (clopper_pearson(false, drawn, ALPHA)[0], clopper_pearson(doubtful, drawn, ALPHA)[1]),
            "objections": self.objections,
            "sample": {grade.value: count for grade, count in self.sample.items()},
            "learned": {grade.value: count for grade, count in self.learned.items()},
            "judged": {grade.value: count for grade, count in self.judged.items()},
            **self.recorded.state(),
        }


class Watches:
    """Drift of every release that looks questions up. A new release begins with an empty cache, and so with a baseline of its own."""

    def __init__(self, baselines: Baselines, log: Log) -> None:
        self._baselines = baselines
        self._log = log
        self._held: dict[tuple[str, str], dict[Measure, Watch]] = {}
        self._drifted: set[tuple[str, str, str]] = set()

    def looked(self, service: str, release: str, found: bool) -> None:
        self._add(service, release, HITS, found)

    def drawn(self, service: str, release: str, grade: Grade) -> None:
        """A hit that was drawn was compared; what is unclear says nothing here."""
        if grade is not Grade.UNCLEAR:
            self._add(service, release, FALSE_HITS, grade is Grade.OTHER)

    def state(self, service: str) -> dict[str, Any]:
        """Counts by release and measure: of the baseline, and of the newest."""
        return {
            release: {
                measure.name: {"baseline": [w.baseline.count, w.baseline.total], "recent": [w.recent.count, w.recent.total]}
                for measure, w in watches.items()
            }
            for (name, release), watches in self._held.items()
            if name == service
        }

    def judge(self) -> list[tuple[str, str, Drift]]:
        """Every drift by service and release. What begins or ends to drift is said in the log, once."""
        found = [(*place, watch.drift()) for place, watches in self._held.items() for watch in watches.values()]
        for service, release, drift in found:
            place, gone = (service, release, drift.measure), drift.state is Steadiness.DRIFTED
            if gone != (place in self._drifted):
                self._tell(service, release, drift, gone)
                (self._drifted.add if gone else self._drifted.discard)(place)
        return found

    def _tell(self, service: str, release: str, drift: Drift, gone: bool) -> None:
        told = {"service": service, "release": release, "measure": drift.measure}
        shares = {"baseline": drift.baseline.share, "recent": drift.recent.share, "low": drift.low, "high": drift.high}
        self._log.write("cache_drifted" if gone else "cache_steady", **told, **shares)

    def _add(self, service: str, release: str, measure: Measure, is_so: bool) -> None:
        watch = self._watches(service, release)[measure]
        if watch.add(is_so):
            self._baselines.freeze(service, release, measure.name, watch.baseline)

    def _watches(self, service: str, release: str) -> dict[Measure, Watch]:
        watches = self._held.get((service, release))
        if watches is None:
            if len(self._held) >= WATCHED_MAX:
                del self._held[next(iter(self._held))]
            watches = {measure: Watch(measure, self._baselines.find(service, release, measure.name)) for measure in MEASURES}
            self._held[(service, release)] = watches
        return watches
