"""What the doors by which a person is forgotten share: who is meant, and what went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from cohort.base.errors import CohortError
from cohort.gateway import openai
from cohort.gateway.assignment import UNIT_CHARS_MAX
from cohort.gateway.contract import pseudonym
from cohort.gateway.dialects.face import Refused
from cohort.gateway.http_messages import Reply, Request

PROBLEM = b"application/problem+json"
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")


@contextmanager
def answering(reply: Reply) -> Iterator[None]:
    """Errors in it are the answer."""
    try:
        yield
    except Refused as refused:
        reply.send(refused.status, openai.error(refused.message, refused.code))
    except CohortError as error:
        reply.send(error.http_status, orjson.dumps(error.problem()), content_type=PROBLEM)


def whom(request: Request, unit_key: bytes) -> str:
    """The pseudonym in `{"unit": PSEUDONYM}`, or of the name in `{"subject": NAME}`. `unit_key` makes it. Raises Refused 400."""
    fields = openai.parse_object(request.body)
    unit, subject = fields.get("unit"), fields.get("subject")
    if isinstance(unit, str) and _PSEUDONYM.fullmatch(unit) and subject is None:
        return unit
    if isinstance(subject, str) and subject and unit is None:
        return pseudonym(unit_key, subject[:UNIT_CHARS_MAX])
    raise Refused(400, "give `unit`, the 32 hexadecimal digits of X-Cohort-Unit, or `subject`, the name it was made of", "unit_invalid")
