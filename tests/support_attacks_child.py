"""Starts sandboxes in which attacks run: a line of JSON in, a line of JSON out. Imported by a process of its own, which may be an ordinary user's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Command, Completed, Level, Limits, Place
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox import attacks_driver
from cohort.kernel.sandbox.bubblewrap import Bubblewrap, Parts
from cohort.kernel.sandbox.spawner import Spawner

WAIT_S = 60
LIMITS = Limits(disk_bytes=16 << 20, files=1_000, memory_bytes=128 << 20, processes=32, command_s=20.0)
READ_ONLY_BIND = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
AS_ROOT = ("unshare", "--mount", "--uts", "sh", "-c", READ_ONLY_BIND, "sh")


def uncontained(place: Place, request: dict[str, Any]) -> bytes:
    """The control: the same program as the same user, or as root with mounts and a machine name of its own."""
    argv: tuple[str, ...] = attacks_driver.ARGV
    user: dict[str, Any] = {"user": place.uid, "group": place.gid, "extra_groups": []}
    if request["as_root"]:
        argv, user = (*AS_ROOT, f"{place.root}/control", *argv), {}
    done = subprocess.run(
        argv, input=request["request"].encode(), stdout=subprocess.PIPE, cwd=place.root, timeout=WAIT_S, close_fds=False, **user
    )
    return done.stdout


def backend(name: str) -> Sandbox:
    parts = Parts(Spawner(sys.executable), SystemClock(), lambda spawn: None)
    match name:
        case "bubblewrap":
            return Bubblewrap(parts, Level.NAMESPACES)
    raise ValueError(name)


def contained(sandbox: Sandbox, place: Place, request: dict[str, Any]) -> Completed:
    return sandbox.run(place, LIMITS, Command(attacks_driver.ARGV, stdin=request["request"].encode()))


def answer(sandbox: Sandbox | None, line: str) -> dict[str, Any]:
    request = json.loads(line)
    workspace, root, uid, gid, hard, read_only = request["place"]
    place = Place(WorkspaceId(workspace), root, uid, gid, hard, tuple(read_only))
    if sandbox is None:
        return {"stdout": uncontained(place, request).decode(errors="replace")}
    try:
        done = contained(sandbox, place, request)
    except CohortError as error:
        return {"error": f"{error.code}: {error.message}"}
    return {
        "stdout": done.stdout.decode(errors="replace"),
        "stderr": done.stderr.decode(errors="replace")[-500:],
        "stopped_by": done.stopped_by,
    }


def main(name: str) -> None:
    sandbox = None if name == "none" else backend(name)
    for line in sys.stdin:
        print(json.dumps(answer(sandbox, line)), flush=True)


main(json.loads(sys.argv[1])["backend"])
