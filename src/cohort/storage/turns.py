"""The one connection that writes to a SQLite file. Between writers it stays as it is: to hand it to the pool and back costs more than a short transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Turns:
    """Writers one after the other. Safe to use from many threads. `wait_s`: how long one waits for its turn."""

    def __init__(self, engine: Engine, wait_s: float) -> None:
        self._engine = engine
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._idle: Connection | None = None

    @contextmanager
    def turn(self) -> Iterator[Connection]:
        """The connection, outside of any transaction. What ends in an error gives it back to the pool, which rolls back whatever is left open.

        Errors: sqlalchemy's TimeoutError, and those of connecting.
        """
        if not self._lock.acquire(timeout=self._wait_s):
            raise PoolTimeout("no turn to write came in time")
        try:
            connection, self._idle = self._idle or self._engine.connect(), None
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle = connection
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give the idle connection back; the next turn takes another."""
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.close()
