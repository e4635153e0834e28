"""Vectors of questions: by letters at once, or from the release's embeddings endpoint within a time of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from cohort.base.clock import Clock
from cohort.gateway.cache.semantic.embedding import LEXICAL, NoVector, from_answer, lexical
from cohort.gateway.contract_cache import EmbeddingsRoute
from cohort.gateway.deadlines import Deadlines
from cohort.gateway.keys import KeyMissing, Keys
from cohort.gateway.origins import parse_base_url, request_head
from cohort.gateway.upstream_connection import UpstreamError
from cohort.gateway.upstreams import Upstreams

if TYPE_CHECKING:
    from cohort.gateway.cache.semantic.embedding import Vector

ANSWER_BYTES_MAX = 1 << 20
RESTING_MAX = 256
"""Endpoints that are remembered to have failed."""
TRY_LATER = 429


class Failing(NoVector):
    """The endpoint itself is at fault, not the text: the next text would fare no better."""


class Embedder:
    """`wait_s`: for an endpoint's answer; after that a call goes on without. `rest_s`: an endpoint that failed is left alone, so that no
    call waits for one that is away.
    """

    def __init__(
        self, upstreams: Upstreams, keys: Keys, deadlines: Deadlines, clock: Clock, wait_s: float, rest_s: float, gateway: str
    ) -> None:
        self._upstreams = upstreams
        self._keys = keys
        self._deadlines = deadlines
        self._clock = clock
        self._wait_s = wait_s
        self._rest_s = rest_s
        self._resting: dict[EmbeddingsRoute, float] = {}
        self._gateway = gateway
        self._loaded = False

    async def vector(self, text: str, route: EmbeddingsRoute | None) -> Vector:
        """Raises NoVector: the endpoint failed, was late or answered something else. CancelledError when others cancelled."""
        if not self._loaded:  # numpy takes a tenth of a second to load, which nobody else should wait for
            await asyncio.get_running_loop().run_in_executor(None, _load)
            self._loaded = True
        return lexical(text) if route is None else from_answer(await self._unless_resting(text, route))

    async def _unless_resting(self, text: str, route: EmbeddingsRoute) -> bytes:
        if self._clock.monotonic_s() < self._resting.get(route, 0.0):
            raise NoVector(f"the endpoint failed less than {self._rest_s:g} s ago (cache_embeddings_rest_s)")
        try:
            return await self._asked(text, route)
        except Failing:
            if len(self._resting) >= RESTING_MAX:
                self._resting.clear()
            self._resting[route] = self._clock.monotonic_s() + self._rest_s
            raise

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
                    fault = Failing if connection.status >= 500 or connection.status == TRY_LATER else NoVector
                    raise fault(f"the endpoint answered with status {connection.status}")
                return data
            finally:
                self._upstreams.finish(connection)
        except asyncio.CancelledError:
            if deadline.expired is None:
                raise
            raise Failing(f"no answer within {self._wait_s:g} s (cache_embeddings_wait_s)") from None
        except (UpstreamError, KeyMissing) as error:
            raise Failing(str(error)) from error
        finally:
            self._deadlines.end(deadline)


def source(route: EmbeddingsRoute | None) -> str:
    """Names where vectors come from."""
    return LEXICAL if route is None else f"{route.base_url} {route.model}"


def _load() -> None:
    lexical("load")
