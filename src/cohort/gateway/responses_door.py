"""What a caller, or control, does with kept responses: read one, delete one, forget a person's."""

from __future__ import annotations

from typing import Any

import orjson

from cohort.base.ids import Entropy
from cohort.gateway.dialects.face import Refused
from cohort.gateway.dialects.operations import operations
from cohort.gateway.dialects.responses import RESPONSE_ID
from cohort.gateway.dialects.responses_same import Given
from cohort.gateway.forgetting import answering, whom
from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.kept_responses import KeptResponses
from cohort.gateway.spend.callers import Caller


class ResponsesDoor:
    """`operations` are every model call that a caller can make, by path; those of Responses among them keep what they answer."""

    def __init__(self, memory: KeptResponses, given: Given, entropy: Entropy, unit_key: bytes) -> None:
        self._memory = memory
        self._unit_key = unit_key
        self.operations = operations(memory, given, lambda: f"resp_{entropy(16).hex()}")

    def kept(self, rest: bytes, owner: str, request: Request, reply: Reply) -> None:
        """GET and DELETE /v1/responses/ID, GET /v1/responses/ID/input_items, of `owner`'s. Raises Refused 404, 405."""
        response_id, _, part = rest.decode("ascii", "replace").partition("/")
        kept = self._memory.get(response_id) if RESPONSE_ID.fullmatch(response_id) else None
        if kept is None or kept["owner"] != owner or part not in ("", "input_items"):
            raise Refused(404, f"no response {response_id[:100]!r} is kept here", "response_not_found", "response_id")
        if request.method == b"DELETE" and not part:
            self._memory.delete(response_id)
            reply.send(200, orjson.dumps({"id": response_id, "object": "response", "deleted": True}))
        elif request.method != b"GET":
            raise Refused(405, "a kept response takes GET or DELETE", "method_not_allowed", headers=b"allow: GET, DELETE\r\n")
        else:
            reply.send(200, orjson.dumps(_items(kept["messages"]) if part else kept["response"]))

    def erase(self, request: Request, reply: Reply) -> None:
        """POST /-/responses/erase with `{"unit": PSEUDONYM}` or `{"subject": NAME}`: the responses kept for these calls."""
        with answering(reply):
            unit = whom(request, self._unit_key)
            reply.send(200, orjson.dumps({"unit": unit, "erased": self._memory.erase(unit)}))


def owner_of(caller: Caller | None) -> str:
    """Whose responses a caller may go on from: its tenant's, of a key without tenant its own, and everybody's where no key is needed."""
    if caller is None:
        return ""
    return f"tenant:{caller.key.tenant}" if caller.key.tenant else f"key:{caller.key.id}"


def _items(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The texts of a conversation before its last answer, newest first, as OpenAI lists them."""
    items = [
        {"id": f"item_{at}", "type": "message", "role": message["role"], "status": "completed", "content": _texts(message["content"])}
        for at, message in enumerate(messages[:-1])
        if message["role"] != "tool" and message.get("content")
    ][::-1]
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {"first_id": "", "last_id": ""}
    return {"object": "list", "data": items, "has_more": False, **ends}


def _texts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{"type": "input_text", "text": part["text"]} for part in parts if part["type"] == "text"]
