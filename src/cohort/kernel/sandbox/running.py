"""A command that runs on: what `ports.Running` promises, over an execution that a thread of its own follows."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Sequence

from cohort.base.errors import CohortError
from cohort.kernel.model import Completed, StoppedBy
from cohort.kernel.sandbox.execution import KILL_WAIT_S, READ_BYTES, Execution
from cohort.kernel.sandbox.shares import Share

WRITE_WAIT_S = 5.0


class LongRunning:
    """`ports.Running`: a thread of its own waits for the end, so that output is taken whether anybody asks or not.

    Output keeps its offsets: the first `Limits.output_bytes` of each stream are kept, what comes after is counted and dropped.
    """

    def __init__(self, execution: Execution, stdin: int, send: Callable[[int], None], after: Callable[[], None], share: Share) -> None:
        self._execution = execution
        self._share = share
        self._after = after
        self._stdin: int | None = stdin
        self._send = send
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._completed: Completed | None = None
        self._error: CohortError | None = None
        threading.Thread(target=self._follow, name="sandbox-process", daemon=True).start()

    def write(self, data: bytes) -> None:
        """All of `data`, or an error: PROCESS_FAILED when it takes no more input, or none within `WRITE_WAIT_S`."""
        left = memoryview(data)
        with self._writing:
            while left:
                left = left[self._some(left) :]

    def close_input(self) -> None:
        with self._writing:
            if self._stdin is not None:
                os.close(self._stdin)
                self._stdin = None

    def output(self, stream: str, offset: int, limit: int) -> bytes:
        taken = self._execution.stderr if stream == "stderr" else self._execution.stdout
        return bytes(taken.data[offset : offset + limit])

    @property
    def totals(self) -> tuple[int, int]:
        """Bytes written so far to stdout and stderr, dropped ones included."""
        return self._execution.stdout.total, self._execution.stderr.total

    def signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            self._execution.stop(StoppedBy.SIGNAL)
        elif not self._ended.is_set():
            self._send(number)

    def processes(self) -> Sequence[int]:
        return self._share.processes()

    def confine(self, cpu_cores: float | None, memory_bytes: int | None) -> frozenset[str]:
        return self._share.confine(cpu_cores, memory_bytes)

    def wait(self, wait_s: float | None) -> Completed | None:
        if not self._ended.wait(wait_s):
            return None
        if self._error is not None:
            raise self._error
        return self._completed

    def stop(self) -> Completed:
        if not self._ended.is_set():
            self._execution.stop(StoppedBy.SIGNAL)
        completed = self.wait(KILL_WAIT_S)
        if completed is None:
            raise CohortError("PROCESS_FAILED", "a process does not end though it was killed", hint="Look at it with `ps`.")
        return completed

    def _follow(self) -> None:
        try:
            self._completed = self._execution.finish()
        except CohortError as error:
            self._error = error
        finally:
            self._share.close()
            self._after()
            self.close_input()
            self._ended.set()

    def _some(self, left: memoryview) -> int:
        if self._stdin is None:
            raise CohortError("PROCESS_FAILED", "its input is closed", hint="Start it again to give it more input.")
        try:
            return os.write(self._stdin, left[:READ_BYTES])
        except BlockingIOError as error:
            poll = select.poll()
            poll.register(self._stdin, select.POLLOUT)
            if not poll.poll(WRITE_WAIT_S * 1000):
                raise CohortError("PROCESS_FAILED", "it reads no input", hint="Write again once it reads.") from error
            return 0
        except BrokenPipeError as error:
            raise CohortError("PROCESS_FAILED", "it has closed its input", hint="Start it again to give it more input.") from error
