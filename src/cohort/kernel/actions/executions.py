"""The journal of executions: what really ran, written where it ran and not by who allowed it.

The sandbox writes a line before it starts a program, the egress proxy one for each place it connects, and each executor on the host one
before it acts. The reconciler holds these lines against the intents of the audit log. Lines are JSON in segments of a limited size, of
which the newest are kept; nothing is synced to disk, since a line that a power cut takes belongs to an execution it ended.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.kernel.actions.clearance import Cleared, Executed, Executor
from cohort.kernel.actions.records import argv_digest
from cohort.kernel.sandbox.spawner import Spawn

SEGMENT_BYTES_MAX = 8 << 20
SEGMENTS_MAX = 8
READ_BYTES_MAX = 4 << 20
NAME_CHARS_MAX = 1024
STATE = "compared.json"
STATE_KINDS = {"segment": int, "offset": int, "executions": int, "counts": dict, "findings": list, "open": list}

_SEGMENT = re.compile(r"executions-(\d{8})\.jsonl")


@dataclass(frozen=True, slots=True)
class Line:
    """One execution. `kind`: `spawn` (a program in a sandbox), `host` (an executor here) or `reach` (a connection through the proxy).

    `name`: the program, the resource, or the host that was connected. `argv_sha256`: of the words joined by NUL, for a spawn.
    """

    at_us: int
    kind: str
    action: str
    name: str
    operation: str = ""
    workspace: str = ""
    argv_sha256: str = ""
    backend: str = ""


_NAMES = tuple(one.name for one in fields(Line))


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader is. `segment` 0: before everything."""

    segment: int = 0
    offset: int = 0


class Executions:
    """Safe to use from many threads; one process writes. A new segment is begun at each start, so a torn line is always a last one."""

    def __init__(self, folder: Path, clock: Clock, *, segment_bytes_max: int = SEGMENT_BYTES_MAX, segments_max: int = SEGMENTS_MAX) -> None:
        """Errors: DISK_FULL when the folder cannot be written."""
        self._folder = folder
        self._clock = clock
        self._segment_bytes_max = segment_bytes_max
        self._segments_max = segments_max
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0
        with _in_our_words():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._begin(max(self._segments(), default=0) + 1)

    def spawned(self, spawn: Spawn) -> None:
        """The sandbox's hook, before the program starts. Errors: DISK_FULL; the program does not start then."""
        digest = argv_digest(spawn.argv)
        program = spawn.argv[0][:NAME_CHARS_MAX] if spawn.argv else ""
        self._append(Line(spawn.at_us, "spawn", spawn.label, program, "", spawn.workspace, digest, spawn.backend))

    def reached(self, action: str, host: str) -> None:
        """The egress proxy has connected `host:port` for a command of `action`."""
        self._append(Line(self._clock.now_us(), "reach", action, host[:NAME_CHARS_MAX]))

    def observed(self, executors: Mapping[str, Executor]) -> dict[str, Executor]:
        """The same executors, each writing a line before it acts."""
        return {name: self._observed(executor) for name, executor in executors.items()}

    def _observed(self, executor: Executor) -> Executor:
        def execute(cleared: Cleared) -> Executed:
            action = cleared.action
            self._append(Line(self._clock.now_us(), "host", action.id, action.resource[:NAME_CHARS_MAX], action.operation))
            return executor(cleared)

        return execute

    def read(self, cursor: Cursor) -> tuple[list[Line], Cursor, int]:
        """Lines after `cursor`, at most `READ_BYTES_MAX` of them; the next cursor; how many segments were dropped before they were read."""
        with self._lock, _in_our_words():
            segments = sorted(self._segments())
        lost = max(0, segments[0] - cursor.segment - 1) if cursor.segment else 0
        for segment in (one for one in segments if one >= cursor.segment):
            begin = cursor.offset if segment == cursor.segment else 0
            data = self._piece(segment, begin)
            whole = data[: data.rfind(b"\n") + 1]
            if whole or segment == segments[-1]:
                return _parsed(whole), Cursor(segment, begin + len(whole)), lost
        return [], cursor, lost

    def remember(self, state: Mapping[str, Any]) -> None:
        """Keep where the reader is and what it has counted, both or neither. Errors: DISK_FULL."""
        path = self._folder / STATE
        with _in_our_words():
            path.with_suffix(".new").write_text(json.dumps(state, separators=(",", ":")), encoding="utf-8")
            # Commit point. Before this line a restart compares again from where the reader was before, with what it had counted then.
            path.with_suffix(".new").replace(path)

    def recall(self) -> Mapping[str, Any] | None:
        """What was remembered of this very journal; None when there is nothing, or it cannot be of this journal."""
        try:
            state = json.loads((self._folder / STATE).read_text(encoding="utf-8"))
            newest = max(self._segments(), default=0)
        except (OSError, ValueError):
            return None
        whole = isinstance(state, dict) and all(isinstance(state.get(name), kind) for name, kind in STATE_KINDS.items())
        return state if whole and 0 <= state["segment"] <= newest and state["offset"] >= 0 else None

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _piece(self, segment: int, begin: int) -> bytes:
        try:
            with self._path(segment).open("rb") as opened:
                opened.seek(begin)
                return opened.read(READ_BYTES_MAX)
        except FileNotFoundError:  # dropped meanwhile; the next read says so
            return b""

    def _append(self, line: Line) -> None:
        data = json.dumps({name: getattr(line, name) for name in _NAMES}, separators=(",", ":")).encode() + b"\n"
        with self._lock, _in_our_words():
            if self._size + len(data) > self._segment_bytes_max:
                self._begin(max(self._segments(), default=0) + 1)
            written = os.write(self._descriptor, data)
            self._size += written
            if written != len(data):
                self._begin(max(self._segments()) + 1)
                raise OSError("a line was written in part")

    def _begin(self, number: int) -> None:
        opened = os.open(self._path(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size = opened, 0
        for old in sorted(self._segments())[: -self._segments_max]:
            self._path(old).unlink(missing_ok=True)

    def _segments(self) -> list[int]:
        return [int(found[1]) for name in os.listdir(self._folder) if (found := _SEGMENT.fullmatch(name))]

    def _path(self, number: int) -> Path:
        return self._folder / f"executions-{number:08d}.jsonl"


def _parsed(data: bytes) -> list[Line]:
    return [Line(**json.loads(line)) for line in data.splitlines()]


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "Make room on the disk of the data directory; nothing runs without its line in the journal."
        raise CohortError("DISK_FULL", f"the journal of executions cannot be written: {error}", retry=Retry.SAFE, hint=hint) from error
