"""What the caches do in the course of a call: look in each tier, answer from the first that has it, otherwise ask and keep."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from cohort.gateway.cache.asking import variant_of
from cohort.gateway.cache.caches import Caches, Hit, Lookup
from cohort.gateway.cache.serving import deliver, refuse
from cohort.gateway.contract import Result
from cohort.gateway.dialects.face import Chat
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.records import Ongoing, Recorder

Ask = Callable[[Ongoing, Chat, Request, Reply, Callable[[], object] | None], Coroutine[Any, None, None]]
"""How a call goes on when nothing is kept, and what comes after it."""


class CachedCalls:
    """Calls of releases with a cache, and those whose client says something about caches."""

    def __init__(self, caches: Caches, recorder: Recorder, ask: Ask) -> None:
        self._caches = caches
        self._recorder = recorder
        self._ask = ask
        self.in_flight = 0

    def handle(self, ongoing: Ongoing, chat: Chat, request: Request, reply: Reply, tenant: str = "") -> Coroutine[Any, None, None] | None:
        """Answer at once from memory, or go on to the other tiers and the model."""
        lookup = self._caches.begin(ongoing, chat, request.headers.get(b"cache-control"), tenant, variant_of(request.headers))
        hit = self._caches.find(lookup)
        if hit is None and self._caches.has_further(lookup):
            return self._seek(lookup, request, reply)
        return self._go_on(lookup, hit, request, reply)

    async def _seek(self, lookup: Lookup, request: Request, reply: Reply) -> None:
        self.in_flight += 1
        try:
            hit = await self._caches.seek(lookup)
        except BaseException:
            lookup.ongoing.result = Result.CLIENT_GONE if reply.gone else Result.LOST
            self._recorder.end(lookup.ongoing)
            raise
        finally:
            self.in_flight -= 1
        rest = self._go_on(lookup, hit, request, reply)
        if rest is not None:
            await rest

    def _go_on(self, lookup: Lookup, hit: Hit | None, request: Request, reply: Reply) -> Coroutine[Any, None, None] | None:
        self._caches.count(lookup, hit.tier if hit is not None else None)
        if lookup.takes_part:
            lookup.ongoing.step("cache", lookup.began_s, self._recorder.monotonic_s())
        if hit is not None:
            deliver(lookup, hit, self._recorder, reply)
        elif lookup.control.only_if_cached:
            refuse(lookup, self._recorder, reply)
        elif lookup.takes_part:
            return self._ask_and_keep(lookup, request, reply)
        else:
            return self._ask(lookup.ongoing, lookup.chat, request, reply, None)
        return None

    def _ask_and_keep(self, lookup: Lookup, request: Request, reply: Reply) -> Coroutine[Any, None, None]:
        """What is asked is what the key was made of, to the last digit: what another reads as another number is not asked as it came."""
        chat = lookup.chat
        if not chat.verbatim:
            chat.body = orjson.dumps(chat.native)
        return self._ask(lookup.ongoing, chat, request, reply, lambda: self._caches.keep(lookup))
