"""Vectors of questions: by letters at once, or from the release's embeddings endpoint within a time of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from cohort.gateway.cache.semantic.embedding import LEXICAL, NoVector, from_answer, lexical
from cohort.gateway.contract_cache import EmbeddingsRoute
from cohort.gateway.deadlines import Deadlines
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.table import parse_base_url, request_head
from cohort.gateway.upstream_connection import UpstreamError
from cohort.gateway.upstreams import Upstreams

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

ANSWER_BYTES_MAX = 1 << 20


class Embedder:
    """`wait_s`: for an endpoint's answer; after that a call goes on without."""

    def __init__(self, upstreams: Upstreams, keys: Keys, deadlines: Deadlines, wait_s: float, gateway: str) -> None:
        self._upstreams = upstreams
        self._keys = keys
        self._deadlines = deadlines
        self._wait_s = wait_s
        self._gateway = gateway
        self._loaded = False

    async def vector(self, text: str, route: EmbeddingsRoute | None) -> Vector:
        """Raises NoVector: the endpoint failed, was late or answered something else. CancelledError when others cancelled."""
        if not self._loaded:  # numpy takes a tenth of a second to load, which nobody else should wait for
            await asyncio.get_running_loop().run_in_executor(None, _load)
            self._loaded = True
        return lexical(text) if route is None else from_answer(await self._asked(text, route))

    async def _asked(self, text: str, route: EmbeddingsRoute) -> bytes:
        origin, path = parse_base_url(route.base_url, "cache.semantic.embeddings.base_url")
        deadline = self._deadlines.begin(self._wait_s)
        try:
            body = orjson.dumps({"model": route.model, "input": text, "encoding_format": "float"})
            head, own = request_head(origin, path.encode() + b"/embeddings", self._gateway), self._keys.authorization(route.api_key)
            connection = await self._upstreams.exchange(origin, b"%s%scontent-length: %d\r\n\r\n%s" % (head, own, len(body), body))
            try:
                data = b""
                while chunk := await connection.chunk():
                    data += chunk
                    if len(data) > ANSWER_BYTES_MAX:
                        raise NoVector(f"an answer larger than {ANSWER_BYTES_MAX} bytes")
                if connection.status != 200:
                    raise NoVector(f"the endpoint answered with status {connection.status}")
                return data
            finally:
                self._upstreams.finish(connection)
        except asyncio.CancelledError:
            if deadline.expired is None:
                raise
            raise NoVector(f"no answer within {self._wait_s:g} s (cache_embeddings_wait_s)") from None
        except (UpstreamError, KeyMissing) as error:
            raise NoVector(str(error)) from error
        finally:
            self._deadlines.end(deadline)


def source(route: EmbeddingsRoute | None) -> str:
    """Names where vectors come from."""
    return LEXICAL if route is None else f"{route.base_url} {route.model}"


def _load() -> None:
    lexical("load")
