"""Cohort's gateway with a table, as control would have pushed it."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from gateway_parts.processes import WAIT_S, free_port, resident_mb, start, wait_for_port

TOKEN = secrets.token_hex(16)


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
