"""What control does with samples of content: read one, forget a person's."""

from __future__ import annotations

import re

import orjson

from cohort.base.errors import CohortError
from cohort.gateway.forgetting import answering, whom
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.telemetry.contents import Contents

_PLACE = re.compile(rb"epoch=(\d{1,19})&seq=(\d{1,19})&arm=([a-z]{1,12})")


class ContentsDoor:
    """Endpoints for control alone."""

    def __init__(self, contents: Contents, unit_key: bytes) -> None:
        self._contents = contents
        self._unit_key = unit_key

    def read(self, request: Request, reply: Reply) -> None:
        """GET /-/contents?epoch=&seq=&arm=: the sample of one call, or null."""
        with answering(reply):
            found = _PLACE.fullmatch(request.target.partition(b"?")[2])
            if found is None:
                raise CohortError("FIELD_INVALID", "contents: give epoch, seq and arm")
            reply.send(200, orjson.dumps(self._contents.get(int(found[1]), int(found[2]), found[3].decode())))

    def erase(self, request: Request, reply: Reply) -> None:
        """POST /-/contents/erase with `{"unit": PSEUDONYM}` or `{"subject": NAME}`: the samples of these calls."""
        with answering(reply):
            unit = whom(request, self._unit_key)
            reply.send(200, orjson.dumps({"unit": unit, "erased": self._contents.erase(unit)}))
