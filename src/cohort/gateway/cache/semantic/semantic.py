"""L4 as a call meets it: find the nearest question that no guard objects to, let it answer where it has earned that, and learn from every
answer of the model.

What is found and does not answer (not accepted yet, or drawn for the sample) costs the client nothing: the model answers, and its answer
is compared with the kept one. So acceptance is learned before it is used, and the sample keeps measuring what is served.

Comparisons count for their kind of difference alone, and where words stand in the place of others for these words: see `guards.difference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from cohort.gateway.cache.answers import Answer, content_of
from cohort.gateway.cache.memory import Kept
from cohort.gateway.cache.semantic.acceptance import Grade, accepts, band, refused
from cohort.gateway.cache.semantic.asking import Question, question
from cohort.gateway.cache.semantic.baselines import Baselines
from cohort.gateway.cache.semantic.drift import Drift, Steadiness
from cohort.gateway.cache.semantic.embedder import Embedder, source
from cohort.gateway.cache.semantic.embedding import NoVector
from cohort.gateway.cache.semantic.grading import grade
from cohort.gateway.cache.semantic.guards import NO_DIFFERENCE, Difference, Kind, difference, first_objection
from cohort.gateway.cache.semantic.judging import Case, Judge
from cohort.gateway.cache.semantic.labels import KEY_BYTES, NOBODY, LabelBook
from cohort.gateway.cache.semantic.recorded import OBSERVED_BELOW, THRESHOLD_MIN
from cohort.gateway.cache.semantic.store import Entry, Store, key_of
from cohort.gateway.cache.semantic.tally import SERVICES_MAX, Tally, Watches
from cohort.gateway.cache.semantic.text import features
from cohort.gateway.contract_cache import SemanticPolicy
from cohort.gateway.log import Log
from cohort.gateway.metrics import Labels

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

READ_AT_ONCE_CHARS_MAX = 600
"""Of answers that are compared on the event loop, in about a millisecond; longer ones are compared in a thread."""
POOLS_MAX = 16_384
"""1 MiB on disk. Every two words that were exchanged for each other have one."""
EXCHANGE = "exchange"
"""Counted beside the guards: words stand in the place of others, and it is not known yet that both mean the same."""
POOL_KEPT_S = 30 * 86_400.0
"""How long what was learned of all entries of a kind is remembered after the last comparison."""


@dataclass(slots=True, eq=False)
class Match:
    """A question with its vector, and the entry found for it, if any. `serves`: its answer may be given; `sampled`: it could, but was drawn.

    `difference`: between the question's words and the entry's. `observed`: a candidate below the threshold that was drawn for comparison, so
    that it is known what a lower threshold would do.
    """

    question: Question
    service: str
    release: str
    source: str
    vector: Vector
    policy: SemanticPolicy
    entry: Entry | None = None
    kept: Kept | None = None
    cosine: float = 0.0
    difference: Difference = NO_DIFFERENCE
    serves: bool = False
    sampled: bool = False
    observed: Kept | None = None
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class Taught:
    """What outlives the process: labels by entry and by kind of entry, and frozen baselines."""

    own: LabelBook
    pooled: LabelBook
    baselines: Baselines

    def sync(self) -> None:
        self.own.sync()
        self.pooled.sync()
        self.baselines.sync()

    def close(self) -> None:
        self.own.close()
        self.pooled.close()


class Semantic:
    """Everything that calls share. `chance`: a number from 0 to 1, another each time."""

    question = staticmethod(question)

    def __init__(self, store: Store, embedder: Embedder, taught: Taught, chance: Callable[[], float], log: Log) -> None:
        self._store = store
        self._embedder = embedder
        self._taught = taught
        self._own, self._pooled = taught.own, taught.pooled
        self._chance = chance
        self._log = log
        self._tallies: dict[str, Tally] = {}
        self._watches = Watches(taught.baselines, log)
        self.judge = Judge(log)
        self.refused = 0

    async def look(self, question: Question, service: str, release: str, policy: SemanticPolicy, age_max_s: float | None) -> Match | None:
        """What is known of a question; None when it has no vector now, which is a miss."""
        try:
            vector = await self._embedder.vector(question.text, policy.embeddings)
        except NoVector as error:
            self._tally(service).without_vector += 1
            self._log.seldom("cache_embedding_failed", service=service, reason=str(error))
            return None
        match = Match(question, service, release, source(policy.embeddings), vector, policy)
        await self.match(match, age_max_s)
        return match

    async def match(self, match: Match, age_max_s: float | None) -> None:
        """Find the nearest entry that no guard objects to, and decide whether it may answer."""
        tally, policy = self._tally(match.service), match.policy
        floor = max(THRESHOLD_MIN, policy.threshold - OBSERVED_BELOW)
        near = await self._store.nearest(match.question.partition, match.vector, floor)
        tally.looked += 1
        found = self._first(match, near, age_max_s, tally)
        if found is None:
            match.ticket = tally.recorded.add(None)
        elif match.entry is None:
            match.ticket = tally.recorded.add(found, below=policy.threshold)
        else:
            self._decide(match, match.entry, tally)
            is_new = match.difference.kind is Kind.EXCHANGED and not (match.serves or match.sampled)
            match.ticket = tally.recorded.add(None if is_new else found, match.serves)  # another threshold would not serve it either
        self._watches.looked(match.service, match.release, match.entry is not None)

    def _first(self, match: Match, near: list[tuple[Entry, float]], age_max_s: float | None, tally: Tally) -> float | None:
        """The likeness of the first candidate that no guard objects to, which is then the match's; of one below the threshold only drawn ones.

        One whose words are alike goes before nearer ones with more words, and these before nearer ones with others.
        """
        asked, lexical = features(match.question.text), match.policy.embeddings is None
        second: tuple[Entry, Kept, float, Difference] | None = None
        for entry, cosine in near:
            is_near = cosine >= match.policy.threshold
            if not is_near and second is not None:
                break
            objection = first_objection(asked, entry.features, lexical)
            if objection is not None:
                if is_near:
                    tally.objected(objection)
                continue
            found = difference(asked, entry.features)
            if found.kind is Kind.EXCHANGED and (second is not None or not is_near):
                continue
            if found.kind is Kind.ADDED and second is not None and second[3].kind is Kind.ADDED:
                continue
            kept = self._store.kept(entry, age_max_s) if is_near else self._store.peek(entry)
            if kept is None:
                continue
            if not is_near:
                if self._chance() < match.policy.sample_share:
                    match.observed = kept
                return cosine
            if found.kind is Kind.ALIKE:
                match.entry, match.kept, match.cosine = entry, kept, cosine
                return cosine
            second = entry, kept, cosine, found
        if second is None:
            return None
        match.entry, match.kept, match.cosine, match.difference = second
        return match.cosine

    def _decide(self, match: Match, entry: Entry, tally: Tally) -> None:
        if not self._accepts(match, entry):
            tally.unproven += 1
            if match.difference.kind is Kind.EXCHANGED:
                tally.objected(EXCHANGE)
        elif self._chance() < match.policy.sample_share:
            match.sampled = True
        else:
            match.serves = True
            tally.served += 1

    def learn(self, match: Match, answer: Answer, unit: str, ttl_s: float) -> None:
        """The model answered: compare, label, and keep the new answer. Only answers that are one text take part."""
        fresh = content_of(answer.body)
        if fresh is None or answer.calls_tools:
            return
        if match.entry is not None and match.kept is not None:
            self._compare(match, match.entry, match.kept, fresh, unit, ttl_s)
        elif match.observed is not None:
            recorded = self._tally(match.service).recorded
            self._grade(match, match.observed, fresh, unit, None, lambda verdict, _: recorded.graded(match.ticket, verdict))
        if not refused(self._own.find(key_of(match.question))):
            self._store.keep(match.question, match.vector, answer, unit, ttl_s)

    def _compare(self, match: Match, entry: Entry, kept: Kept, fresh: str, unit: str, ttl_s: float) -> None:
        """Label the entry by what the letters say, and by the release's judge where they leave it open."""

        def tell(found: Grade, by_judge: bool) -> None:
            if by_judge:
                self._tally(match.service).judged[found] += 1
            self._label(match, entry, kept, found, ttl_s)

        self._grade(match, kept, fresh, unit, match.policy.judge, tell)

    def _grade(self, match: Match, kept: Kept, fresh: str, unit: str, judge: str | None, tell: Callable[[Grade, bool], None]) -> None:
        """At once where the answers are short; behind the call where they are long, or open and for a judge. Too many at a time are not compared."""
        former = content_of(kept.answer.body) or ""
        is_short = max(len(former), len(fresh)) <= READ_AT_ONCE_CHARS_MAX
        verdict = grade(former, fresh) if is_short else Grade.UNCLEAR
        case = Case(is_short, judge, match.question.text, former, fresh, frozenset((unit, kept.unit)), tell)
        offered = verdict is Grade.UNCLEAR and self.judge.offer(case)
        if is_short and not offered:
            tell(verdict, False)

    def _label(self, match: Match, entry: Entry, kept: Kept, verdict: Grade, ttl_s: float) -> None:
        tally = self._tally(match.service)
        (tally.sample if match.sampled else tally.learned)[verdict] += 1
        tally.recorded.graded(match.ticket, verdict)
        if match.sampled:
            self._watches.drawn(match.service, match.release, verdict)
        self._pooled.add(_pool(match), NOBODY, verdict, POOL_KEPT_S)
        if not self._store.holds(entry):
            return  # whose answer it was may have asked meanwhile to be forgotten
        self._own.add(_own(match, entry), kept.unit, verdict, ttl_s)
        if refused(self._own.find(entry.key)):
            self.refused += 1
            self._store.forget(entry)

    def _accepts(self, match: Match, entry: Entry) -> bool:
        return accepts(self._own.find(_own(match, entry)), self._pooled.find(_pool(match)), match.policy.false_hit_max)

    def age_s(self, kept: Kept) -> float:
        return self._store.age_s(kept)

    def erase(self, unit: str) -> int:
        """Forget a unit's answers and what was learned of them; how many answers there were. `sync` brings it to disk."""
        self.judge.forget(unit)
        self._own.erase(unit)
        return self._store.erase(unit)

    def sweep(self) -> None:
        self._store.sweep()
        self._own.sweep()

    def sync(self) -> None:
        """Bring what was learned to disk, from any thread. Raises OSError."""
        self._taught.sync()

    def retire(self) -> None:
        """Forget every answer; what was learned stays on disk, where the next process finds it."""
        self.judge.clear()
        self._store.clear()
        self._own.hand_over()
        self._pooled.hand_over()

    def close(self) -> None:
        self._taught.close()

    def gauges(self) -> list[tuple[Labels, float]]:
        """1 for each measure of a service's release that drifts, 0 where it is steady. What begins or ends to drift is said in the log."""
        return [_gauge(*found) for found in self._watches.judge() if found[2].state is not Steadiness.TOO_FEW]

    def state(self) -> dict[str, Any]:
        store = self._store
        held = {"entries": len(store), "bytes": store.used_bytes, "partitions": store.partitions, "evicted": store.evicted}
        learned = {"restarted": store.restarted, "refused": self.refused, "labels": len(self._own), "damaged": self._own.damaged}
        return {**held, **learned, "services": {name: self._told(name) for name in self._tallies}}

    def _told(self, service: str) -> dict[str, Any]:
        return {**self._tallies[service].state(), "drift": self._watches.state(service)}

    def _tally(self, service: str) -> Tally:
        if service not in self._tallies and len(self._tallies) >= SERVICES_MAX:
            self._tallies.clear()
        return self._tallies.setdefault(service, Tally())


def _gauge(service: str, release: str, drift: Drift) -> tuple[Labels, float]:
    return (("service", service), ("release", release), ("measure", drift.measure)), float(drift.state is Steadiness.DRIFTED)


def _own(match: Match, entry: Entry) -> bytes:
    """Under which key an entry's own comparisons stand: what more or other words did to it says nothing of it with its own."""
    if match.difference.kind is Kind.ALIKE:
        return entry.key
    return _hashed((entry.key, *_told(match.difference)))


def _told(difference: Difference) -> tuple[bytes, ...]:
    return tuple(part.encode("utf-8", "replace") for part in (difference.kind.value, *difference.words))


def _pool(match: Match) -> bytes:
    """Whose comparisons are put together: never those of two tenants, two services or two embeddings, nor of two kinds of difference."""
    question = match.question
    kind = (question.tenant, match.service, match.source, "follows" if question.follows else "first", str(band(match.cosine)))
    return _hashed((*(name.encode("utf-8", "replace") for name in kind), *_told(match.difference)))


def _hashed(parts: tuple[bytes, ...]) -> bytes:
    told = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return blake2b(told, digest_size=KEY_BYTES, person=b"cohort pool").digest()
