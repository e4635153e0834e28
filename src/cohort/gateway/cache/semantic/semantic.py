"""L4 as a call meets it: find the nearest question that no guard objects to, let it answer where it has earned that, and learn from every
answer of the model.

What is found and does not answer (not accepted yet, or drawn for the sample) costs the client nothing: the model answers, and its answer
is compared with the kept one. So acceptance is learned before it is used, and the sample keeps measuring what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from cohort.gateway.cache.answers import Answer, content_of
from cohort.gateway.cache.memory import Kept
from cohort.gateway.cache.semantic.acceptance import BANDS, Grade, accepts, band, refused
from cohort.gateway.cache.semantic.asking import Question
from cohort.gateway.cache.semantic.embedder import Embedder, source
from cohort.gateway.cache.semantic.embedding import NoVector
from cohort.gateway.cache.semantic.grading import grade
from cohort.gateway.cache.semantic.guards import first_objection
from cohort.gateway.cache.semantic.labels import KEY_BYTES, NOBODY, LabelBook
from cohort.gateway.cache.semantic.proportion import clopper_pearson
from cohort.gateway.cache.semantic.store import Entry, Store, key_of
from cohort.gateway.cache.semantic.text import features
from cohort.gateway.contract_cache import SemanticPolicy
from cohort.gateway.log import Log

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

SERVICES_MAX = 4096
POOLS_MAX = 4096
POOL_KEPT_S = 30 * 86_400.0
"""How long what was learned of all entries of a kind is remembered after the last comparison."""
ALPHA = 0.05


@dataclass(slots=True, eq=False)
class Match:
    """A question with its vector, and the entry found for it, if any. `serves`: its answer may be given; `sampled`: it could, but was drawn."""

    question: Question
    service: str
    source: str
    vector: Vector
    policy: SemanticPolicy
    entry: Entry | None = None
    kept: Kept | None = None
    cosine: float = 0.0
    serves: bool = False
    sampled: bool = False


class Tally:
    """What happened at one service. `sample`: comparisons of answers that would have been served, drawn by chance.

    `bands`: of each band of likeness, lowest first, the questions found, those served, and every comparison: what another threshold would change.
    """

    def __init__(self) -> None:
        self.looked = self.served = self.unproven = self.without_vector = 0
        self.objections: dict[str, int] = {}
        self.sample = dict.fromkeys(Grade, 0)
        self.learned = dict.fromkeys(Grade, 0)
        self.bands = [dict.fromkeys(("found", "served", *(grade.value for grade in Grade)), 0) for _ in range(len(BANDS) + 1)]

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
            "bands": [{"from": lower, **counts} for lower, counts in zip((0.0, *BANDS), self.bands, strict=True)],
        }


class Semantic:
    """Everything that calls share. `own`: labels by entry, `pooled`: by kind of entry. `chance`: a number from 0 to 1, another each time."""

    def __init__(self, store: Store, embedder: Embedder, own: LabelBook, pooled: LabelBook, chance: Callable[[], float], log: Log) -> None:
        self._store = store
        self._embedder = embedder
        self._own = own
        self._pooled = pooled
        self._chance = chance
        self._log = log
        self._tallies: dict[str, Tally] = {}
        self.refused = 0

    async def look(self, question: Question, service: str, policy: SemanticPolicy, age_max_s: float | None) -> Match | None:
        """What is known of a question; None when it has no vector now, which is a miss."""
        try:
            vector = await self._embedder.vector(question.text, policy.embeddings)
        except NoVector as error:
            self._tally(service).without_vector += 1
            self._log.seldom("cache_embedding_failed", service=service, reason=str(error))
            return None
        return await self.match(question, service, source(policy.embeddings), vector, policy, age_max_s)

    async def match(
        self, question: Question, service: str, source: str, vector: Vector, policy: SemanticPolicy, age_max_s: float | None
    ) -> Match:
        """The nearest entry that no guard objects to, and whether it may answer. `source`: names the embedding; labels are pooled by it."""
        tally = self._tally(service)
        tally.looked += 1
        match = Match(question, service, source, vector, policy)
        asked = features(question.text)
        for entry, cosine in await self._store.nearest(question.partition, vector, policy.threshold):
            objection = first_objection(asked, entry.features, policy.embeddings is None)
            if objection is not None:
                tally.objections[objection] = tally.objections.get(objection, 0) + 1
                continue
            kept = self._store.kept(entry, age_max_s)
            if kept is not None:
                self._decide(match, entry, kept, cosine, tally)
                return match
        return match

    def _decide(self, match: Match, entry: Entry, kept: Kept, cosine: float, tally: Tally) -> None:
        match.entry, match.kept, match.cosine = entry, kept, cosine
        counts = tally.bands[band(cosine)]
        counts["found"] += 1
        if not self._accepts(match, entry):
            tally.unproven += 1
        elif self._chance() < match.policy.sample_share:
            match.sampled = True
        else:
            match.serves = True
            tally.served += 1
            counts["served"] += 1

    def learn(self, match: Match, answer: Answer, unit: str, ttl_s: float) -> None:
        """The model answered: compare, label, and keep the new answer. Only answers that are one text take part."""
        fresh = content_of(answer.body)
        if fresh is None or answer.calls_tools:
            return
        if match.entry is not None and match.kept is not None:
            verdict = grade(content_of(match.kept.answer.body) or "", fresh)
            self._label(match, match.entry, match.kept, verdict, ttl_s)
        if not refused(self._own.find(key_of(match.question))):
            self._store.keep(match.question, match.vector, answer, unit, ttl_s)

    def _label(self, match: Match, entry: Entry, kept: Kept, verdict: Grade, ttl_s: float) -> None:
        tally = self._tally(match.service)
        (tally.sample if match.sampled else tally.learned)[verdict] += 1
        tally.bands[band(match.cosine)][verdict.value] += 1
        self._pooled.add(_pool(match), NOBODY, verdict, POOL_KEPT_S)
        if not self._store.holds(entry):
            return  # whose answer it was may have asked meanwhile to be forgotten
        self._own.add(entry.key, kept.unit, verdict, ttl_s)
        if refused(self._own.find(entry.key)):
            self.refused += 1
            self._store.forget(entry)

    def _accepts(self, match: Match, entry: Entry) -> bool:
        return accepts(self._own.find(entry.key), self._pooled.find(_pool(match)), match.policy.false_hit_max)

    def age_s(self, kept: Kept) -> float:
        return self._store.age_s(kept)

    def erase(self, unit: str) -> int:
        """Forget a unit's answers and what was learned of them; how many answers there were. `sync` brings it to disk."""
        self._own.erase(unit)
        return self._store.erase(unit)

    def sweep(self) -> None:
        self._store.sweep()
        self._own.sweep()

    def sync(self) -> None:
        """Bring what was learned to disk, from any thread. Raises OSError."""
        self._own.sync()
        self._pooled.sync()

    def retire(self) -> None:
        """Forget every answer; what was learned stays on disk, where the next process finds it."""
        self._store.clear()

    def close(self) -> None:
        self._own.close()
        self._pooled.close()

    def state(self) -> dict[str, Any]:
        store = self._store
        held = {"entries": len(store), "bytes": store.used_bytes, "partitions": store.partitions, "evicted": store.evicted}
        learned = {"restarted": store.restarted, "refused": self.refused, "labels": len(self._own), "damaged": self._own.damaged}
        return {**held, **learned, "services": {name: tally.state() for name, tally in self._tallies.items()}}

    def _tally(self, service: str) -> Tally:
        if service not in self._tallies and len(self._tallies) >= SERVICES_MAX:
            self._tallies.clear()
        return self._tallies.setdefault(service, Tally())


def _pool(match: Match) -> bytes:
    """Whose comparisons are put together: never those of two tenants, two services or two embeddings."""
    question = match.question
    kind = (question.tenant, match.service, match.source, "follows" if question.follows else "first", str(band(match.cosine)))
    told = b"".join(len(part).to_bytes(4, "big") + part for part in (name.encode("utf-8", "replace") for name in kind))
    return blake2b(told, digest_size=KEY_BYTES, person=b"cohort pool").digest()
