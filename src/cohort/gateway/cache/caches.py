"""The caches as a call meets them: look, answer from what is kept, keep what the model said, forget a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cohort.base.clock import Clock
from cohort.gateway.cache import answers
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.asking import CacheControl, cache_control, exact_key, may_keep, wants_usage
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.cache.memory import Memory
from cohort.gateway.cache.outside import Outside, Writing
from cohort.gateway.cache.packing import Found
from cohort.gateway.cache.tape import Tape
from cohort.gateway.contract import Result
from cohort.gateway.contract_cache import CachePolicy
from cohort.gateway.dialects.face import Chat
from cohort.gateway.dialects.operations import CHAT, MESSAGES, RESPONSES_NAME
from cohort.gateway.metrics import Metrics
from cohort.gateway.records import Ongoing
from cohort.gateway.table import Target

EXACT_FLAG = "cache.exact"
"""The kill switch of L1 to L3, read on every request; `COHORT_CACHE=0` in the environment is the same for every tier."""
KEPT = frozenset({CHAT.name, MESSAGES.name, RESPONSES_NAME})
"""Operations whose answers are kept."""
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
    """One call and the caches. `key`: None when they have no part in it (`bypass`). `target`: the route that the key is of."""

    ongoing: Ongoing
    chat: Chat
    target: Target
    policy: CachePolicy
    control: CacheControl
    key: bytes | None
    usage: bool
    began_s: float
    tape: Tape | None = None


class Caches:
    """What calls share. `killed` tells whether a kill switch is thrown at this moment."""

    def __init__(
        self,
        memory: Memory,
        outside: Outside,
        erased: Erased,
        clock: Clock,
        metrics: Metrics,
        answer_bytes_max: int,
        killed: Callable[[str], bool],
    ) -> None:
        self._memory = memory
        self._outside = outside
        self._erased = erased
        self._clock = clock
        self._answer_bytes_max = answer_bytes_max
        self._killed = killed
        self._metrics = metrics

    def begin(self, ongoing: Ongoing, chat: Chat, header: bytes | None, tenant: str = "") -> Lookup:
        """What the caches can do for a call. Sets what its reply will say of them."""
        target, control, key = ongoing.target, cache_control(header), None
        policy = target.cache or CachePolicy(exact=False)
        if self._takes_part(policy, control, chat, target):
            key = exact_key(tenant, ongoing.service.name, target.digest, target.route, chat.operation.name, chat.native)
        lookup = Lookup(ongoing, chat, target, policy, control, key, wants_usage(chat.fields), self._clock.monotonic_s())
        if key is not None:
            lookup.tape = ongoing.tape = Tape(self._answer_bytes_max)
        ongoing.cache_line = BYPASS if key is None else MISS
        return lookup

    def find(self, lookup: Lookup) -> Hit | None:
        """The answer in memory; None when there is none that serves."""
        if lookup.key is None or lookup.control.no_cache:
            return None
        kept = self._memory.find(lookup.key, lookup.control.max_age_s)
        if kept is None or not kept.answer.serves(lookup.ongoing.stream, lookup.usage):
            return None
        return Hit(Tier.MEMORY, kept.answer, self._memory.age_s(kept))

    def has_further(self, lookup: Lookup) -> bool:
        """There are tiers that have to be waited for."""
        return lookup.key is not None and not lookup.control.no_cache and self._outside.serves(lookup.policy)

    async def seek(self, lookup: Lookup) -> Hit | None:
        """The answer in the tiers outside this process, which is then kept in memory as well."""
        key = lookup.key
        if key is None:
            return None
        for tier, find in ((Tier.SHARED, self._outside.find_shared), (Tier.DISK, self._outside.find_on_disk)):
            found = await find(key, lookup.policy)
            if found is not None and self._serves(lookup, found):
                self._memory.keep(key, found.answer, found.unit, min(found.ttl_s, lookup.policy.ttl_s), found.age_s)
                return Hit(tier, found.answer, found.age_s)
        return None

    def count(self, lookup: Lookup, tier: Tier | None) -> None:
        what = tier.value if tier is not None else "bypass" if lookup.key is None else "miss"
        self._metrics.cached(lookup.ongoing.service.name, what)

    def keep(self, lookup: Lookup) -> None:
        """Keep the answer of a call that ended, if it is one to keep and nobody asked meanwhile to forget whose it is."""
        ongoing, tape = lookup.ongoing, lookup.tape
        if lookup.key is None or tape is None or tape.over or ongoing.result is not Result.OK:
            return
        if ongoing.target is not lookup.target:
            return  # another route answered
        if self._killed(EXACT_FLAG) or self._erased.since(ongoing.unit, lookup.began_s):
            return
        answer = (answers.of_stream if tape.streamed else answers.of_whole)(tape.data, ongoing.cost_usd_micro)
        if answer is not None:
            self._memory.keep(lookup.key, answer, ongoing.unit, lookup.policy.ttl_s)
            if self._outside.serves(lookup.policy):
                self._outside.offer(Writing(lookup.key, answer, ongoing.unit, lookup.began_s, lookup.policy))

    async def erase(self, unit: str) -> dict[str, int]:
        """Forget the answers to a unit's calls in every tier, those in flight included; how many each tier had.

        Raises:
            CohortError CACHE_NOT_ERASED: a tier did not answer; some may still be there.
        """
        self._erased.add(unit)
        in_memory = self._memory.erase(unit)
        outside = await self._outside.erase(unit)
        in_memory += self._memory.erase(unit)  # what was found outside meanwhile
        return {Tier.MEMORY.value: in_memory, **outside}

    def state(self) -> dict[str, Any]:
        """What is held, and how calls were answered, by service."""
        answered: dict[str, dict[str, int]] = {}
        for (service, what), count in self._metrics.cache.items():
            answered.setdefault(service, {})[what] = count
        memory = {"entries": len(self._memory), "bytes": self._memory.used_bytes, "evicted": self._memory.evicted}
        return {"services": answered, "l1": memory, **self._outside.state()}

    def sweep(self) -> None:
        """Drop what is over its time."""
        self._memory.sweep()

    def _serves(self, lookup: Lookup, found: Found) -> bool:
        age_max_s = lookup.control.max_age_s
        if found.age_s >= lookup.policy.ttl_s or (age_max_s is not None and found.age_s > age_max_s):
            return False
        return found.answer.serves(lookup.ongoing.stream, lookup.usage) and not self._erased.since(found.unit, lookup.began_s)

    def _takes_part(self, policy: CachePolicy, control: CacheControl, chat: Chat, target: Target) -> bool:
        if not policy.exact or control.no_store or chat.operation.name not in KEPT or self._killed(EXACT_FLAG):
            return False
        return may_keep(policy, chat.fields, target.parameters)
