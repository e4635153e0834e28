"""An anchor that is a file, best on another disk or machine: one checkpoint per line, only ever appended to."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cohort.base.clock import Clock
from cohort.kernel.audit.anchoring import Prove, Sent, failed
from cohort.kernel.audit.keys import sync_folder

NOTES_READ_MAX = 1000
LINE_BYTES_MAX = 16 << 10


class FileAnchor:
    """`name` is as configured, `file:/path`."""

    pause_s = 0.0

    def __init__(self, name: str, path: Path, clock: Clock) -> None:
        self.name = name
        self._path = path
        self._clock = clock

    def notes(self) -> list[str]:
        """The newest checkpoints in the file, oldest first; a line that a crash cut off is none. Errors: ANCHOR_FAILED."""
        try:
            with self._path.open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - NOTES_READ_MAX * LINE_BYTES_MAX)
                file.seek(start)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise failed(self.name, f"cannot be read: {error.strerror}", "Make sure that the disk is there.") from error
        whole = lines[1 if start else 0 : -1]
        return [self._note(line) for line in whole[-NOTES_READ_MAX:] if not _cut_off(line)]

    def _note(self, line: bytes) -> str:
        try:
            return str(json.loads(line)["note"])
        except (ValueError, KeyError, TypeError) as error:
            raise failed(self.name, "holds a line that is not a checkpoint", "Look at the file; somebody has changed it.") from error

    def send(self, note: str, _size: int, _prove: Prove) -> Sent:
        """Append the checkpoint and wait for the disk. Errors: ANCHOR_FAILED."""
        line = json.dumps({"at_us": self._clock.now_us(), "note": note}, ensure_ascii=False) + "\n"
        try:
            fresh = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with open(descriptor, "ab", buffering=0) as file:
                torn = file.seek(0, os.SEEK_END) > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
                file.write((b"\n" if torn else b"") + line.encode())
                os.fsync(file.fileno())
            if fresh:
                sync_folder(self._path.parent)
        except OSError as error:
            raise failed(self.name, f"cannot be written: {error.strerror}", "Make sure that the disk is there and has room.") from error
        return Sent(f"appended to {self._path}", note)


def _cut_off(line: bytes) -> bool:
    """The beginning of a line of ours without its end."""
    return line.startswith(b'{"at_us"'[: len(line)]) and not line.endswith(b"}")
