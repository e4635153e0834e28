"""Control's doors to the caches, under `/-/cache`: what they hold and how well they answer; forgetting a person."""

from __future__ import annotations

import re

import orjson

from cohort.base.errors import CohortError
from cohort.gateway import openai
from cohort.gateway.assignment import UNIT_CHARS_MAX
from cohort.gateway.cache.caches import Caches
from cohort.gateway.contract import pseudonym
from cohort.gateway.dialects.face import Refused
from cohort.gateway.http_messages import Reply, Request

PROBLEM = b"application/problem+json"
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")


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
        try:
            unit = self._unit(openai.parse_object(request.body))
        except Refused as refused:
            reply.send(refused.status, openai.error(refused.message, refused.code))
            return
        try:
            erased = await self._caches.erase(unit)
        except CohortError as error:
            reply.send(error.http_status, orjson.dumps(error.problem()), content_type=PROBLEM)
        else:
            reply.send(200, orjson.dumps({"unit": unit, "erased": erased}))

    def _unit(self, fields: dict[str, object]) -> str:
        unit, subject = fields.get("unit"), fields.get("subject")
        if isinstance(unit, str) and _PSEUDONYM.fullmatch(unit) and subject is None:
            return unit
        if isinstance(subject, str) and subject and unit is None:
            return pseudonym(self._unit_key, subject[:UNIT_CHARS_MAX])
        raise Refused(400, "give `unit`, the 32 hexadecimal digits of X-Cohort-Unit, or `subject`, the name it was made of", "unit_invalid")
