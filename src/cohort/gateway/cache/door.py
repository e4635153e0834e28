"""Control's doors to the caches, under `/-/cache`: what they hold and how well they answer; forgetting a person."""

from __future__ import annotations

import orjson

from cohort.gateway.cache.caches import Caches
from cohort.gateway.forgetting import answering, whom
from cohort.gateway.http_messages import Reply, Request


class CacheDoor:
    """`unit_key`: makes the pseudonym of a person or conversation that is named as clients name it."""

    def __init__(self, caches: Caches, unit_key: bytes) -> None:
        self._caches = caches
        self._unit_key = unit_key

    @property
    def problems(self) -> list[str]:
        return [self._caches.problem] if self._caches.problem else []

    def state(self, _request: Request, reply: Reply) -> None:
        """GET /-/cache"""
        reply.send(200, orjson.dumps(self._caches.state()))

    async def erase(self, request: Request, reply: Reply) -> None:
        """POST /-/cache/erase with `{"unit": PSEUDONYM}` or `{"subject": NAME}`: the answers to these calls, in every tier."""
        with answering(reply):
            unit = whom(request, self._unit_key)
            reply.send(200, orjson.dumps({"unit": unit, "erased": await self._caches.erase(unit)}))
