"""Outcomes on disk until control has them: numbered segments of framed lines. Every write is of whole lines.

What was written survives `kill -9` of the process (it is in the page cache) and, after the next sync, of the machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from cohort.base.clock import Clock
from cohort.gateway import segments
from cohort.gateway.contract import Cursor
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.spool_reading import Found, Segment, SpoolReading

HELD_BYTES_MAX = 1 << 16


@dataclass(slots=True)
class _Gap:
    """Records that could not be written since the last one that could."""

    dropped: int
    from_us: int
    to_us: int
    reason: str


class Spool:
    """One writer (this process), one reader (control). Not for threads, except `sync`."""

    def __init__(self, directory: Path, gateway: str, epoch: int, limits: Limits, clock: Clock, log: Log) -> None:
        self._directory = directory
        self._gateway = gateway
        self._epoch = epoch
        self._segment_bytes, self._bytes_max = limits.spool_segment_bytes, limits.spool_bytes_max
        self._clock = clock
        self._log = log
        self._reading = SpoolReading(directory, limits, log)
        self._unsynced: list[int] = []
        self._gap: _Gap | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._fd = -1
        self._current = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._segment = Segment(0, epoch, gateway)
        self._begun = False
        self._handed_over = False
        self.before_write: Callable[[], None] | None = None
        """Done before records are written: what they say was done, such as the settlement of a call, is done when they are on disk."""
        self.bytes = 0
        self.written = 0
        self.dropped = 0

    def open(self) -> None:
        """Take stock of what an earlier process left and begin a segment of this epoch."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.bytes = self._reading.take_stock()
        self._begin(max(self._reading.segments, default=0) + 1)

    @property
    def problem(self) -> str | None:
        """What keeps records from being written now, in words."""
        return f"{self._gap.dropped} outcome records dropped: {self._gap.reason}" if self._gap else None

    def append(self, payload: bytes) -> bool:
        """Write one record. False when it could not be: the record is dropped, counted, and later named to control as a gap."""
        self.flush()
        kept = self._append(segments.frame(payload))
        self._written()
        return kept

    def add(self, payload: bytes) -> None:
        """A record for the next `flush`; what cannot be written then is dropped as in `append`."""
        self._held.append(payload)
        self._held_bytes += len(payload)
        if self._held_bytes >= HELD_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write the records added since, with one write if possible, even if what is to be done before it fails."""
        try:
            if self.before_write is not None:
                self.before_write()
        finally:
            if self._held:
                self._flush_held()

    def _flush_held(self) -> None:
        payloads, self._held, self._held_bytes = self._held, [], 0
        lines = [b"%08x %s\n" % (crc32(payload), payload) for payload in payloads]  # `segments.frame`, without a call for each
        if self._gap is None and self._write(b"".join(lines)) is None:
            self.written += len(lines)
        else:
            for line in lines:  # as many as there is room for
                self._append(line)
        self._written()

    def hand_over(self) -> None:
        """Another process may open the spool from here on; this one writes only what ends of its calls, into the segment that it has."""
        self.flush()
        self._handed_over = True

    def acknowledge(self, upto: Cursor) -> None:
        """Everything before `upto` may go: whole segments before it are deleted.

        Raises:
            ValueError: `upto` is ahead of what was written.
        """
        size = self._segment.size
        if upto.segment > self._current or (upto.segment == self._current and upto.offset > size):
            raise ValueError(f"acknowledged up to {upto.segment}:{upto.offset}, written up to {self._current}:{size}")
        self.bytes -= self._reading.forget(upto)

    def read(self, after: Cursor, records_max: int) -> bytes | None:
        """The same as `batch`, but None when there is nothing new."""
        found = self._look(after, records_max)
        return self._reading.batch(self._gateway, self._epoch, found) if found.tells else None

    def batch(self, after: Cursor, records_max: int) -> bytes:
        """A contract.Batch as JSON with the records behind `after`, if any. Repeatable.

        At most `outcomes_bytes_max` are looked at, so a batch may hold fewer records than there are.
        """
        return self._reading.batch(self._gateway, self._epoch, self._look(after, records_max))

    async def changed(self, wait_s: float) -> None:
        """Returns when a record was written or the wait is over."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=wait_s)
        finally:
            self._waiters.discard(waiter)

    def release_waiters(self) -> None:
        """End every wait, as at shutdown."""
        self._wake()

    def sync(self) -> None:
        """Force what was written to the disk. May block; may run in a thread of its own."""
        closed, self._unsynced = self._unsynced, []
        for fd in closed:
            os.fsync(fd)
            os.close(fd)
        if self._fd >= 0:
            os.fsync(self._fd)
        if self._begun:
            self._begun = False
            sync_directory(self._directory)

    def close(self) -> None:
        self.flush()
        if self._gap is not None:
            self._close_gap(self._gap)
        self.sync()
        os.close(self._fd)
        self._fd = -1
        self._reading.close()

    def _look(self, after: Cursor, records_max: int) -> Found:
        if self._reading.earlier:
            self.bytes += self._reading.look()
        return self._reading.read(after, records_max)

    def _append(self, line: bytes) -> bool:
        if self._gap is not None and not self._close_gap(self._gap):
            return self._drop(self._gap.reason)
        failure = self._write(line)
        if failure is not None:
            return self._drop(failure)
        self.written += 1
        return True

    def _written(self) -> None:
        if self._segment.size >= self._segment_bytes and not self._handed_over:
            self._roll()
        if self._waiters and not self._reading.earlier:  # else there is nothing to read yet of what was written
            self._wake()

    # --- writing ---------------------------------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        fd = os.open(self._reading.path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)  # whoever opens the spool meanwhile sees that its writer lives
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._unsynced.append(self._fd)
        self._fd, self._current, self._begun = fd, number, True
        self._reading.segments[number] = self._segment = Segment(0, self._epoch, self._gateway)
        failure = self._write(segments.frame(segments.header(self._gateway, self._epoch, number)))
        if failure is not None:
            self._log.seldom("spool_not_written", reason=failure)

    def _roll(self) -> None:
        try:
            self._begin(self._current + 1)
        except OSError as error:
            self._log.seldom("spool_not_rolled", reason=os.strerror(error.errno or 0))

    def _write(self, line: bytes) -> str | None:
        """One line or several; None, or why not a byte of them is in the segment."""
        segment, length = self._segment, len(line)
        if self.bytes + length > self._bytes_max:
            return f"the spool holds its limit of {self._bytes_max} bytes (spool_bytes_max)"
        try:
            # Commit point: whole lines are in the segment.
            count = os.write(self._fd, line)
            if count != length:
                os.ftruncate(self._fd, segment.size)
                return "the disk is full"
        except OSError as error:
            return os.strerror(error.errno or 0)
        segment.size += count
        self.bytes += count
        return None

    def _close_gap(self, gap: _Gap) -> bool:
        failure = self._write(segments.frame(segments.gap(gap.dropped, gap.from_us, gap.to_us, gap.reason)))
        if failure is None:
            self._gap = None
            self._log.write("spool_resumed", dropped=gap.dropped)
        return failure is None

    def _drop(self, reason: str) -> bool:
        now_us = self._clock.now_us()
        self.dropped += 1
        if self._gap is None:
            self._gap = _Gap(0, now_us, now_us, reason)
        self._gap.dropped += 1
        self._gap.to_us, self._gap.reason = now_us, reason
        self._log.seldom("outcomes_dropped", reason=reason, dropped=self.dropped)
        return False

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
