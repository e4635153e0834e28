"""Which path of the embeddings server leads where."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine

import orjson

from cohort.base.settings_embeddings import EmbeddingsLimits
from cohort.gateway import openai
from cohort.gateway.dialects.face import Refused
from cohort.gateway.embeddings.asking import Asked, answer, asked
from cohort.gateway.embeddings.batching import Batcher, ModelFailed, QueueFull
from cohort.gateway.embeddings.model import Model
from cohort.gateway.hosts import Hosts
from cohort.gateway.http_messages import Reply, Request

RETRY_AFTER = b"retry-after: 1\r\n"
_ELSEWHERE = re.compile(rb"https?://(?!(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?$)", re.IGNORECASE)
"""The origin of a web page that did not come from this machine."""
Door = Callable[[Request, Reply], "Coroutine[None, None, None] | None"]


class EmbeddingsDoor:
    """The handler of the server."""

    def __init__(self, model: Model, batcher: Batcher, limits: EmbeddingsLimits) -> None:
        self._hosts = Hosts((), anybody=False)
        self._model = model
        self._batcher = batcher
        self._limits = limits
        self._doors: dict[bytes, tuple[bytes, Door]] = {
            b"/v1/embeddings": (b"POST", self._embeddings),
            b"/v1/models": (b"GET", self._models),
            b"/healthz": (b"GET", self._health),
            b"/health": (b"GET", self._health),
            b"/ready": (b"GET", self._health),
        }

    def __call__(self, request: Request, reply: Reply) -> Coroutine[None, None, None] | None:
        try:
            return self._door(request)(request, reply)
        except Refused as refused:
            _refuse(reply, refused)
            return None

    def _door(self, request: Request) -> Door:
        if not self._hosts.answer(request.headers.get(b"host")):
            raise Refused(421, "this server answers by 127.0.0.1 and localhost only", "host_refused")
        if _ELSEWHERE.match(request.headers.get(b"origin", b"")):
            raise Refused(403, "web pages of other sites may not use this server", "origin_refused")
        path = request.target.partition(b"?")[0]
        found = self._doors.get(path)
        if found is None:
            known = ", ".join(sorted(name.decode() for name in self._doors))
            raise Refused(404, f"nothing here at {path[:200].decode('utf-8', 'replace')}; there are: {known}", "not_found")
        if found[0] != request.method and (found[0], request.method) != (b"GET", b"HEAD"):
            words = f"{path.decode()} takes {found[0].decode()}, not {request.method.decode()}"
            raise Refused(405, words, "method_not_allowed", headers=b"allow: " + found[0] + b"\r\n")
        return found[1]

    def _embeddings(self, request: Request, reply: Reply) -> Coroutine[None, None, None]:
        return self._answer(asked(request.body, request.headers, self._model, self._limits), reply)

    async def _answer(self, wanted: Asked, reply: Reply) -> None:
        try:
            body = answer(wanted, await self._batcher.embed(wanted.texts), self._model)
        except QueueFull:
            words = f"more than {self._limits.queue_max} texts would wait (queue_max)"
            _refuse(reply, Refused(503, words, "queue_full", kind="server_error", headers=RETRY_AFTER))
        except ModelFailed:
            _refuse(reply, Refused(500, "the model failed on this request; the log says why", "model_failed", kind="server_error"))
        except Refused as refused:
            _refuse(reply, refused)
        else:
            reply.send(200, body)

    def _models(self, _request: Request, reply: Reply) -> None:
        entry = {"id": self._model.name, "object": "model", "created": 0, "owned_by": "cohort"}
        reply.send(200, orjson.dumps({"object": "list", "data": [entry]}))

    def _health(self, _request: Request, reply: Reply) -> None:
        batcher = self._batcher
        body = {
            **{"status": "ok", "ready": True, "model": self._model.name, "dimension": self._model.dimension},
            **{"tokens_max": self._model.tokens_max, "waiting": batcher.waiting, "texts": batcher.texts, "batches": batcher.batches},
            **{"refused": batcher.refused, "failed": batcher.failed},
        }
        reply.send(200, orjson.dumps(body))


def _refuse(reply: Reply, refused: Refused) -> None:
    said = openai.error(refused.message, refused.code, refused.param, refused.kind)
    reply.send(refused.status, said, refused.headers)
