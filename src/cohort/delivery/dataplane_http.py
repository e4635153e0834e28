"""Control's side of the link to a gateway, over HTTP. One connection pool; every answer is read whole."""

from __future__ import annotations

from typing import Any

import httpx2
import orjson

from cohort.base.errors import CohortError, Retry
from cohort.delivery.accounts import Balance
from cohort.delivery.cache_state import CacheState, Forgotten, Keeping, Person, cache_state
from cohort.delivery.contents import Content, content_of
from cohort.gateway.contract import Batch, Cursor, GatewayState, RoutingTable, decode_batch, decode_state, encode

CONNECT_S = 1.0
ANSWER_S = 5.0
ERASE_S = 30.0
"""For a gateway to look through everything it keeps on disk."""
PROBLEM = "application/problem+json"


class HttpDataPlane:
    """A gateway at `base_url`, or at a `socket` of the file system; `token` is the link's bearer token. Safe to use from several threads."""

    def __init__(self, base_url: str, token: str, socket: str | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"}
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        transport = httpx2.HTTPTransport(uds=socket) if socket is not None else None
        self._client = httpx2.Client(base_url=base_url, headers=headers, timeout=timeout, trust_env=False, transport=transport)

    def push(self, table: RoutingTable) -> GatewayState:
        return decode_state(self._call("PUT", "/-/routing", content=encode(table)))

    def state(self) -> GatewayState:
        return decode_state(self._call("GET", "/-/state"))

    def pull(self, after: Cursor, *, records_max: int, wait_ms: int) -> Batch:
        asked = {"segment": after.segment, "offset": after.offset, "max": records_max, "wait_ms": wait_ms}
        return decode_batch(self._call("GET", "/-/outcomes", params=asked))

    def acknowledge(self, upto: Cursor) -> None:
        self._call("POST", "/-/outcomes/ack", content=encode(upto))

    def balances(self) -> list[Balance]:
        """What the budgets in force have left."""
        return [Balance(**entry) for entry in orjson.loads(self._call("GET", "/-/spending"))["items"]]

    def cache(self) -> CacheState:
        answer = self._call("GET", "/-/cache")
        try:
            return cache_state(orjson.loads(answer))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unavailable(f"GET /-/cache was answered with what is no state of caches: {type(error).__name__}") from error

    def content(self, epoch: int, seq: int, arm: str) -> Content | None:
        body = orjson.loads(self._call("GET", f"/-/contents?epoch={epoch}&seq={seq}&arm={arm}"))
        try:
            return None if body is None else content_of(body)
        except (KeyError, TypeError) as error:
            raise _unavailable(f"GET /-/contents was answered with what is no content: {type(error).__name__}") from error

    def erase(self, store: Keeping, person: Person) -> Forgotten:
        named = {name: value for name, value in (("unit", person.unit), ("subject", person.subject)) if value is not None}
        answer = orjson.loads(self._call("POST", f"/-/{store.value}/erase", content=orjson.dumps(named), timeout=ERASE_S))
        erased = answer["erased"]
        return Forgotten(answer["unit"], sum(erased.values()) if isinstance(erased, dict) else erased)

    def close(self) -> None:
        self._client.close()

    def _call(self, method: str, path: str, **more: Any) -> bytes:
        try:
            answer = self._client.request(method, path, **more)
        except httpx2.HTTPError as error:
            raise _unavailable(f"{method} {path}: {error or type(error).__name__}") from error
        if answer.status_code == 409:
            raise CohortError(
                "CONTRACT_VERSION", f"the gateway refuses {path}: {answer.text[:200]}", hint="Run control and gateway of the same version."
            )
        if answer.status_code == 503 and answer.headers.get("content-type") == PROBLEM:
            raise CohortError.from_problem(answer.json())
        if answer.status_code >= 300:
            raise _unavailable(f"{method} {path} was answered with {answer.status_code}: {answer.text[:200]}")
        return answer.content


def _unavailable(what: str) -> CohortError:
    hint = "Look at the gateway's log; it goes on serving with its last table meanwhile."
    return CohortError("DATA_PLANE_UNAVAILABLE", f"the gateway did not do it: {what}", retry=Retry.SAFE, hint=hint)
