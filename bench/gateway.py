"""How fast is the gateway, beside nothing, nginx, LiteLLM and Portkey, in the same run.

    python bench/gateway.py [--rounds N] [--seconds S] [--soak REQUESTS] [--json]

The server under test has one core to itself; the load and the upstream share the other. Targets take turns in random order, each
measured `--rounds` times. The middle round is shown; of CPU time per request the least, which others on the machine disturb least.
The gateway is measured twice: with a rollout alone, and with all its features on (the client's key, a budget, a lookup in the exact cache
that finds nothing, a choice between a strong and a weak route, personal data looked for, the access log).
Three cases: a chat request of 800 bytes at 1 and at 32 connections; 32 streams of 100 chunks each, paced so that a chunk is a read of its
own (CPU time per chunk, the request's share included); a prompt of 256 KB at 8 connections. Besides: the highest rate at which the 99th
percentile stays within 1, 5, 10 and 50 ms, over rising numbers of connections; the latency of an open loop at a rate every target sustains.
Every answer of the gateway must carry the release header (it is not a pass-through), and its stream the bytes of the upstream's.
wrk makes the load when it is installed, else a loop of our own (slower, and said so). A peer that is not installed is left out, with a
message; `make peers` installs LiteLLM and Portkey, each in an environment of its own. `--soak` sends so many requests and says how the
gateway's memory grew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_parts.cases import BODY_BYTES, CASES, CHAT, CHUNKS, CONNECTIONS, PROMPT, STREAM
from gateway_parts.gateway_process import KEY, start_gateway
from gateway_parts.load import check_answers, load_own, load_wrk, open_loop
from gateway_parts.processes import Target, cpu_s, free_port, resident_mb, start, wait_for_port
from gateway_parts.rivals import start_rivals
from gateway_parts.upstream import serve_upstream

UPSTREAM_SHARE = "--upstream"
TAILS_MS = (1, 5, 10, 50)
TAIL_CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
OPEN_PER_S = 50.0
"""Requests a second of the open loop: what the slowest peer sustains."""
SOAK_WARM = 50_000
SOAK_STEP_S = 10.0
EVERYTHING = "gateway, all on"


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


def measure(target: Target, folder: Path, load_core: int, case: str, connections: int, seconds: float) -> Round:
    load = load_wrk if shutil.which("wrk") else load_own
    before_s = cpu_s(target.pids)
    rate, p50_ms, p99_ms, errors, requests = load(folder, load_core, target, case, connections, seconds)
    used_s = cpu_s(target.pids) - before_s
    return Round(target.name, case, connections, rate, p50_ms, p99_ms, used_s / max(requests, 1) * 1e6, errors)


def of_case(rounds: list[Round], target: str, case: str, connections: int) -> list[Round]:
    """Its rounds, the slowest first."""
    chosen = (r for r in rounds if (r.target, r.case, r.connections) == (target, case, connections))
    return sorted(chosen, key=lambda r: r.requests_per_s)


def middle(rounds: list[Round], target: str, connections: int) -> Round:
    chosen = of_case(rounds, target, CHAT, connections)
    return chosen[len(chosen) // 2]


def least_cpu_us(rounds: list[Round], target: str, case: str, connections: int) -> float | None:
    return min((r.cpu_us for r in of_case(rounds, target, case, connections)), default=None)


def run(rounds_wanted: int, seconds: float) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = cores[0], cores[-1]
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as name:
        folder = Path(name)
        try:
            targets, idle = start_targets(folder, server_core, load_core, processes)
            idle_mb = {target.name: round(sum(resident_mb(pid) for pid in target.pids), 1) for target in targets}
            rounds = take_turns(targets, folder, load_core, rounds_wanted, seconds)
            tails = {target.name: at_tails(target, folder, load_core) for target in targets}
            opened = {target.name: open_loop(load_core, target, OPEN_PER_S, max(seconds, 2.0)) for target in targets}
            idle["resident_after_mb"] = round(resident_mb(next(t for t in targets if t.name == "gateway").pids[0]), 1)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    result = summary(targets, rounds, idle, seconds)
    for name, row in result["targets"].items():
        row |= {"resident_idle_mb": idle_mb[name], "requests_per_s_at_p99_ms": tails[name]}
        row |= {"open_p50_ms": round(opened[name][0], 2), "open_p99_ms": round(opened[name][1], 2)}
    return result


def at_tails(target: Target, folder: Path, load_core: int) -> dict[str, int | None]:
    """The highest rate whose 99th percentile stays within each bound, over rising numbers of connections; None where none does."""
    load = load_wrk if shutil.which("wrk") else load_own
    found = [load(folder, load_core, target, CHAT, connections, 1.0) for connections in TAIL_CONNECTIONS]
    rates = {bound: [rate for rate, _, p99_ms, errors, _ in found if rate > 0 and p99_ms <= bound and not errors] for bound in TAILS_MS}
    return {str(bound): round(max(within)) if within else None for bound, within in rates.items()}


def soak(requests_wanted: int) -> dict[str, Any]:
    """Memory of the gateway over so many requests at 32 connections, after `SOAK_WARM` of them."""
    cores = sorted(os.sched_getaffinity(0))
    processes: list[subprocess.Popen[bytes]] = []
    load = load_wrk if shutil.which("wrk") else load_own
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as name:
        folder, port = Path(name), free_port()
        try:
            processes.append(
                start([sys.executable, str(Path(__file__).resolve()), UPSTREAM_SHARE, str(port)], cores[-1], folder / "upstream.log")
            )
            wait_for_port(port)
            gateway, gateway_port, _ = start_gateway(folder, cores[0], port)
            processes.append(gateway)
            target, done, points = Target("gateway", {CHAT: gateway_port}, [gateway.pid]), 0, list[tuple[int, float]]()
            while done < SOAK_WARM + requests_wanted:
                done += load(folder, cores[-1], target, CHAT, 32, SOAK_STEP_S if done >= SOAK_WARM else 2.0)[4]
                if done >= SOAK_WARM:
                    points.append((done, round(resident_mb(gateway.pid), 2)))
                    sys.stderr.write(f"{done} requests: {points[-1][1]} MB\n")
        finally:
            for process in processes:
                process.kill()
                process.wait()
    growth = points[-1][1] - points[0][1]
    return {"machine": machine(SOAK_STEP_S), "requests": done, "resident_mb": points, "growth_mb": round(growth, 2)}


def start_targets(
    folder: Path, server_core: int, load_core: int, processes: list[subprocess.Popen[bytes]]
) -> tuple[list[Target], dict[str, float]]:
    """The bare upstream (on the server's core), the gateway and its peers (each before an upstream on the load's core)."""
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
    loaded, loaded_port, _ = start_gateway(folder / "everything", server_core, ports["behind"], everything=True)
    processes.append(loaded)
    headers = {"Authorization": f"Bearer {KEY}"}
    targets.append(Target(EVERYTHING, dict.fromkeys((CHAT, STREAM, PROMPT), loaded_port), [loaded.pid], headers, numbered=True))
    targets += start_rivals(folder, server_core, ports["behind"], processes)
    return targets, idle


def take_turns(targets: list[Target], folder: Path, load_core: int, rounds_wanted: int, seconds: float) -> list[Round]:
    for target in targets:
        check_answers(target)
        measure(target, folder, load_core, CHAT, 8, 1)  # warm
    turns = [(target, *case) for target in targets for case in CASES if case[0] in target.ports for _ in range(rounds_wanted)]
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
            "cpu_us_32": rounded(least_cpu_us(rounds, target.name, CHAT, 32)),
            "cpu_us_chunk": rounded(least_cpu_us(rounds, target.name, STREAM, 32), CHUNKS + 1),
            "cpu_us_prompt": rounded(least_cpu_us(rounds, target.name, PROMPT, 8)),
            "p50_ms_1": round(one.p50_ms, 3),
            "p99_ms_1": round(one.p99_ms, 3),
            "p99_ms_32": round(many.p99_ms, 3),
            "errors": sum(r.errors for r in rounds if r.target == target.name),
        }
    bare, gateway, loaded = rows["bare upstream"], rows["gateway"], rows[EVERYTHING]
    added = {f"added_{key}": round(gateway[key] - bare[key], 3) for key in ("p50_ms_1", "p99_ms_1")}
    added |= {f"all_on_added_{key}": round(loaded[key] - bare[key], 3) for key in ("p50_ms_1", "p99_ms_1")}
    for peer in ("LiteLLM", "Portkey"):
        if peer in rows:
            added[f"times_{peer.lower()}"] = round(gateway["requests_per_s_32"] / max(rows[peer]["requests_per_s_32"], 1), 1)
    if "nginx" in rows:
        added["all_on_share_of_nginx"] = round(loaded["requests_per_s_32"] / rows["nginx"]["requests_per_s_32"], 2)
        added["share_of_nginx"] = round(gateway["requests_per_s_32"] / rows["nginx"]["requests_per_s_32"], 2)
        added |= {f"nginx_added_{key}": round(rows["nginx"][key] - bare[key], 3) for key in ("p50_ms_1", "p99_ms_1")}
    return {"machine": machine(seconds), "targets": rows, "gateway": {**added, **idle}}


def rounded(value: float | None, parts: int = 1) -> float | None:
    return None if value is None else round(value / parts, 1)


def machine(seconds: float) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
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
            f"{name:16}{row['requests_per_s_32']:>14}{row['cpu_us_32']:>12}{row['cpu_us_chunk'] or '-':>10}{row['cpu_us_prompt'] or '-':>11}"
            f"{row['p50_ms_1']:>13}{row['p99_ms_1']:>13}{row['p99_ms_32']:>14}{row['errors']:>8}"
        )
    bounds = "".join(f"{f'p99 <= {bound} ms':>14}" for bound in TAILS_MS)
    print(f"\n{'req/s while':16}{bounds}{'open p50 ms':>14}{'open p99 ms':>14}{'idle MB':>10}")
    for name, row in result["targets"].items():
        rates = "".join(f"{'-' if rate is None else rate:>14}" for rate in row["requests_per_s_at_p99_ms"].values())
        print(f"{name:16}{rates}{row['open_p50_ms']:>14}{row['open_p99_ms']:>14}{row['resident_idle_mb']:>10}")
    for name, value in {**result["gateway"], **result["machine"]}.items():
        print(f"{name}: {value}")


def main() -> None:
    if sys.argv[1:2] == [UPSTREAM_SHARE]:
        serve_upstream(int(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description="The gateway beside nothing and beside its peers, one core each.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per round")
    parser.add_argument("--soak", type=int, metavar="REQUESTS", help="only this: memory over so many requests")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = soak(options.soak) if options.soak else run(options.rounds, options.seconds)
    if options.json or options.soak:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
