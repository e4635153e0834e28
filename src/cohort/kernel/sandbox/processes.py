"""Who is below whom, as Linux lists it. Empty answers where it does not."""

from __future__ import annotations

import contextlib
import os

DESCENDANTS_MAX = 10_000


def children(pid: int) -> list[int]:
    """Children of any thread of `pid`; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(one) for one in file.read().split()]
    return found


def descendants(pid: int) -> list[int]:
    """All below `pid`, parents first. What is started meanwhile may be missed."""
    found: list[int] = []
    waiting = children(pid)
    while waiting and len(found) < DESCENDANTS_MAX:
        one = waiting.pop(0)
        found.append(one)
        waiting += children(one)
    return found


def signal_all(pids: list[int], number: int) -> None:
    """To processes that may be gone by now."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
