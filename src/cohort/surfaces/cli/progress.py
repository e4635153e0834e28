"""How far something is, on one line of a terminal that is gone when it has ended."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cohort.base.errors import CohortError
from cohort.surfaces.cli.session import Session

AFTER_S = 1.0
"""What ends sooner shows nothing."""
EVERY_S = 0.2
ERASE = "\r\x1b[K"

Show = Callable[[int, int], None]
"""`(done, of how many)`."""


def quiet(_done: int, _count: int) -> None:
    """Shows nothing."""


@contextmanager
def shown(session: Session, what: str) -> Iterator[Show]:
    """Gives a function that shows how far it is, on standard error when that is a terminal, and never with --json."""
    if session.json or not sys.stderr.isatty():
        yield quiet
        return
    start_s = last_s = time.monotonic()
    showed = False

    def show(done: int, count: int) -> None:
        nonlocal last_s, showed
        now_s = time.monotonic()
        if now_s - start_s >= AFTER_S and now_s - last_s >= EVERY_S and count:
            last_s, showed = now_s, True
            _write(f"{ERASE}{line(what, done, count, now_s - start_s)}")

    try:
        yield show
    finally:
        if showed:
            _write(ERASE)


def line(what: str, done: int, count: int, spent_s: float) -> str:
    """`verifying: 41 % of 1,000,000 records, 3 s to go`."""
    left = f", {spent_s * (count - done) / done:.0f} s to go" if done else ""
    return f"{what}: {100 * done // count} % of {count:,} records{left}"


@contextmanager
def polled(ask: Callable[[], tuple[int, int] | None], show: Show) -> Iterator[None]:
    """Show what `ask` says from time to time, in the background; a question without an answer is left for the next."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(EVERY_S):
            try:
                found = ask()
            except CohortError:
                continue  # whoever waits for the thing itself is told what is wrong
            if found is not None:
                show(*found)

    asking = threading.Thread(target=run, name="progress", daemon=True)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
