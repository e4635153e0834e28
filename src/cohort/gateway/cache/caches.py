"""The caches as a call meets them: look, answer from what is kept, keep what the model said, forget a person."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.gateway.cache import answers, from_messages
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.asking import ANYTHING, CacheControl, cache_control, exact_key, is_deterministic, wants_usage
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.cache.meaning import Meaning
from cohort.gateway.cache.memory import Memory
from cohort.gateway.cache.outside import Outside, Writing
from cohort.gateway.cache.packing import Found
from cohort.gateway.cache.tape import Form, Tape
from cohort.gateway.compiled import Target
from cohort.gateway.contract import Result
from cohort.gateway.contract_cache import CachePolicy
from cohort.gateway.dialects.face import Chat
from cohort.gateway.dialects.operations import CHAT, MESSAGES, RESPONSES_NAME
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Ongoing

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.asking import Question
    from cohort.gateway.cache.semantic.judging import Ask
    from cohort.gateway.cache.semantic.semantic import Match

EXACT_FLAG = "cache.exact"
"""The kill switch of L1 to L3, read on every request; `COHORT_CACHE=0` in the environment is the same for every tier."""
KEPT = frozenset({CHAT.name, MESSAGES.name, RESPONSES_NAME})
"""Operations whose answers are kept."""
SEMANTIC_FLAG = "cache.semantic"
ANEW = CacheControl(no_cache=True)
NO_POLICY = CachePolicy(exact=False)
DRIFT_GAUGE = "cohort_gateway_cache_drift"
DRIFT_WORDS = "1 where a share of the semantic cache has drifted from its baseline, 0 where it is steady."
_OK = Result.OK  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module
MISS, BYPASS = b"x-cohort-cache: miss\r\n", b"x-cohort-cache: bypass\r\n"


class Tier(StrEnum):
    """Which cache answered."""

    MEMORY = "l1"
    SHARED = "l2"
    DISK = "l3"
    SEMANTIC = "l4"


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that is kept, and how old it is."""

    tier: Tier
    answer: Answer
    age_s: float


@dataclass(slots=True, eq=False)
class Lookup:
    """One call and the caches. `key`: of L1 to L3, `question`: of L4, where these take part. `target`: the route they are of."""

    ongoing: Ongoing
    chat: Chat
    target: Target
    policy: CachePolicy
    control: CacheControl
    key: bytes | None
    question: Question | None
    takes_part: bool
    began_s: float
    tape: Tape | None = None
    match: Match | None = None

    def is_served(self, answer: Answer) -> bool:
        """An answer has all that the call asks for."""
        return answer.serves(self.ongoing.stream, self.usage)

    @property
    def usage(self) -> bool:
        """A stream is to end with usage."""
        return wants_usage(self.chat.fields)


class Caches:
    """What calls share. `killed` tells whether a kill switch is thrown at this moment."""

    def __init__(
        self,
        memory: Memory,
        outside: Outside,
        meaning: Meaning,
        erased: Erased,
        clock: Clock,
        metrics: Metrics,
        answer_bytes_max: int,
        killed: Callable[[str], bool],
    ) -> None:
        self._memory = memory
        self._outside = outside
        self._meaning = meaning
        self._erased = erased
        self._monotonic_s = clock.monotonic_s
        self._answer_bytes_max = answer_bytes_max
        self._killed = killed
        self._metrics = metrics
        self._retired = False

    def begin(self, ongoing: Ongoing, chat: Chat, header: bytes | None, tenant: str = "", variant: str = "") -> Lookup:
        """What the caches can do for a call. Sets what its reply will say of them. `variant`: see `variant_of`."""
        target, control = ongoing.target, ANYTHING if header is None else cache_control(header)
        policy, key, asked = target.cache or NO_POLICY, None, None
        lost = chat.turn is not None and bool(chat.unsayable)  # it goes on from what is not here, whose ever that was
        kept = not lost and not control.no_store and chat.operation.name in KEPT
        if kept and (policy.sampled or is_deterministic(chat.fields, target.parameters)):
            place = (tenant, ongoing.service.name, target.digest, target.route, chat.operation.name + variant, chat.native)
            key = exact_key(*place) if policy.exact and not self._killed(EXACT_FLAG) else None
            asked = self._meaning.needed().question(*place) if policy.semantic is not None and not self._killed(SEMANTIC_FLAG) else None
        split = ongoing.service.split
        compared = split is not None and split.bypass_caches
        if compared:
            control = ANEW if control is ANYTHING else replace(control, no_cache=True)
        takes_part = key is not None or asked is not None
        lookup = Lookup(ongoing, chat, target, policy, control, key, asked, takes_part, self._monotonic_s())
        if takes_part and not self._retired:
            lookup.tape = ongoing.tape = Tape(self._answer_bytes_max, chat.operation.name)
        ongoing.cache_line = MISS if takes_part and not compared else BYPASS
        return lookup

    def find(self, lookup: Lookup) -> Hit | None:
        """The answer in memory; None when there is none that serves."""
        if lookup.key is None or lookup.control.no_cache:
            return None
        kept = self._memory.find(lookup.key, lookup.control.max_age_s)
        if kept is None or not lookup.is_served(kept.answer):
            return None
        return Hit(Tier.MEMORY, kept.answer, self._memory.age_s(kept))

    def has_further(self, lookup: Lookup) -> bool:
        """There are tiers that have to be waited for."""
        if lookup.question is not None:
            return True
        return lookup.key is not None and not lookup.control.no_cache and self._outside.serves(lookup.policy)

    async def seek(self, lookup: Lookup) -> Hit | None:
        """The answer in the tiers that have to be waited for."""
        hit = None
        if lookup.key is not None and not lookup.control.no_cache:
            hit = await self._seek_outside(lookup, lookup.key)
        return hit if hit is not None or lookup.question is None else await self._seek_meaning(lookup, lookup.question)

    async def _seek_meaning(self, lookup: Lookup, asked: Question) -> Hit | None:
        """An answer to the same question in other words. What is found and may not serve is remembered for comparison."""
        policy, control = lookup.policy.semantic, lookup.control
        if policy is None:
            return None
        match = lookup.match = await self._meaning.needed().look(
            asked, lookup.ongoing.service.name, lookup.target.digest, policy, control.max_age_s
        )
        if match is None or match.kept is None or not match.serves or control.no_cache or self._killed(SEMANTIC_FLAG):
            return None
        if not lookup.is_served(match.kept.answer) or self._erased.since(match.kept.unit, lookup.began_s):
            return None
        return Hit(Tier.SEMANTIC, match.kept.answer, self._meaning.needed().age_s(match.kept))

    async def _seek_outside(self, lookup: Lookup, key: bytes) -> Hit | None:
        """What is found is then kept in memory as well."""
        for tier, find in ((Tier.SHARED, self._outside.find_shared), (Tier.DISK, self._outside.find_on_disk)):
            found = await find(key, lookup.policy)
            if found is not None and self._serves(lookup, found):
                if not self._retired:
                    self._memory.keep(key, found.answer, found.unit, min(found.ttl_s, lookup.policy.ttl_s), found.age_s)
                return Hit(tier, found.answer, found.age_s)
        return None

    def count(self, lookup: Lookup, tier: Tier | None) -> None:
        what = tier.value if tier is not None else "bypass" if lookup.ongoing.cache_line is BYPASS else "miss"
        self._metrics.cached(lookup.ongoing.service.name, what)

    def keep(self, lookup: Lookup) -> None:
        """Keep the answer of a call that ended, if it is one to keep and nobody asked meanwhile to forget whose it is."""
        ongoing, tape = lookup.ongoing, lookup.tape
        if tape is None or tape.over or ongoing.result is not _OK or self._retired:
            return
        if ongoing.target is not lookup.target:
            return  # another route answered: its answer is not the first one's, which may be asked again by the time of the next call
        if self._erased.since(ongoing.unit, lookup.began_s):
            return
        answer = _answer(lookup.chat, tape, ongoing.cost_usd_micro)
        if answer is not None:
            self._keep_exact(lookup, answer)
            if lookup.match is not None and not self._killed(SEMANTIC_FLAG):
                self._meaning.needed().learn(lookup.match, answer, ongoing.unit, lookup.policy.ttl_s)

    def _keep_exact(self, lookup: Lookup, answer: Answer) -> None:
        if lookup.key is None or self._killed(EXACT_FLAG):
            return
        self._memory.keep(lookup.key, answer, lookup.ongoing.unit, lookup.policy.ttl_s)
        if self._outside.serves(lookup.policy):
            self._outside.offer(Writing(lookup.key, answer, lookup.ongoing.unit, lookup.began_s, lookup.policy))

    async def erase(self, unit: str) -> dict[str, int]:
        """Forget the answers to a unit's calls in every tier, those in flight included; how many each tier had.

        Raises:
            CohortError CACHE_NOT_ERASED: a tier did not answer; some may still be there.
        """
        self._erased.add(unit)
        in_memory, by_meaning = self._memory.erase(unit), self._meaning.erase(unit)
        await self._labels_erased()
        outside = await self._outside.erase(unit)
        in_memory += self._memory.erase(unit)  # what was found outside meanwhile
        return {Tier.MEMORY.value: in_memory, **outside, Tier.SEMANTIC.value: by_meaning}

    async def _labels_erased(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._meaning.sync)
        except OSError as error:
            said = f"what was learned of the answers could not be erased: {os.strerror(error.errno or 0)}"
            raise CohortError("CACHE_NOT_ERASED", said, retry=Retry.SAFE, hint="Ask again once the disk works.") from error

    def sync(self) -> None:
        """Bring to disk what comparisons taught, from any thread. Raises OSError."""
        self._meaning.sync()

    def state(self) -> dict[str, Any]:
        """What is held, and how calls were answered, by service."""
        answered: dict[str, dict[str, int]] = {}
        for (service, what), count in self._metrics.cache.items():
            answered.setdefault(service, {})[what] = count
        memory = {"entries": len(self._memory), "bytes": self._memory.used_bytes, "evicted": self._memory.evicted}
        return {"services": answered, "l1": memory, **self._outside.state(), "l4": self._meaning.state()}

    @property
    def problem(self) -> str | None:
        """What keeps a tier from being used now, in words; calls are answered without it."""
        return self._outside.problem

    async def run(self) -> None:
        """Write behind the answers, and have judged what is open, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outside.run())
            group.create_task(self._meaning.run())

    def consult(self, ask: Ask) -> None:
        """How services are asked on the gateway's own behalf."""
        self._meaning.consult(ask)

    def retire(self) -> None:
        """Forget everything and keep nothing from now on: from here on nobody can reach this process to have a person forgotten."""
        self._retired = True
        self._outside.retire()
        self._memory.clear()
        self._meaning.retire()

    def close(self) -> None:
        self._outside.close()
        self._meaning.close()

    def sweep(self) -> None:
        """Drop what is over its time, and look for drift."""
        self._memory.sweep()
        self._metrics.labelled[DRIFT_GAUGE] = (DRIFT_WORDS, self._meaning.sweep())

    def _serves(self, lookup: Lookup, found: Found) -> bool:
        age_max_s = lookup.control.max_age_s
        if found.age_s >= lookup.policy.ttl_s or (age_max_s is not None and found.age_s > age_max_s):
            return False
        return lookup.is_served(found.answer) and not self._erased.since(found.unit, lookup.began_s)


def _answer(chat: Chat, tape: Tape, saved_usd_micro: int | None) -> Answer | None:
    data = tape.data
    if tape.form is Form.MESSAGE:
        return (from_messages.of_stream if tape.streamed else from_messages.of_whole)(chat, data, saved_usd_micro)
    if tape.streamed:
        return answers.of_stream(data, saved_usd_micro)
    known, fields = chat.answered
    return answers.of_fields(data, fields, saved_usd_micro) if known is data else answers.of_whole(data, saved_usd_micro)
