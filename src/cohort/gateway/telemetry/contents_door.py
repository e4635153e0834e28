"""What control does with samples of content: read one, forget a person's."""

from __future__ import annotations

import re

import orjson

from cohort.base.errors import CohortError
from cohort.gateway import openai
from cohort.gateway.dialects.face import Refused
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.responses_door import PROBLEM, unit_of_person
from cohort.gateway.telemetry.contents import Contents

_PLACE = re.compile(rb"epoch=(\d{1,19})&seq=(\d{1,19})&arm=([a-z]{1,12})")


class ContentsDoor:
    """Endpoints for control alone."""

    def __init__(self, contents: Contents, unit_key: bytes) -> None:
        self._contents = contents
        self._unit_key = unit_key

    def read(self, request: Request, reply: Reply) -> None:
        """GET /-/contents?epoch=&seq=&arm=: the sample of one call, or null."""
        found = _PLACE.fullmatch(request.target.partition(b"?")[2])
        if found is None:
            reply.send(422, orjson.dumps(CohortError("FIELD_INVALID", "contents: give epoch, seq and arm").problem()), content_type=PROBLEM)
            return
        reply.send(200, orjson.dumps(self._contents.get(int(found[1]), int(found[2]), found[3].decode())))

    def erase(self, request: Request, reply: Reply) -> None:
        """POST /-/contents/erase with `{"unit": PSEUDONYM}` or `{"subject": NAME}`: the samples of these calls."""
        try:
            unit = unit_of_person(openai.parse_object(request.body), self._unit_key)
            erased = self._contents.erase(unit)
        except Refused as refused:
            reply.send(refused.status, openai.error(refused.message, refused.code))
        except CohortError as error:
            reply.send(error.http_status, orjson.dumps(error.problem()), content_type=PROBLEM)
        else:
            reply.send(200, orjson.dumps({"unit": unit, "erased": erased}))
