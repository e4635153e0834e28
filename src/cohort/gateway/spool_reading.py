"""What lies in a spool's directory, read from a cursor on: by the process that writes it, and by control where that process is no more."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from cohort.gateway import segments
from cohort.gateway.contract import Cursor
from cohort.gateway.settings import Limits

NAME = re.compile(r"(\d{10})\.log")
HEADER_BYTES_MAX = 4096
TAIL_BYTES = 1 << 16


class Said(Protocol):
    """Where it is said what was found damaged."""

    def write(self, event: str, **fields: Any) -> None: ...


@dataclass(slots=True)
class Segment:
    """`epoch`, `gateway`: who wrote it; None where its header cannot be read."""

    size: int
    epoch: int | None
    gateway: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What stood behind a cursor. `next` is where to go on: behind a header that nothing follows yet as well."""

    payloads: list[bytes]
    damaged: list[str]
    next: Cursor

    @property
    def tells(self) -> bool:
        """There is something new."""
        return bool(self.payloads or self.damaged)


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
    names = sorted(path.name for path in directory.iterdir() if NAME.fullmatch(path.name)) if directory.exists() else []
    for name in reversed(names):
        path = directory / name
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            newest = segments.newest_us(file.read())
        if newest:
            return max(now_us, newest + 1)
    return now_us


class SpoolReading:
    """The segments of a directory as far as they are known. Not for threads. Raises OSError where the disk does."""

    def __init__(self, directory: Path, limits: Limits, said: Said) -> None:
        self._directory = directory
        self._limits = limits
        self._said = said
        self.earlier: list[_Writer] = []  # processes that may still write
        self.segments: dict[int, Segment] = {}
        self.names: dict[str, None] = {}  # gateways that wrote here, as far as stock was taken; the last one last

    def take_stock(self) -> int:
        """Look at the directory anew; the bytes in it."""
        self.close()
        self.segments = {}
        for number in sorted(int(match[1]) for path in self._directory.iterdir() if (match := NAME.fullmatch(path.name))):
            self.segments[number] = found = _segment(self.path(number))
            if found.gateway is not None:
                self.names.pop(found.gateway, None)
                self.names[found.gateway] = None
        # Every segment, not only the newest: of two restarts within one drain, the first process still ends its calls.
        for number in self.segments:
            before = _Writer(number, os.open(self.path(number), os.O_RDONLY | os.O_CLOEXEC))
            if self._follow(before)[0]:
                self.earlier.append(before)
        return sum(segment.size for segment in self.segments.values())

    def look(self) -> int:
        """How many bytes the processes before this one have written since the last look."""
        followed = [(before, *self._follow(before)) for before in self.earlier]
        self.earlier = [before for before, lives, _ in followed if lives]
        return sum(grown for _, _, grown in followed)

    def forget(self, upto: Cursor) -> int:
        """Delete whole segments before `upto`; the bytes that were in them."""
        gone = [number for number in self.segments if number < upto.segment]
        for number in gone:
            self.path(number).unlink(missing_ok=True)
        return sum(self.segments.pop(number).size for number in gone)

    def read(self, after: Cursor, records_max: int) -> Found:
        """The records behind `after`, if any. Repeatable.

        At most `outcomes_bytes_max` are looked at, so there may be fewer records than there are.
        """
        damaged: list[str] = []
        payloads: list[bytes] = []
        cursor: Cursor | None = self._place(after, damaged)
        left = self._limits.outcomes_bytes_max
        while cursor is not None:
            at = cursor
            found = self._read_segment(at, records_max - len(payloads), damaged)
            payloads.extend(found.payloads)
            left -= found.end - at.offset
            seen_all = at.offset + self._limits.outcomes_bytes_max >= self.segments[at.segment].size
            at = Cursor(at.segment, found.end)
            if left <= 0 or len(payloads) >= records_max:
                break
            cursor = self._next_segment(at, damaged) if seen_all else at
        return Found(payloads, damaged, at)

    def behind(self, cursor: Cursor) -> int:
        """Bytes from there on."""
        later = sum(segment.size for number, segment in self.segments.items() if number > cursor.segment)
        return later + max(self.segments[cursor.segment].size - cursor.offset, 0)

    def batch(self, gateway: str, epoch: int, found: Found) -> bytes:
        """A contract.Batch as JSON."""
        formerly = [name for name in reversed(self.names) if name != gateway]
        rest = orjson.dumps(
            {
                "gateway": gateway,
                "epoch": epoch,
                "next": {"segment": found.next.segment, "offset": found.next.offset},
                "behind": self.behind(found.next),
                "damaged": found.damaged,
                **({"formerly": formerly} if formerly else {}),
            }
        )
        return b'{"records":[' + b",".join(found.payloads) + b"]," + rest[1:]

    def close(self) -> None:
        for before in self.earlier:
            os.close(before.fd)
        self.earlier = []

    def path(self, number: int) -> Path:
        return self._directory / f"{number:010d}.log"

    def _follow(self, before: _Writer) -> tuple[bool, int]:
        """Take the size of its segment anew: whether it still lives, and how much it grew. Once it is gone the segment is whole."""
        lives, grown = before.lives(), 0  # asked first: what it wrote before it ended is in the size
        if before.number in self.segments:
            segment, size = self.segments[before.number], os.fstat(before.fd).st_size
            grown, segment.size = size - segment.size, size
        if not lives:
            os.close(before.fd)
        return lives, grown

    def _place(self, after: Cursor, damaged: list[str]) -> Cursor:
        """Where reading really begins: segments that are gone are passed over."""
        newest = max(self.segments)
        if after.segment in self.segments:
            size = self.segments[after.segment].size
            if after.offset > size:
                damaged.append(f"segment {after.segment:010d} ends at {size}, taken up to {after.offset}")
                return self._following(after.segment) or Cursor(after.segment, size)
            return after
        if after.segment > newest:
            damaged.append(f"taken up to segment {after.segment:010d}, but the newest here is {newest:010d}: reading from the oldest")
            return Cursor(min(self.segments), 0)
        return self._following(after.segment) or Cursor(newest, 0)

    def _following(self, number: int) -> Cursor | None:
        later = [n for n in self.segments if n > number]
        return Cursor(min(later), 0) if later else None

    def _read_segment(self, cursor: Cursor, records_max: int, damaged: list[str]) -> segments.Scan:
        bytes_max = self._limits.outcomes_bytes_max
        with self.path(cursor.segment).open("rb") as file:
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
        if following is None or any(at.segment == before.number for before in self.earlier):
            return None
        torn = self.segments[at.segment].size - at.offset
        if torn and self.segments[at.segment].epoch == self.segments[following.segment].epoch:
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
        self._said.write("spool_damaged", segment=number, copy=copy.name)
        if len(list(self._directory.glob("*.damaged"))) < self._limits.spool_damaged_max:
            try:
                import shutil  # and with it three libraries for compressing, for what hardly ever happens

                shutil.copyfile(self.path(number), copy)
            except OSError as error:
                self._said.write("spool_copy_failed", segment=number, reason=os.strerror(error.errno or 0))


def _segment(path: Path) -> Segment:
    with path.open("rb") as file:
        header = segments.header_of(file.readline(HEADER_BYTES_MAX).removesuffix(b"\n"))
    gateway, epoch = header or (None, None)
    return Segment(path.stat().st_size, epoch, gateway)
