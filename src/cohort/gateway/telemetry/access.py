"""The access log: one JSON object per line for every model call that ended and every one that was refused. Off unless asked for.

It holds who, what, how long and how much: names from the routing table, numbers, and words of our own. Nothing that a client wrote is in
it, so there is nothing to redact and no way to write lines into it. Lines are written together now and then, by a thread beside the loop;
when the disk is full they are lost and counted.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from cohort.base.clock import Clock

if TYPE_CHECKING:
    from cohort.gateway.records import Ongoing

LINES_WAITING_MAX = 50_000
FILE_BYTES_MAX = 64 << 20
FILES_KEPT = 4
NAMES_REMEMBERED = 4096
_NULL, _BOOLEANS = "null", ("false", "true")


class AccessLog:
    """`call` and `refused` are for the loop; `flush` may be called from one other thread."""

    def __init__(
        self, path: Path, gateway: str, clock: Clock, file_bytes_max: int = FILE_BYTES_MAX, lines_waiting_max: int = LINES_WAITING_MAX
    ) -> None:
        self._path = path
        self._gateway, self._gateway_told = gateway, _told(gateway)
        self._clock = clock
        self._file_bytes_max = file_bytes_max
        self._lines_waiting_max = lines_waiting_max
        self._waiting: list[str] = []
        self.lost = 0

    def call(self, ongoing: Ongoing) -> None:
        """A call that ended."""
        target, caller = ongoing.target, ongoing.caller
        tokens_in, tokens_out, _ = ongoing.usage
        self._add(
            f'{{"at_us":{ongoing.at_us},"gateway":{self._gateway_told},"seq":{ongoing.seq}'
            f',"key":{_NULL if caller is None else _told(caller.key.id)},"service":{_told(ongoing.service.name)}'
            f',"release":{_told(target.version)},"route":{_told(target.route)},"arm":"{ongoing.arm}","unit":"{ongoing.unit}"'
            f',"result":"{ongoing.result}","status":{ongoing.status},"stream":{_BOOLEANS[ongoing.stream]}'
            f',"cache":{_told(ongoing.cache or None)},"attempts":{ongoing.attempts},"degraded":{_BOOLEANS[ongoing.degraded]}'
            f',"tokens_in":{_NULL if tokens_in is None else tokens_in},"tokens_out":{_NULL if tokens_out is None else tokens_out}'
            f',"cost_usd_micro":{_NULL if ongoing.cost_usd_micro is None else ongoing.cost_usd_micro}'
            f',"estimated":{_BOOLEANS[ongoing.estimated]}'
            f',"first_us":{_NULL if ongoing.first_us is None else ongoing.first_us},"total_us":{ongoing.total_us}}}\n'
        )

    def refused(self, status: int, code: str, operation: str) -> None:
        """A model call that was refused before it was given a release."""
        body = {"at_us": self._clock.now_us(), "gateway": self._gateway, "operation": operation, "status": status, "refused": code}
        self._add(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE).decode())

    def flush(self) -> None:
        """Write what waits. Raises OSError when it cannot; the lines are lost then, and counted."""
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            self._write("".join(lines).encode())
        except OSError:
            self.lost += len(lines)
            raise

    def _add(self, line: str) -> None:
        if len(self._waiting) >= self._lines_waiting_max:
            self.lost += 1
            return
        self._waiting.append(line)

    def _write(self, data: bytes) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            os.write(fd, data)  # one write of whole lines: workers may share the file
        finally:
            os.close(fd)
        if size + len(data) > self._file_bytes_max:
            self._roll()

    def _roll(self) -> None:
        for number in range(FILES_KEPT - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._numbered(FILES_KEPT + 1).unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


@lru_cache(NAMES_REMEMBERED)
def _told(name: str | None) -> str:
    """A name as JSON. There are few: those of a routing table, and of what caches there are."""
    return orjson.dumps(name).decode()
