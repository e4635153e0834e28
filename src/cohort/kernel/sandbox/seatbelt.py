"""Level 2 on macOS: Seatbelt by `sandbox-exec`, with rlimits. Written from its documentation and never run: no such machine was available.

`sandbox-exec` is deprecated by its maker and still what other products of this kind rely on. The limits are set by a shell, so that
nothing runs between fork and exec of this process, which has many threads.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from cohort.base.clock import Clock
from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.sandbox import commands, popen
from cohort.kernel.sandbox.launched import Launched
from cohort.kernel.sandbox.spawner import OnSpawn

GAPS = (
    "this backend was never run by its authors; its level is what it is meant to hold",
    "processes that leave their session survive a command",
    "memory is not limited; the number of processes is the user's as a whole",
    "disk is limited only by what goes through the kernel's own file operations",
    "no network at all, not even to allowed hosts",
)
READABLE = ("/usr", "/bin", "/sbin", "/System", "/Library/Frameworks", "/private/var/db/dyld", "/private/etc/ssl", "/opt/homebrew")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/dtracehelper")
SHELL = 'ulimit -c 0; ulimit -f "$1"; ulimit -n "$2"; ulimit -u "$3"; ulimit -t "$4"; shift 4; exec "$@"'
OPEN_FILES = 1024


class Seatbelt(Launched):
    name = "seatbelt"

    def __init__(self, clock: Clock, on_spawn: OnSpawn, level: Level = Level.FILES) -> None:
        super().__init__(clock, on_spawn, level)

    def _launch(self, place: Place, limits: Limits, command: Command) -> popen.Launch:
        argv, env = arguments(place, limits, command), variables(place, command)
        return popen.Launch(argv, env, commands.folder(command, place.root), kill, send)


def arguments(place: Place, limits: Limits, command: Command) -> tuple[str, ...]:
    """A shell that sets the limits and becomes `sandbox-exec`, which becomes the command."""
    blocks, seconds = limits.disk_bytes // 512, int(limits.command_s * max(1.0, limits.cpu_cores)) + 1
    numbers = (str(blocks), str(OPEN_FILES), str(limits.processes), str(seconds))
    return ("/bin/sh", "-c", SHELL, "sh", *numbers, "/usr/bin/sandbox-exec", "-p", profile_text(place), *command.argv)


def profile_text(place: Place) -> str:
    """The profile in Seatbelt's language. Everything not allowed is denied; of two rules that match the later one counts."""
    read = " ".join(f"(subpath {quoted(path)})" for path in READABLE)
    devices = " ".join(f"(literal {quoted(path)})" for path in DEVICES)
    root = f"(subpath {quoted(place.root)})"
    kept = [f"(deny file-write* (subpath {quoted(f'{place.root}/{name}')}))" for name in place.read_only]
    lines = [
        "(version 1)",
        "(deny default)",
        "(allow process-exec process-fork)",
        "(allow signal (target same-sandbox))",
        "(allow sysctl-read)",
        "(allow file-read-metadata)",
        f"(allow file-read* {read} {root} {devices})",
        f"(allow file-write* {root})",
        f"(allow file-write-data {devices})",
        *kept,
        "(deny network*)",
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """As a string of that language: nothing in a path can end it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def variables(place: Place, command: Command) -> dict[str, str]:
    return dict(commands.VARIABLES) | {"HOME": place.root, "TMPDIR": place.root} | dict(command.env)


def kill(process: subprocess.Popen[bytes]) -> None:
    """The process and its session."""
    send(process, signal.SIGKILL)


def send(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
