"""Do budgets hold while a thousand connections call at once, leave at random, and workers are killed?

    python bench/budgets.py [--connections N] [--seconds S] [--workers N] [--kills N] [--usd D] [--json]

The whole product: `cohort up` with several workers, a key with a budget that runs out on the way, one for all calls, one for each run.
Every connection is a real one that is always there; each call is a whole answer or a stream of half a second, and some are left at a random
moment. One worker after the other is killed with SIGKILL. Afterwards, with nothing under way: is anything still held, is what the ledger says was spent
what control's rows add up to, and was a budget exceeded? Exit code 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))

from handover import free_port  # noqa: E402

COMMAND_S = 120.0
QUIET_S = 60.0
"""How long control may take to have every record once nothing is under way."""
LEFT_SHARE = 0.3
STREAM_SHARE = 0.5
RUNS = 20
BACK_S = 0.2
"""How long a client waits that was refused, or met nobody."""
MANIFEST = """\
kind: model
service: {service}
version: 1.0.0
routes:
  main: {{provider: openai, base_url: "{base_url}", model: slow-stream, price: {{input_usd_per_mtok: 1000, output_usd_per_mtok: 1000}}}}
"""


class House:
    """The product in a folder of its own, and its upstream."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.port, self.control = free_port(), 0
        self.control = next(port for port in range(self.port + 1, self.port + 500) if _is_free(port))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COHORT_")}
        own = {"COHORT_GATEWAY_PORT": self.port, "COHORT_CONTROL_PORT": self.control, "COHORT_GATEWAY_WORKERS": workers}
        self.environment = {**kept, **{name: str(value) for name, value in own.items()}, "PYTHONPATH": str(ROOT / "src")}
        program = str(ROOT / "examples" / "upstreams" / "faulty.py")
        self.upstream = subprocess.Popen([sys.executable, program, "--port", "0"], stdout=subprocess.PIPE, text=True)
        assert self.upstream.stdout is not None
        self.base_url = self.upstream.stdout.readline().strip()

    def ask(self, *arguments: str) -> Any:
        command = [sys.executable, "-m", "cohort.surfaces.cli", *arguments, "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=self.environment, timeout=COMMAND_S, check=False
        )
        if not done.stdout.strip() or (done.returncode and arguments[0] != "status"):
            raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def begin(self, usd: float) -> str:
        """Start, and make everything a client needs; the client's key."""
        self.ask("up", "--detach")
        path = self.folder / "release.yaml"
        path.write_text(MANIFEST.format(service="s", base_url=self.base_url))
        self.ask("release", "create", str(path))
        key = self.ask("gateway", "key", "create", "client", "--budget-usd-day", str(usd))
        self.ask("gateway", "budget", "set", "all", "100000")
        self.ask("gateway", "budget", "set", "run", "*", "1000")
        return str(key["text"])

    def workers(self) -> list[int]:
        return [part["pid"] for part in self.ask("status")["parts"] if part["name"].startswith("gateway") and part["pid"]]

    def balances(self) -> dict[str, dict[str, Any]]:
        token = (self.folder / ".cohort" / "secrets" / "operator.key").read_text().strip()
        wanted = urllib.request.Request(
            f"http://127.0.0.1:{self.control}/api/v1/gateway/balances", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(wanted, timeout=10) as answer:
            return {item["scope"]: item for item in json.load(answer)["items"]}

    def rows(self) -> tuple[int, int]:
        """Calls in control's database, and what they cost together, millionths of a dollar."""
        database = sqlite3.connect(f"file:{self.folder / '.cohort' / 'cohort.db'}?mode=ro", uri=True)
        with contextlib.closing(database):
            calls, cost = database.execute("SELECT coalesce(sum(calls), 0), coalesce(sum(cost_usd_micro), 0) FROM spending").fetchone()
        return int(calls), int(cost)

    def close(self) -> None:
        with contextlib.suppress(SystemExit):
            self.ask("down")
        self.upstream.kill()
        self.upstream.wait()


def _is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def client(port: int, key: str, met: Counter[str], end_s: float, draw: random.Random) -> None:
    """One connection after the other until `end_s`, with one call after the other on each."""
    while time.monotonic() < end_s:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            met["not connected"] += 1
            await asyncio.sleep(BACK_S)
            continue
        try:
            while time.monotonic() < end_s and await call(reader, writer, key, met, draw):
                pass
        except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
            met["broken off"] += 1
        finally:
            writer.transport.abort()


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, met: Counter[str], draw: random.Random) -> bool:
    """One call; False when its connection is of no more use."""
    stream, leaves = draw.random() < STREAM_SHARE, draw.random() < LEFT_SHARE
    fields = {
        "model": "s",
        "stream": stream,
        "max_tokens": draw.randint(8, 60),
        "messages": [{"role": "user", "content": "Hi " * draw.randint(1, 30)}],
    }
    body = json.dumps(fields).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
    writer.write(f"{head}X-Cohort-Run: run-{draw.randrange(RUNS)}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    if leaves:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(draw.random() * 0.6):
                await reader.read(1 << 20)
        met["left"] += 1
        return False
    answer = await reader.readuntil(b"\r\n\r\n")
    status = answer.split(b" ", 2)[1].decode()
    head_said = answer.lower()
    if b"transfer-encoding: chunked" in head_said:
        await reader.readuntil(b"0\r\n\r\n")
    else:
        await reader.readexactly(int(head_said.split(b"content-length: ")[1].split(b"\r\n")[0]))
    met[status] += 1
    if status != "200":
        await asyncio.sleep(BACK_S)
    return b"connection: close" not in head_said


async def load(house: House, key: str, connections: int, seconds: float, kills: int) -> Counter[str]:
    met: Counter[str] = Counter()
    end_s = time.monotonic() + seconds
    clients = [asyncio.create_task(client(house.port, key, met, end_s, random.Random(number))) for number in range(connections)]
    for _ in range(kills):
        await asyncio.sleep(seconds / (kills + 1))
        workers = await asyncio.to_thread(house.workers)
        os.kill(workers[met["killed"] % len(workers)], signal.SIGKILL)
        met["killed"] += 1
    await asyncio.gather(*clients)
    return met


def settled(house: House) -> dict[str, Any]:
    """What the books say once nothing is held and control has every record."""
    end_s, before = time.monotonic() + QUIET_S, None
    while time.monotonic() < end_s:
        found = {"balances": house.balances(), "rows": house.rows()}
        quiet = not any(item["held"] for item in found["balances"].values()) and found["balances"]["all"]["spent"] == found["rows"][1]
        if quiet or (found == before and time.monotonic() > end_s - QUIET_S / 2):
            return found
        before = found
        time.sleep(0.5)
    return {"balances": house.balances(), "rows": house.rows()}


def run(connections: int, seconds: float, workers: int, kills: int, usd: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bu") as folder:
        house = House(Path(folder), workers)
        try:
            key = house.begin(usd)
            met = asyncio.run(load(house, key, connections, seconds, kills))
            found = settled(house)
            books, (calls, cost) = found["balances"], found["rows"]
            told = {f"met_{name}": count for name, count in sorted(met.items()) if name != "killed"}
            books_said = {"budget": books["key"]["limit"], "spent": books["key"]["spent"], "spent_all": books["all"]["spent"], "rows": cost}
            held, ahead = sum(item["held"] for item in books.values()), books["all"]["spent"] - cost
            asked = {"connections": connections, "seconds": seconds, "workers": workers, "kills": met["killed"]}
            return {**asked, **told, "calls": calls, **books_said, "held": held, "ahead": ahead}
        finally:
            house.close()


def holds(found: dict[str, Any]) -> list[str]:
    """What does not hold. A worker that is killed may have settled calls of one turn of its loop whose records it could not write any more."""
    wrong = []
    if found["held"]:
        wrong.append("something is still held")
    if found["spent"] != found["spent_all"] or found["ahead"] < 0 or (found["ahead"] and not found["kills"]):
        wrong.append("what was spent is not what was recorded")
    if found["spent"] > found["budget"]:
        wrong.append("the budget was exceeded")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--usd", type=float, default=100.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = run(given.connections, given.seconds, given.workers, given.kills, given.usd)
    found["wrong"] = holds(found)
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>16}  {value}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
