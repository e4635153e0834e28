"""The program between the spawner and bubblewrap: it joins the control groups, becomes the private user, sets limits, and executes.

A list of system calls in a file in memory, as in `stage_two.py`. The spawner starts it without forking itself, which would copy an
interpreter's page tables and touch its pages; that took a millisecond and a half of every cold sandbox. A call that fails ends it before
bubblewrap has begun, and its place in the list is written to descriptor `TELL`. Only for x86_64; elsewhere the spawner forks.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache

from cohort.kernel.sandbox.stage_two import IMAGES_KEPT, Image, Program

BASE = 0x800000
"""Not where stage two is, so that an address says which of the two has failed."""
LOW = 16
"""Descriptors from here on are not for the program; see `forker.LOW`."""
UMASK = 0o022
_WRITE, _CLOSE, _CHDIR, _UMASK, _SETGROUPS, _SETRESUID, _SETRESGID, _OPENAT, _PRLIMIT = 1, 3, 80, 95, 116, 117, 119, 257, 302
_AT_FDCWD = -100
_INFINITY = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Start:
    """What to do before `program` is executed with an empty environment. `free`: the lowest descriptor that is not open then.

    `cgroups`: files to write a 0 to; `owner`: uid and gid to become; `rlimits`: pairs of a resource and the value of both its limits.
    """

    program: str
    free: int
    cgroups: tuple[str, ...]
    owner: tuple[int, int] | None
    rlimits: tuple[tuple[int, int], ...]


@lru_cache(IMAGES_KEPT)
def image(start: Start) -> Image:
    """The executable for `start`; the order of its steps is that of `forker._prepare`."""
    made = Program(BASE)
    for path in start.cgroups:
        made.call("control group", _OPENAT, _AT_FDCWD, made.text(path), os.O_WRONLY | os.O_CLOEXEC)
        made.call("control group", _WRITE, start.free, made.data(b"0"), 1, least=1)
        made.call("control group", _CLOSE, start.free)
    made.call("mask of new files", _UMASK, UMASK)
    if start.owner is not None:
        _become(made, *start.owner)
    made.call("root folder", _CHDIR, made.text("/"))
    for kind, value in start.rlimits:
        number = _INFINITY if value < 0 else value
        made.call("limits", _PRLIMIT, 0, kind, made.data(struct.pack("<QQ", number, number)), 0)
    words = f"cohort: {start.program}: not found, or not executable\n".encode(errors="replace")
    made.execute([made.text(start.program)], [], made.data(words), len(words))
    return made.finished()


def _become(made: Program, uid: int, gid: int) -> None:
    made.call("supplementary groups", _SETGROUPS, 0, 0)
    made.call("group", _SETRESGID, gid, gid, gid)
    made.call("user", _SETRESUID, uid, uid, uid)
