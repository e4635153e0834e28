"""How fast is the gateway, beside nothing and beside nginx, in the same run.

    python bench/gateway.py [--rounds N] [--seconds S] [--json]

The server under test has one core to itself; the load and the upstream share the other. Targets take turns in random order, each
measured `--rounds` times. The middle round is shown; of CPU time per request the least, which others on the machine disturb least.
Three cases: a chat request of 800 bytes at 1 and at 32 connections; 32 streams of 100 chunks each, paced so that a chunk is a read of its
own (CPU time per chunk, the request's share included); a prompt of 256 KB at 8 connections.
Every answer of the gateway must carry the release header (it is not a pass-through), and its stream the bytes of the upstream's.
wrk makes the load when it is installed, else a loop of our own (slower, and said so); nginx is left out, with a message, when it is absent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BODY_BYTES = 800
WAIT_S = 20.0
CONNECTIONS = (1, 32)
CHAT, STREAM, PROMPT = "chat", "stream", "prompt"
CASES = ((CHAT, 1), (CHAT, 32), (STREAM, 32), (PROMPT, 8))
PROMPT_BYTES = 256 << 10
CHUNKS = 100
CHUNK_EVERY_S = 0.004
TOKEN = secrets.token_hex(16)
UPSTREAM_SHARE = "--upstream"

ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 200}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
    }
).encode()


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of one target."""

    target: str
    case: str
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the server under test, per request
    errors: int


@dataclass(slots=True)
class Target:
    name: str
    ports: dict[str, int]  # by case
    pids: list[int]


def request_body(case: str) -> bytes:
    """A chat request of 800 bytes, streamed or not, or one of 256 KB."""
    body: dict[str, Any] = {
        "model": "bench",
        "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": ""}],
        "temperature": 0,
    }
    if case == STREAM:
        body["stream"] = True
    body["messages"][1]["content"] = "x" * ((PROMPT_BYTES if case == PROMPT else BODY_BYTES) - len(json.dumps(body)))
    return json.dumps(body).encode()


# --- processes -----------------------------------------------------------------------------------------------------------------


def start(command: list[str], core: int, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with log.open("ab") as out:
        return subprocess.Popen(["taskset", "-c", str(core), *command], stdout=out, stderr=out, env=environment)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.005)
        else:
            return
    raise SystemExit(f"nothing listens on port {port} within {WAIT_S} s")


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def start_gateway(folder: Path, core: int, upstream_port: int) -> tuple[subprocess.Popen[bytes], int, dict[str, float]]:
    """A gateway with a table, restarted once to time it from start to ready."""
    port = free_port()
    for name, text in (("unit.key", secrets.token_hex(32)), ("link.token", TOKEN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    config = {
        "gateway_id": "gw-bench",
        "host": "127.0.0.1",
        "port": port,
        "data_dir": str(folder / "data"),
        "unit_key_file": str(folder / "unit.key"),
        "link_token_file": str(folder / "link.token"),
    }
    (folder / "gateway.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "cohort.gateway", "--config", str(folder / "gateway.json")]
    process = start(command, core, folder / "gateway.log")
    wait_for_port(port)
    push_table(port, upstream_port)
    process.terminate()
    process.wait(WAIT_S)
    before_s = time.perf_counter()
    process = start(command, core, folder / "gateway.log")
    wait_ready(port)
    ready_s = time.perf_counter() - before_s
    return process, port, {"start_to_ready_s": round(ready_s, 3), "resident_idle_mb": round(resident_mb(process.pid), 1)}


def push_table(port: int, upstream_port: int) -> None:
    route = {"name": "main", "provider": "openai", "base_url": f"http://127.0.0.1:{upstream_port}/v1", "model": "m"}
    route["price"] = {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10}  # type: ignore[assignment]
    releases = {d: {"digest": d, "version": d, "routes": [route], "timeout_s": 30} for d in ("rel_a", "rel_b")}
    split = {"rollout_id": "ro_bench", "salt": "5a17", "stage_run": 1, "candidate": "rel_b", "share": 0.25}
    services = {"bench": {"name": "bench", "stable": "rel_a", "split": split}}
    table = {"version": 1, "issued_us": 1, "contract": 1, "services": services, "releases": releases}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/-/routing", json.dumps(table).encode(), {"Authorization": f"Bearer {TOKEN}"}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=WAIT_S).read()


def wait_ready(port: int) -> None:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1).read()
        except OSError:
            time.sleep(0.002)
        else:
            return
    raise SystemExit("the gateway did not become ready")


def start_nginx(folder: Path, core: int, upstream_port: int) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """As a reverse proxy; on a port of its own for streams, which it does not buffer there."""
    port, stream_port = free_port(), free_port()
    proxied = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; client_body_buffer_size 512k;'
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
        events {{ worker_connections 1024; }}
        http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
          uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 1000000000;
          upstream up {{ server 127.0.0.1:{upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
          server {{ listen 127.0.0.1:{port}; tcp_nodelay on; location / {{ {proxied} }} }}
          server {{ listen 127.0.0.1:{stream_port}; tcp_nodelay on; location / {{ {proxied} proxy_buffering off; }} }} }}
        """
    )
    process = start(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], core, folder / "nginx.out")
    wait_for_port(port)
    return process, {CHAT: port, STREAM: stream_port, PROMPT: port}


# --- the upstream --------------------------------------------------------------------------------------------------------------


EVENT = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "m"}
EVENT["choices"] = [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]  # type: ignore[assignment]
CHUNK = b"data: %s\n\n" % json.dumps(EVENT).encode()
DONE = b"data: [DONE]\n\n"


def in_chunks(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class UpstreamProtocol(asyncio.Protocol):
    """Answers every request with the same bytes; knows just enough HTTP to find where one ends."""

    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
    STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    FRAME = in_chunks(CHUNK)
    END = in_chunks(DONE) + b"0\r\n\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            if body.find(b'"stream": true', 0, BODY_BYTES) >= 0:
                self._transport.write(self.STREAM_HEAD)  # type: ignore[attr-defined]
                self._next_chunk(CHUNKS)
            else:
                self._transport.write(self.HEAD + ANSWER)  # type: ignore[attr-defined]

    def _next_chunk(self, left: int) -> None:
        self._transport.write(self.FRAME if left else self.END)  # type: ignore[attr-defined]
        if left:
            asyncio.get_running_loop().call_later(CHUNK_EVERY_S, self._next_chunk, left - 1)


def serve_upstream(port: int) -> None:
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(UpstreamProtocol, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


# --- load ----------------------------------------------------------------------------------------------------------------------

LUA = """
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
wrk.body = %s
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%f %%f %%d\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def load_wrk(folder: Path, core: int, port: int, case: str, connections: int, seconds: float) -> tuple[float, float, float, int, int]:
    """Requests per second, p50 and p99 in ms, errors, requests."""
    script = folder / "chat.lua"
    script.write_text(LUA % json.dumps(request_body(case).decode()))
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True)
    words = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
    requests, duration_us = int(words[1]), int(words[2])
    return requests / (duration_us / 1e6), float(words[3]) / 1e3, float(words[4]) / 1e3, int(words[5]), requests


class _Client(asyncio.Protocol):
    def __init__(self, message: bytes, latencies: list[float]) -> None:
        self._message, self._latencies = message, latencies
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.ask()

    def ask(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._message)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if data.endswith((ANSWER, b"0\r\n\r\n")):
            self._latencies.append(time.perf_counter() - self._sent_s)
            self.ask()


def load_own(_folder: Path, core: int, port: int, case: str, connections: int, seconds: float) -> tuple[float, float, float, int, int]:
    """As `load_wrk`, in this process."""
    body = request_body(case)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    latencies: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: _Client(head.encode() + body, latencies), "127.0.0.1", port) for _ in range(connections)
        ]
        await asyncio.sleep(seconds)
        for transport, _ in made:
            transport.abort()

    os.sched_setaffinity(0, {core})
    asyncio.run(run())
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies) / seconds, cuts[49] * 1e3, cuts[98] * 1e3, 0, len(latencies)


def check_not_passed_through(target: Target) -> None:
    ask(target, PROMPT, ANSWER)
    ask(target, STREAM, CHUNK * CHUNKS + DONE)
    ask(target, CHAT, ANSWER)


def ask(target: Target, case: str, expected: bytes) -> None:
    url = f"http://127.0.0.1:{target.ports[case]}/v1/chat/completions"
    request = urllib.request.Request(url, request_body(case), {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        if answer.read() != expected:
            raise SystemExit(f"{target.name}: not the bytes of the upstream ({case})")
        if target.name == "gateway" and not answer.headers["X-Cohort-Release"]:
            raise SystemExit("the gateway's answer carries no release header: this would measure a pass-through")


# --- the run -------------------------------------------------------------------------------------------------------------------


def measure(target: Target, folder: Path, load_core: int, case: str, connections: int, seconds: float) -> Round:
    load = load_wrk if shutil.which("wrk") else load_own
    before_s = cpu_s(target.pids)
    rate, p50_ms, p99_ms, errors, requests = load(folder, load_core, target.ports[case], case, connections, seconds)
    used_s = cpu_s(target.pids) - before_s
    return Round(target.name, case, connections, rate, p50_ms, p99_ms, used_s / max(requests, 1) * 1e6, errors)


def of_case(rounds: list[Round], target: str, case: str, connections: int) -> list[Round]:
    """Its rounds, the slowest first."""
    chosen = (r for r in rounds if (r.target, r.case, r.connections) == (target, case, connections))
    return sorted(chosen, key=lambda r: r.requests_per_s)


def middle(rounds: list[Round], target: str, connections: int) -> Round:
    chosen = of_case(rounds, target, CHAT, connections)
    return chosen[len(chosen) // 2]


def least_cpu_us(rounds: list[Round], target: str, case: str, connections: int) -> float:
    return min(r.cpu_us for r in of_case(rounds, target, case, connections))


def run(rounds_wanted: int, seconds: float) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = cores[0], cores[-1]
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as name:
        folder = Path(name)
        try:
            targets, idle = start_targets(folder, server_core, load_core, processes)
            rounds = take_turns(targets, folder, load_core, rounds_wanted, seconds)
            idle["resident_after_mb"] = round(resident_mb(next(t for t in targets if t.name == "gateway").pids[0]), 1)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    return summary(targets, rounds, idle, seconds)


def start_targets(
    folder: Path, server_core: int, load_core: int, processes: list[subprocess.Popen[bytes]]
) -> tuple[list[Target], dict[str, float]]:
    """The bare upstream (on the server's core), nginx and the gateway (each before an upstream on the load's core)."""
    ports = {"bare": free_port(), "behind": free_port()}
    upstream = [sys.executable, str(Path(__file__).resolve()), UPSTREAM_SHARE]
    bare = start([*upstream, str(ports["bare"])], server_core, folder / "upstream.log")
    behind = start([*upstream, str(ports["behind"])], load_core, folder / "upstream.log")
    processes += [bare, behind]
    for port in ports.values():
        wait_for_port(port)
    gateway, gateway_port, idle = start_gateway(folder, server_core, ports["behind"])
    processes.append(gateway)
    targets = [
        Target("bare upstream", dict.fromkeys((CHAT, STREAM, PROMPT), ports["bare"]), [bare.pid]),
        Target("gateway", dict.fromkeys((CHAT, STREAM, PROMPT), gateway_port), [gateway.pid]),
    ]
    if shutil.which("nginx"):
        nginx, nginx_ports = start_nginx(folder, server_core, ports["behind"])
        processes.append(nginx)
        targets.append(Target("nginx", nginx_ports, [nginx.pid]))
    else:
        sys.stderr.write("nginx is not installed: left out\n")
    return targets, idle


def take_turns(targets: list[Target], folder: Path, load_core: int, rounds_wanted: int, seconds: float) -> list[Round]:
    for target in targets:
        check_not_passed_through(target)
        measure(target, folder, load_core, CHAT, 8, 1)  # warm
    turns = [(target, *case) for target in targets for case in CASES for _ in range(rounds_wanted)]
    random.SystemRandom().shuffle(turns)
    rounds = []
    for target, case, connections in turns:
        done = measure(target, folder, load_core, case, connections, seconds)
        rounds.append(done)
        sys.stderr.write(
            f"{len(rounds)}/{len(turns)} {target.name} {case} {connections}: {done.requests_per_s:.0f}/s {done.cpu_us:.0f} us\n"
        )
    return rounds


def summary(targets: list[Target], rounds: list[Round], idle: dict[str, float], seconds: float) -> dict[str, Any]:
    rows = {}
    for target in targets:
        one, many = (middle(rounds, target.name, connections) for connections in CONNECTIONS)
        rows[target.name] = {
            "requests_per_s_32": round(many.requests_per_s),
            "requests_per_s_32_rounds": [round(r.requests_per_s) for r in of_case(rounds, target.name, CHAT, 32)],
            "cpu_us_32": round(least_cpu_us(rounds, target.name, CHAT, 32), 1),
            "cpu_us_chunk": round(least_cpu_us(rounds, target.name, STREAM, 32) / (CHUNKS + 1), 1),
            "cpu_us_prompt": round(least_cpu_us(rounds, target.name, PROMPT, 8)),
            "p50_ms_1": round(one.p50_ms, 3),
            "p99_ms_1": round(one.p99_ms, 3),
            "p99_ms_32": round(many.p99_ms, 3),
            "errors": sum(r.errors for r in rounds if r.target == target.name),
        }
    bare, gateway = rows["bare upstream"], rows["gateway"]
    added = {f"added_{key}": round(gateway[key] - bare[key], 3) for key in ("p50_ms_1", "p99_ms_1")}
    if "nginx" in rows:
        added["share_of_nginx"] = round(gateway["requests_per_s_32"] / rows["nginx"]["requests_per_s_32"], 2)
        added |= {f"nginx_added_{key}": round(rows["nginx"][key] - bare[key], 3) for key in ("p50_ms_1", "p99_ms_1")}
    return {"machine": machine(seconds), "targets": rows, "gateway": {**added, **idle}}


def machine(seconds: float) -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load_average": os.getloadavg()[0],
        "load_generator": "wrk" if shutil.which("wrk") else "own loop",
        "seconds_per_round": seconds,
        "request_bytes": BODY_BYTES,
    }


def show(result: dict[str, Any]) -> None:
    print(
        f"{'':16}{'req/s at 32':>14}{'CPU us/req':>12}{'us/chunk':>10}{'us/256 KB':>11}{'p50 ms at 1':>13}{'p99 ms at 1':>13}{'p99 ms at 32':>14}{'errors':>8}"
    )
    for name, row in result["targets"].items():
        print(
            f"{name:16}{row['requests_per_s_32']:>14}{row['cpu_us_32']:>12}{row['cpu_us_chunk']:>10}{row['cpu_us_prompt']:>11}"
            f"{row['p50_ms_1']:>13}{row['p99_ms_1']:>13}{row['p99_ms_32']:>14}{row['errors']:>8}"
        )
    for name, value in {**result["gateway"], **result["machine"]}.items():
        print(f"{name}: {value}")


def main() -> None:
    if sys.argv[1:2] == [UPSTREAM_SHARE]:
        serve_upstream(int(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description="The gateway beside nothing and beside nginx, one core each.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options.rounds, options.seconds)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
