"""Outcomes on disk until control has them: numbered segments of framed lines. Every write is of whole lines.

What was written survives `kill -9` of the process (it is in the page cache) and, after the next sync, of the machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import orjson

from cohort.base.clock import Clock
from cohort.gateway import segments
from cohort.gateway.contract import Cursor
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits

_NAME = re.compile(r"(\d{10})\.log")
HEADER_BYTES_MAX = 4096
HELD_BYTES_MAX = 1 << 16
TAIL_BYTES = 1 << 16


@dataclass(slots=True)
class _Gap:
    """Records that could not be written since the last one that could."""

    dropped: int
    from_us: int
    to_us: int
    reason: str


@dataclass(slots=True)
class _Segment:
    size: int
    epoch: int | None


@dataclass(frozen=True, slots=True)
class _Writer:
    """An earlier process that still writes what ends of its calls, into segment `number` and no other. It holds a lock on it as long as it lives."""

    number: int
    fd: int

    def lives(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def epoch_after(directory: Path, now_us: int) -> int:
    """The epoch of a process that starts now: later than everything in the spool, even when the clock was set back.

    Evidence is taken in the order of assignment, so a record must never seem older than one that was written before it.
    """
    names = sorted(path.name for path in directory.iterdir() if _NAME.fullmatch(path.name)) if directory.exists() else []
    for name in reversed(names):
        path = directory / name
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            newest = segments.newest_us(file.read())
        if newest:
            return max(now_us, newest + 1)
    return now_us


class Spool:
    """One writer (this process), one reader (control). Not for threads, except `sync`."""

    def __init__(self, directory: Path, gateway: str, epoch: int, limits: Limits, clock: Clock, log: Log) -> None:
        self._directory = directory
        self._gateway = gateway
        self._epoch = epoch
        self._limits = limits
        self._segment_bytes, self._bytes_max = limits.spool_segment_bytes, limits.spool_bytes_max
        self._clock = clock
        self._log = log
        self._segments: dict[int, _Segment] = {}
        self._unsynced: list[int] = []
        self._gap: _Gap | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._fd = -1
        self._current = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._segment = _Segment(0, epoch)
        self._begun = False
        self._handed_over = False
        self._before: list[_Writer] = []
        self.before_write: Callable[[], None] | None = None
        """Done before records are written: what they say was done, such as the settlement of a call, is done when they are on disk."""
        self.bytes = 0
        self.written = 0
        self.dropped = 0

    def open(self) -> None:
        """Take stock of what an earlier process left and begin a segment of this epoch."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self._directory.iterdir()):
            if match := _NAME.fullmatch(path.name):
                self._segments[int(match[1])] = _Segment(path.stat().st_size, _epoch_of(path))
        self.bytes = sum(segment.size for segment in self._segments.values())
        # Every segment, not only the newest: of two restarts within one drain, the first process still ends its calls.
        for number in sorted(self._segments):
            before = _Writer(number, os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC))
            if self._follow(before):
                self._before.append(before)
        self._begin(max(self._segments, default=0) + 1)

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
        """Write the records added since, with one write if possible."""
        if self.before_write is not None:
            self.before_write()
        if not self._held:
            return
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
        if upto.segment > self._current or (upto.segment == self._current and upto.offset > self._segments[self._current].size):
            raise ValueError(
                f"acknowledged up to {upto.segment}:{upto.offset}, written up to {self._current}:{self._segments[self._current].size}"
            )
        for number in [n for n in self._segments if n < upto.segment]:
            self._path(number).unlink(missing_ok=True)
            self.bytes -= self._segments.pop(number).size

    def read(self, after: Cursor, records_max: int) -> bytes | None:
        """A contract.Batch as JSON with the records behind `after`; None when there is nothing new. Repeatable.

        At most `outcomes_bytes_max` are looked at, so a batch may hold fewer records than there are.
        """
        self._look_before()
        damaged: list[str] = []
        payloads: list[bytes] = []
        cursor: Cursor | None = self._place(after, damaged)
        left = self._limits.outcomes_bytes_max
        while cursor is not None:
            at = cursor
            found = self._read_segment(at, records_max - len(payloads), damaged)
            payloads.extend(found.payloads)
            left -= found.end - at.offset
            seen_all = at.offset + self._limits.outcomes_bytes_max >= self._segments[at.segment].size
            at = Cursor(at.segment, found.end)
            if left <= 0 or len(payloads) >= records_max:
                break
            cursor = self._next_segment(at, damaged) if seen_all else at
        return self._batch(payloads, damaged, at) if payloads or damaged else None

    def empty_batch(self, after: Cursor) -> bytes:
        """The batch that says there is nothing new."""
        return self._batch([], [], self._place(after, []))

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
        for before in self._before:
            os.close(before.fd)
        self._before = []

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
        if self._waiters and not self._before:  # else there is nothing to read yet of what was written
            self._wake()

    # --- writing ---------------------------------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        fd = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)  # whoever opens the spool meanwhile sees that its writer lives
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._unsynced.append(self._fd)
        self._fd, self._current, self._begun = fd, number, True
        self._segments[number] = self._segment = _Segment(0, self._epoch)
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

    # --- reading ---------------------------------------------------------------------------------------------------------------

    def _look_before(self) -> None:
        """How far the processes before this one have written."""
        self._before = [before for before in self._before if self._follow(before)]

    def _follow(self, before: _Writer) -> bool:
        """Take the size of its segment anew. False once it is gone: the segment is whole then."""
        lives = before.lives()  # asked first: what it wrote before it ended is in the size
        if before.number in self._segments:
            segment, size = self._segments[before.number], os.fstat(before.fd).st_size
            self.bytes += size - segment.size
            segment.size = size
        if not lives:
            os.close(before.fd)
        return lives

    def _place(self, after: Cursor, damaged: list[str]) -> Cursor:
        """Where reading really begins: segments that are gone are passed over."""
        if after.segment in self._segments:
            size = self._segments[after.segment].size
            if after.offset > size:
                damaged.append(f"segment {after.segment:010d} ends at {size}, taken up to {after.offset}")
                return self._following(after.segment) or Cursor(after.segment, size)
            return after
        if after.segment > self._current:
            damaged.append(
                f"taken up to segment {after.segment:010d}, but the newest here is {self._current:010d}: reading from the oldest"
            )
            return Cursor(min(self._segments), 0)
        return self._following(after.segment) or Cursor(self._current, 0)

    def _following(self, number: int) -> Cursor | None:
        later = [n for n in self._segments if n > number]
        return Cursor(min(later), 0) if later else None

    def _read_segment(self, cursor: Cursor, records_max: int, damaged: list[str]) -> segments.Scan:
        bytes_max = self._limits.outcomes_bytes_max
        with self._path(cursor.segment).open("rb") as file:
            file.seek(cursor.offset)
            data = file.read(bytes_max)
        found = segments.scan(data, cursor.offset, records_max)
        if found.end == cursor.offset and len(data) == bytes_max:
            whole = segments.Damage(cursor.offset, bytes_max)
            found = segments.Scan((), (), (whole,), cursor.offset + bytes_max)
        damaged.extend(found.gaps)
        for piece in found.damage:
            self._report(cursor.segment, piece, damaged)
        return found

    def _next_segment(self, at: Cursor, damaged: list[str]) -> Cursor | None:
        """The segment behind `at`, which was read to its end; None when it is the one being written.

        A tail without a newline is what a killed process leaves; within one epoch it is damage.
        """
        following = self._following(at.segment)
        if following is None or any(at.segment == before.number for before in self._before):
            return None
        torn = self._segments[at.segment].size - at.offset
        if torn and self._segments[at.segment].epoch == self._segments[following.segment].epoch:
            self._report(at.segment, segments.Damage(at.offset, torn), damaged)
        return following

    def _report(self, number: int, piece: segments.Damage, damaged: list[str]) -> None:
        damaged.append(f"segment {number:010d} at {piece.offset}: {piece.length} bytes damaged, set aside")
        self._set_aside(number)

    def _set_aside(self, number: int) -> None:
        """Keep a damaged segment for people, once, a bounded number of them."""
        copy = self._directory / f"{number:010d}.log.damaged"
        if copy.exists():
            return
        self._log.write("spool_damaged", segment=number, copy=copy.name)
        if len(list(self._directory.glob("*.damaged"))) < self._limits.spool_damaged_max:
            try:
                shutil.copyfile(self._path(number), copy)
            except OSError as error:
                self._log.write("spool_copy_failed", segment=number, reason=os.strerror(error.errno or 0))

    def _batch(self, payloads: list[bytes], damaged: list[str], cursor: Cursor) -> bytes:
        behind = sum(s.size for n, s in self._segments.items() if n > cursor.segment)
        behind += max(self._segments[cursor.segment].size - cursor.offset, 0)
        rest = orjson.dumps(
            {
                "gateway": self._gateway,
                "epoch": self._epoch,
                "next": {"segment": cursor.segment, "offset": cursor.offset},
                "behind": behind,
                "damaged": damaged,
            }
        )
        return b'{"records":[' + b",".join(payloads) + b"]," + rest[1:]

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:010d}.log"


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _epoch_of(path: Path) -> int | None:
    with path.open("rb") as file:
        return segments.header_epoch(file.readline(HEADER_BYTES_MAX).removesuffix(b"\n"))
