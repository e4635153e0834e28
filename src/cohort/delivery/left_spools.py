"""Spools of workers that the settings no longer have: what control had not taken when they ended is taken from their directories."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError, Retry
from cohort.delivery.taps import Tap
from cohort.gateway.contract import Batch, Cursor, decode_batch
from cohort.gateway.settings import Limits
from cohort.gateway.spool_reading import SpoolReading

log = logging.getLogger("cohort.delivery")
ENDED_ROUNDS = 2
"""Committed rounds in which an ended spool is heard: in the first every active rollout is read, in the second it learns which calls were lost."""


class LeftSpool:
    """One such directory, as `delivery.taps.Source`. Its process may still be ending: it is followed until it has.

    Nothing is deleted while it lives. `trouble`: why it cannot be read now, in words.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        self.directory = directory
        self.trouble: str | None = None
        self._logged: str | None = None
        self._reading = SpoolReading(directory, limits, self)
        self._live = True
        self._taken: Cursor | None = None
        self.ended = False  # everything was handed out, and nobody writes any more

    def writer(self) -> str | None:
        """Who wrote it last; None where nothing lies here. Sets `trouble` where it cannot be looked at."""
        try:
            self._reading.take_stock()
        except FileNotFoundError:
            self.trouble = None
            return None
        except OSError as error:
            self.say(_words(error))
            return None
        self.trouble = None
        if not self._reading.names and self._reading.segments:
            self.say("no segment says whose it is")
        return next(reversed(self._reading.names), None)

    def pull(self, after: Cursor, *, records_max: int, wait_ms: int) -> Batch:  # noqa: ARG002  there is nobody to wait for
        try:
            found = self._read(after, records_max)
        except (OSError, ValueError) as error:
            self.say(_words(error))
            what = f"{self.directory} cannot be read: {_words(error)}"
            raise CohortError("DATA_PLANE_UNAVAILABLE", what, retry=Retry.SAFE, hint="Look at the directory.") from error
        self.trouble = None
        return found

    def acknowledge(self, upto: Cursor) -> None:
        self._taken = upto
        if not self._live:
            self._forget(upto)

    def _forget(self, upto: Cursor) -> None:
        try:
            self._reading.forget(upto)
        except OSError as error:
            log.warning("segments that were taken stay in %s: %s", self.directory, error.strerror)

    def write(self, event: str, **fields: Any) -> None:
        """What reading found, for control's log."""
        log.warning("%s in %s: %s", event, self.directory, fields)

    def say(self, reason: str) -> None:
        """Note why it cannot be read, and log it once."""
        words = f"{self.directory} cannot be read: {reason}"
        if words != self._logged:
            log.error("records that a worker left: %s", words)
        self.trouble = self._logged = words

    def _read(self, after: Cursor, records_max: int) -> Batch:
        if self._live:
            self._reading.take_stock()
            if not self._reading.earlier:  # it may have begun another segment after the directory was listed, and ended before it was asked
                self._reading.take_stock()
            self._live = bool(self._reading.earlier)
            if not self._live and self._taken is not None:
                self._forget(self._taken)  # said while it lived, and not said again
        if not self._reading.segments:
            raise FileNotFoundError(errno.ENOENT, "its segments are gone")
        gateway = next(reversed(self._reading.names))
        epoch = max(segment.epoch or 0 for segment in self._reading.segments.values())
        found = self._reading.read(after, records_max)
        self.ended = not (self._live or found.tells)
        if not self.ended:
            return decode_batch(self._reading.batch(gateway, epoch, found))
        # Later than the last process: its open calls are lost. A torn line at the end is what a killed process leaves, and nobody waits for.
        return Batch(gateway, epoch + 1, (), found.next, formerly=tuple(name for name in self._reading.names if name != gateway))


class LeftSpools:
    """Those of `directories`, in their order, in which a worker that is no more wrote. One that is taken whole is forgotten."""

    def __init__(self, directories: Iterable[Path], limits: Limits | None = None) -> None:
        self._spools = [LeftSpool(directory, limits or Limits()) for directory in directories]
        self._taps: dict[Path, Tap] = {}
        self._ended: dict[Path, int] = {}

    @property
    def troubles(self) -> list[str]:
        """Which cannot be read, and why."""
        return [spool.trouble for spool in self._spools if spool.trouble is not None]

    def taps(self, living: Iterable[str]) -> list[tuple[LeftSpool, Tap]]:
        """What is still to be taken. `living`: names of the workers there are, whose positions are theirs alone."""
        names = set(living)
        found = [(spool, tap) for spool in self._spools if (tap := self._tap(spool, names)) is not None]
        self._spools = [spool for spool in self._spools if spool.trouble is not None or spool.directory in self._taps]
        return found

    def heard(self) -> None:
        """A round was committed."""
        for spool in [spool for spool in self._spools if spool.ended]:
            rounds = self._ended[spool.directory] = self._ended.get(spool.directory, 0) + 1
            if rounds >= ENDED_ROUNDS:
                self._spools.remove(spool)

    def unheard(self) -> None:
        """What rounds before had said is forgotten: those that are left are heard anew."""
        self._ended.clear()

    def _tap(self, spool: LeftSpool, names: set[str]) -> Tap | None:
        tap = self._taps.get(spool.directory)
        if tap is None:
            writer = spool.writer()
            if writer is None:
                return None
            if writer in names:
                spool.say(f"it was written as {writer}, which is another worker's name")
                return None
            tap = self._taps[spool.directory] = Tap(spool, writer)
        names.add(str(tap.gateway))
        return tap


def _words(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
