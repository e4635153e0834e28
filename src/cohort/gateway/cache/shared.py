"""L2: answers shared by gateways through Redis, which bounds and expires them. One that does not answer is left alone for a while."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.gateway.addresses import is_near
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.packing import HEAD, Damaged, Found, Packing
from cohort.gateway.cache.resp import Reply, RespConnection, RespError

_T = TypeVar("_T")
PREFIX = b"cohort:answer:"
REST_S = 1.0
"""After a failure, before the server is asked again."""
SCAN_COUNT = 500
SCANS_MAX = 1_000_000
FAR = "is not an address of this machine or a private network, and TLS is not spoken to Redis"


class Unavailable(Exception):
    """The server did not answer, or answered with an error. Says what."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where the server is. `path`: of its socket, instead of host and port. `password`: read at every connection; empty for none."""

    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    password: str | Callable[[], str] = ""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def redis_address(text: str, password: str | Callable[[], str]) -> RedisAddress:
    """The address in `redis://HOST:PORT/DATABASE` or `unix:/PATH`; raises CohortError CONFIG_INVALID."""
    if text.startswith("unix:/"):
        return RedisAddress(path=text.removeprefix("unix:"), password=password)
    try:
        parts = urlsplit(text)
        database = int(parts.path.strip("/") or 0)
        if parts.scheme == "redis" and parts.hostname and not parts.username and not parts.password:
            _check_near(parts.hostname)
            return RedisAddress(parts.hostname, parts.port or 6379, database=database, password=password)
    except ValueError:
        pass
    words = "gateway settings: cache_redis: not an address of a Redis server"
    hint = "Write `redis://HOST:PORT/DATABASE` or `unix:/PATH`; a password belongs in the file `cache_redis_password_file` names."
    raise CohortError("CONFIG_INVALID", words, field="cache_redis", hint=hint)


def _check_near(host: str) -> None:
    """Raises CohortError CONFIG_INVALID for an address that may not be; a name is looked at when it is resolved."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_near(host):
        words = f"gateway settings: cache_redis: {host} {FAR}"
        raise CohortError("CONFIG_INVALID", words, field="cache_redis", hint="Use a socket, loopback, a private address, or a tunnel.")


class Shared:
    """The answers of several gateways. Nothing here waits longer than `wait_s` for an answer, `erase` for each step."""

    def __init__(self, address: RedisAddress, wait_s: float, clock: Clock, packing: Packing) -> None:
        self._address = address
        self._wait_s = wait_s
        self._clock = clock
        self._packing = packing
        self._connection: RespConnection | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._rests_until_s = float("-inf")
        self._failure: str | None = None
        self.damaged = 0

    @property
    def rests(self) -> bool:
        """It failed a moment ago and is not asked."""
        return self._clock.monotonic_s() < self._rests_until_s

    @property
    def problem(self) -> str | None:
        """Why it is not used now, in words."""
        return f"the cache's Redis at {self._address} is not used: {self._failure}" if self._failure is not None else None

    async def check(self) -> None:
        """Ask whether it is there, so that `problem` is true also where nobody calls."""
        if not self.rests:
            with contextlib.suppress(Unavailable):
                await self._ask(b"PING")

    async def find(self, key: bytes) -> Found | None:
        """The answer of `key`; raises Unavailable."""
        data = await self._ask(b"GET", PREFIX + key)
        if not isinstance(data, bytes):
            return None
        try:
            found = self._packing.unpack(key, data)
        except Damaged:
            self.damaged += 1
            found = None
        if found is None:
            await self._ask(b"DEL", PREFIX + key)
        return found

    async def keep(self, key: bytes, answer: Answer, unit: str, ttl_s: float) -> None:
        """Keep an answer made now; raises Unavailable."""
        data = self._packing.pack(key, answer, unit, ttl_s)
        await self._ask(b"SET", PREFIX + key, data, b"PX", b"%d" % max(int(ttl_s * 1000), 1))

    async def erase(self, unit: str) -> int:
        """Remove the answers to calls of `unit`; how many there were. Raises Unavailable: some may still be there; ask again.

        Every key is looked at: an index beside the answers could be evicted before them.
        """
        erased, cursor = 0, b"0"
        for _ in range(SCANS_MAX):
            page = await self._ask(b"SCAN", cursor, b"MATCH", PREFIX + b"*", b"COUNT", b"%d" % SCAN_COUNT)
            if not (isinstance(page, list) and len(page) == 2 and isinstance(page[0], bytes) and isinstance(page[1], list)):
                raise Unavailable("SCAN was answered with something else")
            cursor = page[0]
            erased += await self._erase_of(unit, [key for key in page[1] if isinstance(key, bytes)])
            if cursor == b"0":
                return erased
        raise Unavailable(f"SCAN did not come to an end in {SCANS_MAX} pages")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _erase_of(self, unit: str, keys: list[bytes]) -> int:
        erased = 0
        for key in keys:
            head = await self._ask(b"GETRANGE", key, b"0", b"%d" % (HEAD.size - 1))
            if isinstance(head, bytes) and self._unit(head) == unit:
                gone = await self._ask(b"DEL", key)
                erased += gone if isinstance(gone, int) else 0
        return erased

    def _unit(self, head: bytes) -> str | None:
        try:
            return self._packing.label(head).unit
        except Damaged:
            return None

    async def _ask(self, *parts: bytes) -> Reply:
        connection = await self._connected()
        try:
            answer = await self._in_time(connection.command(*parts))
        except (RespError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                connection.close()  # a late reply must not be taken for the next one
            raise self._rest(f"{parts[0].decode()}: {error}") from error
        self._failure = None
        return answer

    async def _connected(self) -> RespConnection:
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                try:
                    self._connection = await self._connect()
                except (OSError, RespError, TimeoutError, CohortError, Unavailable) as error:
                    kind = "" if isinstance(error, Unavailable | CohortError) else f"{type(error).__name__}: "
                    raise self._rest(f"connecting: {kind}{error}") from error
            return self._connection

    async def _connect(self) -> RespConnection:
        loop, address = asyncio.get_running_loop(), self._address
        if address.path:
            opening = loop.create_task(loop.create_unix_connection(RespConnection, address.path))
        else:
            found = await self._in_time(loop.create_task(loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)))
            near = [where[4][0] for where in found if is_near(str(where[4][0]))]
            if not near:
                raise Unavailable(f"{address.host} {FAR}")
            opening = loop.create_task(loop.create_connection(RespConnection, str(near[0]), address.port))
        _, connection = await self._in_time(opening)
        try:
            await self._let_in(connection)
        except BaseException:
            connection.close()  # a server that lets nobody in is asked again and again
            raise
        return connection

    async def _let_in(self, connection: RespConnection) -> None:
        address = self._address
        password = address.password() if callable(address.password) else address.password
        if password:
            await self._in_time(connection.command(b"AUTH", password.encode()))
        if address.database:
            await self._in_time(connection.command(b"SELECT", b"%d" % address.database))

    async def _in_time(self, future: asyncio.Future[_T]) -> _T:
        """What comes of `future`; raises TimeoutError after `wait_s`. Works in a strand, where `asyncio.timeout` does not."""
        done, _ = await asyncio.wait((future,), timeout=self._wait_s)
        if not done:
            future.cancel()
            raise TimeoutError(f"no answer within {self._wait_s:g} s")
        return future.result()

    def _rest(self, why: str) -> Unavailable:
        self._rests_until_s, self._failure = self._clock.monotonic_s() + REST_S, why
        return Unavailable(why)
