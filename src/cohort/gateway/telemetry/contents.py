"""Samples of what calls asked and were answered, for people who look into a trace: redacted before anything is written, bounded, for some days.

Off unless a release asks for it. A sample waits in memory until a thread beside the loop has redacted it; only then is it written, to a file
of its own that is readable by the gateway's user alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.gateway.assignment import Salt
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.cache.tape import Tape
from cohort.gateway.contract_content import CONTENT_FLAG, ContentPolicy
from cohort.gateway.dialects.face import Chat
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.telemetry.content_text import Redact, answered_text, kept_request, kept_text

if TYPE_CHECKING:
    from cohort.gateway.records import Ongoing

WAITING_MAX = 64
"""Samples of calls under way or not yet redacted; of more calls nothing is kept."""
ANSWER_BYTES_MAX = 256 << 10
"""Of an answer held until its call ends; of a longer one nothing is kept."""
_DRAWN = Salt(b"cohort content sample")
_NAME = re.compile(r"(\d{1,20}-\d{1,20}-[a-z]{1,12})\.([0-9a-f]{32})")


class _File(NamedTuple):
    name: str
    bytes: int
    at_s: float


@dataclass(slots=True, eq=False)
class Sample:
    """One call whose content is kept. `ended` is told when it is over."""

    contents: Contents
    ongoing: Ongoing
    fields: Mapping[str, Any]
    policy: ContentPolicy
    began_s: float

    def ended(self) -> None:
        self.contents.ended(self)


class Contents:
    """The samples of one worker, in `directory`. `killed` tells whether a kill switch is thrown at this moment. For the loop."""

    def __init__(
        self, directory: Path, epoch: int, limits: Limits, clock: Clock, log: Log, erased: Erased, killed: Callable[[str], bool]
    ) -> None:
        self._directory = directory
        self._epoch = epoch
        self._limits = limits
        self._clock = clock
        self._log = log
        self._erased = erased
        self._killed = killed
        self._files: OrderedDict[str, _File] | None = None
        self._bytes = 0
        self._under_way = 0
        self._retired = False
        self._waiting: deque[Sample] = deque()
        self._news = asyncio.Event()
        self._redact: Redact | None = None

    def begin(self, ongoing: Ongoing, chat: Chat, policy: ContentPolicy) -> None:
        """Draw a call: whole conversations, so that one can be followed."""
        if _DRAWN.bucket(ongoing.unit) >= policy.share or self._killed(CONTENT_FLAG):
            return
        if self._under_way >= WAITING_MAX:
            self._log.seldom("content_not_kept", reason="too many calls at once")
            return
        self._under_way += 1
        ongoing.sample = Sample(self, ongoing, chat.fields, policy, self._clock.monotonic_s())
        ongoing.tape = Tape(ANSWER_BYTES_MAX, chat.operation.name)
        ongoing.told += ',"content":true'

    def ended(self, sample: Sample) -> None:
        self._waiting.append(sample)
        self._news.set()

    def retire(self) -> None:
        """The process drains: control can tell it of no erasure any more, so nothing is kept from now on."""
        self._retired = True

    async def run(self) -> None:
        """Redact and write what was drawn, until cancelled; what waits then is not kept."""
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                sample = self._waiting.popleft()
                try:
                    data = await loop.run_in_executor(None, self._clean, sample)
                    self._write(sample, data)
                except OSError as error:
                    self._log.seldom("content_not_kept", reason=os.strerror(error.errno or 0))
                except Exception as error:  # the supervisor of one sample: what a client wrote must not end the process
                    self._log.seldom("content_not_kept", reason=type(error).__name__)
                finally:
                    self._under_way -= 1

    def get(self, epoch: int, seq: int, arm: str) -> dict[str, Any] | None:
        """`asked` (role and text), `answered`, `found` (what was taken out); None when it is not there, or too old."""
        file = self._known().get(f"{epoch}-{seq}-{arm}")
        if file is None or self._now_s() - file.at_s > self._limits.contents_kept_s:
            return None
        try:
            value = orjson.loads((self._directory / file.name).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return value if isinstance(value, dict) else None

    def erase(self, unit: str) -> int:
        """Forget every sample of a unit, those of calls under way included; how many were there.

        Raises:
            CohortError CACHE_NOT_ERASED: some may still be there.
        """
        self._erased.add(unit)
        try:
            known = self._known()
            places = [place for place, file in known.items() if file.name.endswith(f".{unit}")]
            for place in places:
                (self._directory / known[place].name).unlink(missing_ok=True)
                self._bytes -= known.pop(place).bytes
        except OSError as error:
            what = f"not every sample of content could be erased: {os.strerror(error.errno or 0)}"
            raise CohortError("CACHE_NOT_ERASED", what, retry=Retry.SAFE, hint="Ask again once it works.") from error
        return len(places)

    def sweep(self) -> None:
        """Drop what is over its time. Call now and then."""
        limits, oldest_s = self._limits, self._now_s() - self._limits.contents_kept_s
        try:
            known = self._known()
        except OSError as error:
            self._log.seldom("content_not_deleted", reason=os.strerror(error.errno or 0))
            return
        while known:
            place, file = next(iter(known.items()))
            if len(known) <= limits.contents_max and self._bytes <= limits.contents_bytes_max and file.at_s >= oldest_s:
                return
            try:
                (self._directory / file.name).unlink(missing_ok=True)
            except OSError as error:  # the next start finds it again
                self._log.seldom("content_not_deleted", reason=os.strerror(error.errno or 0))
            self._bytes -= known.pop(place).bytes

    # --- parts -----------------------------------------------------------------------------------------------------------------

    def _clean(self, sample: Sample) -> bytes:
        """In a thread: what may be written."""
        if self._redact is None:
            self._redact = _redactor()
        tape, policy = sample.ongoing.tape, sample.policy
        asked, found = kept_request(sample.fields, self._redact, policy.bytes_max)
        said = "" if tape is None or tape.over else answered_text(tape.data, tape.streamed)
        answered, more = kept_text(said, self._redact, policy.bytes_max)
        counts = {kind: found.get(kind, 0) + more.get(kind, 0) for kind in sorted({*found, *more})}
        return orjson.dumps({"asked": asked, "answered": answered, "found": counts, "unit": sample.ongoing.unit})

    def _write(self, sample: Sample, data: bytes) -> None:
        ongoing, known = sample.ongoing, self._known()
        if self._retired or self._erased.since(ongoing.unit, sample.began_s) or self._killed(CONTENT_FLAG):
            return
        place = f"{self._epoch}-{ongoing.seq}-{ongoing.arm.value}"
        name = f"{place}.{ongoing.unit}"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        try:
            with open(os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(data)
        except OSError:  # nobody would look for the part that is there, nor erase it
            with contextlib.suppress(OSError):
                os.unlink(self._directory / name)
            raise
        known[place] = _File(name, len(data), self._now_s())
        self._bytes += len(data)
        self.sweep()

    def _known(self) -> OrderedDict[str, _File]:
        """What an earlier process of this worker left, oldest first, and what this one kept."""
        if self._files is None:
            found = []
            if self._directory.exists():
                with os.scandir(self._directory) as entries:
                    matched = [(match[1], entry) for entry in entries if (match := _NAME.fullmatch(entry.name))]
                    found = [(place, file) for place, entry in matched if (file := _found(entry)) is not None]
            self._files = OrderedDict(sorted(found, key=lambda pair: pair[1].at_s))
            self._bytes = sum(file.bytes for file in self._files.values())
        return self._files

    def _now_s(self) -> float:
        return self._clock.now_us() / 1e6


def _found(entry: os.DirEntry[str]) -> _File | None:
    """None: another process removed it meanwhile. Raises OSError."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    return _File(entry.name, status.st_size, status.st_mtime)


def _redactor() -> Redact:
    """Personal data and keys by their shapes and check digits, then credentials by their names and places."""
    from cohort.base import redaction  # patterns, and google-re2: only for who keeps samples
    from cohort.gateway.personal.detector import Detector

    detector = Detector()

    def redact(text: str) -> tuple[str, Mapping[str, int]]:
        clean, found = detector.redact(text)
        without = redaction.text(clean)
        credentials = without.count(redaction.GONE) - clean.count(redaction.GONE)
        return without, {**found, "credential": credentials} if credentials > 0 else found

    return redact
