"""The embeddings process: load the model, serve, drain. The one place here that chooses the clock."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.settings_embeddings import EmbeddingsSettings
from cohort.gateway.embeddings.batching import Batcher
from cohort.gateway.embeddings.door import EmbeddingsDoor
from cohort.gateway.embeddings.model import Model
from cohort.gateway.http_server import Server
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.turns import Turn

NAME = "embeddings"
HEAD_BYTES_MAX = 16 << 10
BODY_BYTES_MAX = 1 << 20


class Unrecorded:
    """Stands where the gateway has its spool: nothing here needs to be on disk before it is said."""

    def add(self, payload: bytes) -> None:
        raise NotImplementedError("the embeddings server records nothing")

    def flush(self) -> None:
        """Nothing waits."""


async def serve(settings: EmbeddingsSettings, model: Model, started: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `started` is told the port.

    Raises:
        CohortError PORT_IN_USE, BIND_REFUSED: nothing was served.
    """
    limits = settings.limits
    log = Log(NAME, SystemClock())
    batcher = Batcher(model, limits, log)
    http = Limits(
        body_bytes_max=BODY_BYTES_MAX, head_bytes_max=HEAD_BYTES_MAX, connections_max=limits.connections_max, drain_s=limits.drain_s
    )
    door = EmbeddingsDoor(model, batcher, limits)
    server = Server(door, http, log, Turn(asyncio.get_running_loop(), Unrecorded()), lambda _code: None)
    port = await _listen(server, settings)
    log.write("started", host=settings.host, port=port, pid=os.getpid(), model=model.name, dimension=model.dimension)
    started(port)
    async with asyncio.TaskGroup() as group:
        working = group.create_task(batcher.run())
        await _stop_signal()
        await server.drain()
        working.cancel()
    log.write("stopped")


async def _listen(server: Server, settings: EmbeddingsSettings) -> int:
    where = f"{settings.host}:{settings.port}"
    try:
        return await server.listen(settings.host, settings.port)
    except OSError as error:
        field = "embeddings.port"
        if error.errno == errno.EADDRINUSE:
            raise CohortError("PORT_IN_USE", f"{where} is in use by another process", field=field, hint=f"Set another {field}.") from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CohortError("BIND_REFUSED", f"cannot listen on {where}: {reason}", field=field, hint=f"Set another {field}.") from error


async def _stop_signal() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
