"""What containment costs: one command in each kind of sandbox, beside a bare subprocess, plain bubblewrap and sandlock, in the same run.

    python bench/sandbox.py [--runs N] [--json]

Every target executes `true` and `python3 -I -S -c 0`, in turns and in random order, so that what disturbs the machine disturbs all alike.
As root the commands belong to a private uid, which is the product's normal case; plain bubblewrap and the bare subprocess then too.
A target that is not installed is left out, with a message; so is Microsoft's agent-governance-toolkit (see `agt_rivals.py`), whose own sandbox
without Docker is a plain subprocess. Docker is not run: `DOCKER` is a published figure to know, printed as such, and not one of this run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import agt_rivals

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.sandbox.backends import obstacle
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.cgroups import Cgroups, find
from cohort.kernel.sandbox.confined import confined
from cohort.kernel.sandbox.limits import limited
from cohort.kernel.sandbox.spawner import Spawner

UID = 200_001
LIMITS = Limits()
COMMANDS = {"true": ("/usr/bin/true",), "python": ("/usr/bin/python3", "-I", "-S", "-c", "0")}
TARGETS_MS = {("cold sandbox", "true"): 8.0, ("cold sandbox", "python"): 16.0, ("warm sandbox", "true"): 3.0}
"""spec/kernel.md, figures. The 3 ms of a warm command are for all of a governed one; the sandbox's part alone is measured here."""
DOCKER = (
    "Docker, published, not of this run: 568 ms to start a container on an Azure machine of 2 cores with an SSD, 1,157 ms with an"
    " HDD, of which 8 to 10 ms are namespaces (S. Khan, Decomposing Docker Container Startup Performance, arXiv:2602.15214, February 2026)"
)
Row = dict[str, Any]
Target = Callable[[tuple[str, ...]], float | None]
"""Executes a command; answers how many milliseconds that took where it knows better than its caller."""


@contextmanager
def workspace() -> Iterator[Place]:
    top = Path(tempfile.mkdtemp(prefix="cohort-bench-"))
    top.chmod(0o755)
    (top / "workspace").mkdir()
    uid, gid = (UID, UID) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(top / "workspace", uid, gid)
    try:
        yield Place(WorkspaceId("ws_bench"), str(top / "workspace"), uid, gid, True)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def targets(after: ExitStack) -> dict[str, Target]:
    """What is measured, by name; the first is what the others are compared with."""
    place = after.enter_context(workspace())
    spawner = Spawner()
    after.callback(spawner.close)
    parts = Parts(spawner, SystemClock(), lambda _: None)
    found: dict[str, Target] = {"subprocess": lambda argv: bare(place, argv)}
    hindrance = obstacle(parts.binary)
    if hindrance is None:
        found["plain bubblewrap"] = lambda argv: plain_bubblewrap(place, argv)
        cold, warm = Bubblewrap(parts, warm=False), Bubblewrap(parts)
        after.callback(warm.close, place)
        found["cold sandbox"] = lambda argv: ran(cold, place, argv)
        found["warm sandbox"] = lambda argv: ran(warm, place, argv)
        found |= with_cgroups(parts, place, after)
    else:
        print(f"left out: bubblewrap: {hindrance.what} {hindrance.fix}", file=sys.stderr)
    try:
        second = confined(parts)
        found["confined (level 2)"] = lambda argv: ran(second, place, argv)
    except CohortError as error:
        print(f"left out: confined: {error}", file=sys.stderr)
    first = limited(parts)
    found["limits (level 1)"] = lambda argv: ran(first, place, argv)
    return found | sandlock(place) | agt(after)


def with_cgroups(parts: Parts, place: Place, after: ExitStack) -> dict[str, Target]:
    groups = find(parent=f"cohort-bench-{os.getpid()}")
    if groups.hierarchy is None:
        print(f"left out: cgroups: {groups.reason}", file=sys.stderr)
        return {}
    made = Cgroups(groups.hierarchy)
    full = replace(parts, cgroups=made)
    cold, warm = Bubblewrap(full, Level.FULL, warm=False), Bubblewrap(full, Level.FULL)
    after.callback(made.close)
    after.callback(warm.close, place)
    return {
        "cold sandbox, cgroup": lambda argv: ran(cold, place, argv),
        "warm sandbox, cgroup": lambda argv: ran(warm, place, argv),
    }


def ran(sandbox: Any, place: Place, argv: tuple[str, ...]) -> None:
    done = sandbox.run(place, LIMITS, Command(argv))
    if done.exit_code != 0:
        raise SystemExit(f"{sandbox.name}: {argv[0]} failed: {done}")


def bare(place: Place, argv: tuple[str, ...]) -> None:
    subprocess.run(argv, check=True, cwd=place.root, env={}, capture_output=True, **user(place))


def plain_bubblewrap(place: Place, argv: tuple[str, ...]) -> None:
    """Namespaces and mounts as people write them by hand: no filter, no Landlock, no limits."""
    mounts = (
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/bin",
        "/bin",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
    )
    more = ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", place.root, "/workspace", "--chdir", "/workspace")
    bare(place, ("/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--new-session", *mounts, *more, *argv))


def user(place: Place) -> dict[str, Any]:
    return {"user": place.uid, "group": place.gid, "extra_groups": []} if os.geteuid() == 0 else {}


def sandlock(place: Place) -> dict[str, Target]:
    """sandlock through its Python package; the nearest profile it has to level 2. Runs as who we are: it has no private uid."""
    try:
        from sandlock import Sandbox
    except ImportError:
        print("left out: sandlock is not installed (pip install sandlock)", file=sys.stderr)
        return {}
    readable = [path for path in ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev") if os.path.exists(path)]

    def run(argv: tuple[str, ...]) -> None:
        done = Sandbox(fs_readable=readable, fs_writable=[place.root, "/dev/null"], cwd=place.root).run(list(argv), timeout=20)
        if not done.success:
            raise SystemExit(f"sandlock: {argv[0]} failed: {done}")

    try:
        run(COMMANDS["true"])
    except (SystemExit, Exception) as error:
        print(f"left out: sandlock does not run here: {error}", file=sys.stderr)
        return {}
    return {"sandlock": run}


def agt(after: ExitStack) -> dict[str, Target]:
    rival = agt_rivals.found()
    if rival is None:
        return {}
    after.callback(rival.close)
    names = {argv: f"run {name}" for name, argv in COMMANDS.items()}
    return {f"AGT {rival.version} subprocess": lambda argv: rival(names[argv]) / 1000}


def measure(found: dict[str, Target], runs: int) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each run, by target and command; the first ones warm up and do not count."""
    jobs = [(name, command) for name in found for command in COMMANDS]
    for name, command in jobs:
        found[name](COMMANDS[command])
    taken: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    for _ in range(runs):
        random.shuffle(jobs)
        for name, command in jobs:
            start = time.perf_counter()
            said_ms = found[name](COMMANDS[command])
            taken[name, command].append(said_ms if said_ms is not None else (time.perf_counter() - start) * 1000)
    return taken


def rows(taken: dict[tuple[str, str], list[float]]) -> list[Row]:
    found = []
    for (name, command), times in taken.items():
        times.sort()
        base = sorted(taken["subprocess", command])
        median, least = quantile(times, 0.5), times[0]
        row: Row = {"sandbox": name, "command": command, "p50 ms": median, "least ms": least, "p99 ms": quantile(times, 0.99)}
        row |= {"p50 / subprocess": median / quantile(base, 0.5), "p50 - subprocess, ms": median - quantile(base, 0.5)}
        target = TARGETS_MS.get((name, command))
        found.append(row | {"target p50 ms": target if target is not None else ""})
    return found


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def machine() -> Row:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
    }


def table(found: list[Row]) -> str:
    names = list(found[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(shown(row[name]) for name in names) + " |" for row in found])


def shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="of each target and command")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    chosen = parser.parse_args()
    with ExitStack() as after:
        found = rows(measure(targets(after), chosen.runs))
    if chosen.json:
        print(json.dumps({"machine": machine(), "runs": chosen.runs, "results": found, "docker": DOCKER}, indent=1))
        return
    facts = machine()
    print(
        f"Measured {facts['date']}: {facts['cores']} cores, load {facts['load']:.1f}, {facts['system']}, Python {facts['python']}, ", end=""
    )
    print(f"{'as root, commands by a private uid' if facts['root'] else 'as an ordinary user'}, {chosen.runs} runs each.\n")
    print(table(found))
    print(f"\n{DOCKER}.")


if __name__ == "__main__":
    main()
