"""Small real processes for the tests of the supervisor, and waiting for what they do."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cohort.ops.processes import command_line
from cohort.ops.supervisor import ProcessSpec

HERE = Path(__file__).parent
WITHIN_S = 20.0
FIXED_PORTS = range(20_000, 32_000)
"""Below those that Linux and macOS hand out by themselves, to connections too: a server that is started later finds its port free."""
_turn = itertools.count(os.getpid() * 997)


def until(condition: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """Ask until the answer is true; fails the test after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not so within {within_s} s: {condition}"
        time.sleep(0.01)
    return answer


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on and that the system gives to nobody who leaves the choice to it; no two test processes try the same."""
    found: list[int] = []
    while len(found) < count:
        port = FIXED_PORTS.start + next(_turn) % len(FIXED_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def child_spec(folder: Path, name: str, *, generation: int = 1, stop_s: float = 5.0, **behaviour: Any) -> ProcessSpec:
    """A process that says its id in `ready_file`. Behaviour: see `supervised_child.py`."""
    config = folder / "run" / name / f"{generation}.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    ready = ready_file(folder, name)
    config.write_text(json.dumps({"ready": str(ready), **behaviour}))
    argv = (sys.executable, "-m", "supervised_child", "--config", str(config))
    return ProcessSpec(name, argv, folder / "logs" / f"{name}.log", lambda: alive(said(ready)), stop_s)


def ready_file(folder: Path, name: str) -> Path:
    return folder / "run" / f"{name}.ready"


def said(path: Path) -> int:
    """The process id in a ready file; 0 when there is none yet."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else 0


def alive(pid: int) -> bool:
    return pid > 0 and command_line(pid) is not None


def start_house(folder: Path, generation: int = 1, names: Sequence[str] = ("control", "gateway")) -> subprocess.Popen[str]:
    """A supervisor of such children in a process of its own; returns when it says that they are ready."""
    errors = folder.with_suffix(".err")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "supervised_house.py"), str(folder), str(generation), *names],
        stdout=subprocess.PIPE,
        stderr=errors.open("ab"),
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", errors.read_text()
    return process


def environment(**more: str) -> dict[str, str]:
    """This process's environment without anything of Cohort's, with the tests and the sources on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COHORT_")}
    source = str(HERE.parent / "src")
    return {**kept, "PYTHONPATH": os.pathsep.join([source, str(HERE)]), **more}


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
