"""What the gate adds: a governed file operation and a governed command, durable records included, beside the same work ungoverned.

    python bench/actions.py [--rounds N] [--commands N] [--json]

Every room is the real one: SQLite with synchronous=FULL, the signed audit log in a file of its own, tokens, approvals, a directory
workspace through openat2, a warm bubblewrap sandbox where this machine allows one. Rounds of the governed and the bare operation take turns,
and so does Microsoft's agent-governance-toolkit where `agt_rivals.py` finds it. Figures in microseconds; the steps are those of the gate, each
from the one before it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import agt_rivals
from agt_rivals import Agt

from cohort.base.clock import SystemClock
from cohort.base.ids import ActionId, WorkspaceId
from cohort.kernel.actions import facts, parsing
from cohort.kernel.face import Request
from cohort.kernel.model import Autonomy, Command, Level, Outcome, Place, Record, RecordKind, Taint
from cohort.kernel.ports import AUDIENCE
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.spawner import OnSpawn, Spawner
from support_gate_rooms import ROOMY, Kernel

WARM_UP = 50
CONTENT = "x" * 1024


class Steps:
    """Times between the gate's steps, by name, in microseconds."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}
        self._last_ns = 0

    def begin(self) -> None:
        self._last_ns = time.perf_counter_ns()

    def __call__(self, step: str) -> None:
        now_ns = time.perf_counter_ns()
        self.taken.setdefault(step, []).append((now_ns - self._last_ns) / 1000)
        self._last_ns = now_ns


def timed(call: Callable[[], object]) -> float:
    """What `call` says it took, where it is a number (a rival in another process), or how long it was away."""
    start_ns = time.perf_counter_ns()
    said = call()
    taken_us = (time.perf_counter_ns() - start_ns) / 1000
    return said if isinstance(said, float) else taken_us


def summary(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    return {
        "p50_us": round(p50, 1),
        "p99_us": round(p99, 1),
        "least_us": round(ordered[0], 1),
        "per_s": round(1e6 / statistics.mean(ordered)),
    }


def in_turns(calls: dict[str, Callable[[int], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Each call once per round, in turn, so that all meet the same neighbours."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(WARM_UP + rounds):
        for name, call in calls.items():
            one = timed(lambda call=call, number=number: call(number))
            if number >= WARM_UP:
                taken[name].append(one)
    return {name: summary(values) for name, values in taken.items()}


@contextmanager
def machine(steps: Steps) -> Iterator[tuple[Kernel, Bubblewrap | None]]:
    """An installation in a folder that private uids can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="cohort-bench-"))
    folder.chmod(0o755)
    spawner = Spawner() if os.path.exists("/usr/bin/bwrap") else None
    made: list[Bubblewrap] = []

    def sandbox_of(on_spawn: OnSpawn) -> Bubblewrap:
        assert spawner is not None
        made.append(Bubblewrap(Parts(spawner, SystemClock(), on_spawn)))
        return made[0]

    root = os.geteuid() == 0
    kernel = Kernel(folder, at=steps, level=Level.NAMESPACES, sandbox_of=sandbox_of if spawner else None, private_uids=root)
    try:
        yield kernel, made[0] if made else None
    finally:
        if made:
            made[0].close(place_of(kernel))
        if spawner is not None:
            spawner.close()
        kernel.close()
        shutil.rmtree(folder)


def place_of(kernel: Kernel) -> Place:
    return kernel.workspaces.place(WorkspaceId(str(kernel.identity.agents.find("smoke-1").workspace)))


def files(kernel: Kernel, token: str, steps: Steps, rounds: int, rival: Agt | None) -> dict[str, Any]:
    """Writing and reading a file of 1 KiB, governed and bare."""
    place, data = place_of(kernel), CONTENT.encode()

    def governed(operation: str, number: int, **arguments: Any) -> None:
        steps.begin()
        result = kernel.ask(token, operation, path=f"f{number % 50}", **arguments)
        assert result.outcome is Outcome.DONE, result

    calls: dict[str, Callable[[int], object]] = {
        "write, governed": lambda number: governed("files.write", number, content=CONTENT),
        "write, bare": lambda number: kernel.files.write(place, f"f{number % 50}", data),
        "read, governed": lambda number: governed("files.read", number),
        "read, bare": lambda number: kernel.files.read(place, f"f{number % 50}"),
        "limit: two durable records": lambda _number: two_records(kernel),
    }
    if rival is not None:
        calls |= {
            f"AGT {rival.version}: {what}": lambda _number, what=what: rival(what)
            for what in ("write", "write, synced", "read", "read, synced")
        }
    found = in_turns(calls, rounds)
    return {"operations": found, "steps": {step: summary(taken) for step, taken in steps.taken.items()}}


def two_records(kernel: Kernel) -> None:
    for _ in range(2):
        kernel.audit.log.append(Record(RecordKind.NOTE, {"text": "x" * 600}))


def commands(kernel: Kernel, sandbox: Bubblewrap, token: str, rounds: int) -> dict[str, Any]:
    """`true` in the warm sandbox, governed and bare."""
    place = place_of(kernel)

    def governed(_number: int) -> None:
        result = kernel.ask(token, "terminal.run", argv=["true"])
        assert result.outcome is Outcome.DONE, result

    calls: dict[str, Callable[[int], object]] = {
        "warm command, governed": governed,
        "warm command, bare": lambda _number: sandbox.run(place, ROOMY, Command(("true",))),
    }
    return in_turns(calls, rounds)


def policy(kernel: Kernel, token: str, rounds: int) -> dict[str, Any]:
    """One decision of the policy alone."""
    caller = kernel.identity.identities.authenticate(token, AUDIENCE)
    parsed = parsing.parse(Request("files.write", {"path": "a/b", "content": CONTENT}))
    found = facts.gather(parsed.bind(ActionId("act_aaaaaaaaaaaaaaaa"), caller), parsed.row, caller, Taint(), Level.FULL)
    decided = kernel.rooms.policies.current()

    def afresh() -> None:
        decided.answers.clear()
        decided.judge(found)

    return in_turns(
        {"policy, one decision": lambda _number: decided.judge(found), "policy, never asked before": lambda _number: afresh()}, rounds
    )


def run(rounds: int, command_rounds: int) -> dict[str, Any]:
    steps, rival = Steps(), agt_rivals.found()
    with machine(steps) as (kernel, sandbox):
        token = kernel.agent(autonomy=Autonomy.AGGRESSIVE)
        report = files(kernel, token, steps, rounds, rival)
        report["operations"] |= policy(kernel, token, rounds)
        if sandbox is not None:
            report["operations"] |= commands(kernel, sandbox, token, command_rounds)
    if rival is not None:
        rival.close()
    load = f"load {os.getloadavg()[0]:.1f}"
    report["machine"] = f"{os.cpu_count()} cores, {load}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--commands", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = run(options.rounds, options.commands)
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print(report["machine"])
    for kind in ("operations", "steps"):
        print(f"\n{kind:34} {'p50 us':>10} {'p99 us':>10} {'least us':>10} {'per s':>8}")
        for name, figures in report[kind].items():
            print(f"{name:34} {figures['p50_us']:10.1f} {figures['p99_us']:10.1f} {figures['least_us']:10.1f} {figures['per_s']:8}")
    print()
    for name in ("write", "read", "warm command"):
        if f"{name}, bare" in report["operations"]:
            governed, bare = (report["operations"][f"{name}, {how}"]["p50_us"] for how in ("governed", "bare"))
            print(f"{name}: {governed / bare:.1f} x bare, {governed - bare:.0f} us more")


if __name__ == "__main__":
    main()
