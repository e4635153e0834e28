"""Starts sandboxes in which attacks run: a line of JSON in, a line of JSON out. Imported by a process of its own, which may be an ordinary user's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Command, Completed, Level, Limits, Place
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox import attacks_driver, cgroups
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.confined import confined
from cohort.kernel.sandbox.egress import Proxy
from cohort.kernel.sandbox.limits import limited
from cohort.kernel.sandbox.spawner import Spawner

WAIT_S = 60
HOSTS = ("example.com:443",)
"""Granted where there is a way out; nobody asks for it."""
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


def backend(name: str, after: contextlib.ExitStack) -> Sandbox:
    """`bubblewrap-cold` or `-warm`, and with `-full` under cgroups, with `-egress` beside a proxy; `confined`; `limits`."""
    kind, *how = name.split("-")
    groups = None
    if "full" in how:
        hierarchy = cgroups.find(parent=f"cohort-test-{os.getpid()}").hierarchy
        groups = None if hierarchy is None else after.enter_context(contextlib.closing(cgroups.Cgroups(hierarchy)))
    proxy = after.enter_context(contextlib.closing(Proxy())) if "egress" in how else None
    spawner = after.enter_context(contextlib.closing(Spawner(sys.executable)))
    parts = Parts(spawner, SystemClock(), lambda spawn: None, proxy, cgroups=groups)
    match kind:
        case "bubblewrap":
            return Bubblewrap(parts, Level.FULL if "full" in how else Level.NAMESPACES, warm="warm" in how)
        case "confined":
            return confined(parts)
        case "limits":
            return limited(parts)
    raise ValueError(name)


def contained(sandbox: Sandbox, place: Place, request: dict[str, Any]) -> Completed:
    hosts = HOSTS if request["egress"] else ()
    return sandbox.run(place, LIMITS, Command(attacks_driver.ARGV, stdin=request["request"].encode(), hosts=hosts))


def place_of(request: dict[str, Any]) -> Place:
    workspace, root, uid, gid, hard, read_only = request["place"]
    return Place(WorkspaceId(workspace), root, uid, gid, hard, tuple(read_only))


def answer(sandbox: Sandbox | None, place: Place, request: dict[str, Any]) -> dict[str, Any]:
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
    with contextlib.ExitStack() as after:
        sandbox = None if name == "none" else backend(name, after)
        for line in sys.stdin:
            request = json.loads(line) | {"egress": name.endswith("-egress")}
            place = place_of(request)
            print(json.dumps(answer(sandbox, place, request)), flush=True)
            if sandbox is not None:
                sandbox.close(place)


main(json.loads(sys.argv[1])["backend"])
