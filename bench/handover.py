"""What do clients notice while the gateway's processes are restarted and its routing table changes, again and again?

    python bench/handover.py [--restarts N] [--workers N] [--seconds-between S] [--json]

A real supervisor holds the socket and starts the workers; one after the other is told to stop (SIGTERM) while clients ask without pause on
connections that they keep, on new ones, and with streams of half a second; every restart is accompanied by a new table for all workers. With `--kill`
workers are killed (SIGKILL) instead: then the calls that were in that process fail, and are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from cohort.base.clock import SystemClock  # noqa: E402
from cohort.base.errors import CohortError  # noqa: E402
from cohort.base.settings import GatewaySettings, Settings  # noqa: E402
from cohort.delivery.dataplane_http import HttpDataPlane  # noqa: E402
from cohort.delivery.dataplane_many import ManyPlanes  # noqa: E402
from cohort.gateway.contract import Cursor, ReleaseRoute, Route, RoutingTable, ServiceRoute  # noqa: E402
from cohort.ops.configurations import listeners  # noqa: E402
from cohort.ops.installation import ensure_installation, open_folder  # noqa: E402
from cohort.ops.supervisor import Supervisor  # noqa: E402

CLIENT_S = 30.0
READY_S = 60.0
STEP_S = 0.02
PORTS = range(15_000, 32_000)


@dataclass
class Met:
    """What clients met, over all of them."""

    answers: int = 0
    streams: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, begun_s: float, failure: str | None, stream: bool) -> None:
        with self.lock:
            if failure is not None:
                self.failures[failure] += 1
            self.answers += not stream
            self.streams += stream
            if not stream:
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun_s)


def client(port: int, met: Met, stop: threading.Event, keep: bool, stream: bool) -> None:
    """Ask until told to stop."""
    body = json.dumps({"model": "s", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    headers = {"Content-Type": "application/json", **({} if keep else {"Connection": "close"})}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CLIENT_S)
    while not stop.is_set():
        begun_s, failure = time.monotonic(), None
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            whole = said.endswith(b"data: [DONE]\n\n") if stream else said.endswith(b"}")
            failure = None if answer.status == 200 and whole else f"status {answer.status}: {said[-200:].decode(errors='replace')}"
        except (OSError, http.client.HTTPException) as error:
            failure = type(error).__name__
            connection.close()
        met.add(begun_s, failure, stream)
    connection.close()


def free_port() -> int:
    """Below those that the system hands out by itself: a port of those may be a connection's when the socket is bound, or bound again."""
    for port in range(PORTS.start + os.getpid() * 17 % 10_000, PORTS.stop):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit(f"no free port in {PORTS}")


class Scene:
    """Supervisor, workers and upstream."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.settings = Settings(folder / "data", GatewaySettings(port=free_port(), workers=workers))
        data = self.settings.data
        open_folder(data)
        installation = ensure_installation(data, SystemClock(), os.urandom)
        self.chosen = listeners(self.settings, installation)[1:]
        self.lines: list[str] = []
        self.supervisor = Supervisor([listener.spec for listener in self.chosen], self.lines.append)
        token = data.link_token.read_text()
        sockets = [str(data.worker_socket(number + 1)) for number in range(workers)] if workers > 1 else [None]
        self.planes = [HttpDataPlane(self.settings.gateway_url, token, path) for path in sockets]
        self.version = 0
        self.model = "slow-stream"
        program = ROOT / "examples" / "upstreams" / "faulty.py"
        self.upstream = subprocess.Popen([sys.executable, str(program), "--port", "0"], stdout=subprocess.PIPE, text=True)
        assert self.upstream.stdout is not None
        self.base_url = self.upstream.stdout.readline().strip()

    def push(self) -> None:
        """A new table; both releases are the same upstream, so that no answer depends on which table a worker has."""
        self.version += 1
        release = ReleaseRoute(f"rel_{self.version % 2}", "v1", (Route("main", "openai", self.base_url, self.model),))
        table = RoutingTable(self.version, 1, {"s": ServiceRoute("s", release.digest)}, {release.digest: release})
        ManyPlanes(self.planes).push(table)

    def pushed(self) -> bool:
        try:
            self.push()
        except CohortError:
            return False
        return True

    def step_until(self, true: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + READY_S
        while not true():
            self.supervisor.step()
            if time.monotonic() > end_s:
                raise SystemExit(f"not within {READY_S:g} s: {what}\n" + "\n".join(self.lines[-20:]))
            time.sleep(STEP_S)

    def records(self) -> int:
        """Calls in all spools."""
        count = 0
        for plane in self.planes:
            cursor = Cursor()
            while (batch := plane.pull(cursor, records_max=2000, wait_ms=0)).records:
                count += sum(record.kind == "call" for record in batch.records)
                cursor = batch.next
        return count

    def close(self) -> None:
        self.supervisor.stop()
        for listener in self.chosen:
            if listener.spec.listening is not None:
                listener.spec.listening.close()
        for plane in self.planes:
            plane.close()
        self.upstream.kill()
        self.upstream.wait()


def restart(scene: Scene, number: int, between_s: float, how: signal.Signals) -> float:
    """Stop one worker, wait until its successor serves, push a table; seconds until it was ready again."""
    before = scene.supervisor.states()[number]
    begun_s = time.monotonic()
    assert before.pid is not None
    os.kill(before.pid, how)
    scene.pushed()
    scene.step_until(lambda: scene.supervisor.states()[number].pid not in (None, before.pid) and scene.supervisor.ready, "a restart")
    took_s = time.monotonic() - begun_s
    scene.step_until(scene.pushed, "a table for every worker")
    end_s = time.monotonic() + between_s
    scene.step_until(lambda: time.monotonic() >= end_s, "a pause")
    return took_s


def run(restarts: int, workers: int, between_s: float, how: signal.Signals) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ho") as folder:
        scene, met, stop = Scene(Path(folder), workers), Met(), threading.Event()
        try:
            scene.step_until(lambda: scene.pushed() and scene.supervisor.ready, "the first table")
            kinds = [(True, False), (True, False), (False, False), (True, True), (False, True)]
            port = scene.settings.gateway.port
            clients = [threading.Thread(target=client, args=(port, met, stop, *kind)) for kind in kinds]
            for each in clients:
                each.start()
            took = [restart(scene, number % workers, between_s, how) for number in range(restarts)]
            stop.set()
            for each in clients:
                each.join()
            return {
                "restarts": restarts, "workers": workers, "tables": scene.version, "answers": met.answers, "streams": met.streams,
                "failures": sum(met.failures.values()), "failed": dict(met.failures), "slowest_ms": round(met.slowest_s * 1000),
                "restart_ms": round(sorted(took)[len(took) // 2] * 1000), "records": scene.records(),
            }  # fmt: skip
        finally:
            stop.set()
            scene.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds-between", type=float, default=0.2)
    parser.add_argument("--kill", action="store_true", help="SIGKILL instead of SIGTERM")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = run(given.restarts, given.workers, given.seconds_between, signal.SIGKILL if given.kill else signal.SIGTERM)
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>12}  {value}")
    return 0 if given.kill or not found["failures"] else 1


if __name__ == "__main__":
    sys.exit(main())
