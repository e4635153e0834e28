"""Cohort's gateway with a table, as control would have pushed it."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from gateway_parts.processes import WAIT_S, free_port, resident_mb, start, wait_for_port

TOKEN = secrets.token_hex(16)


KEY = "cgk_" + secrets.token_urlsafe(32)
"""Of the client, where everything is on."""
PLENTY_USD_MICRO = 10**15


def start_gateway(
    folder: Path, core: int, upstream_port: int, everything: bool = False
) -> tuple[subprocess.Popen[bytes], int, dict[str, float]]:
    """A gateway with a table, restarted once to time it from start to ready. `everything`: see `with_everything`; it has an access log as well."""
    folder.mkdir(exist_ok=True)
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
        "access_log": everything,
    }
    (folder / "gateway.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "cohort.gateway", "--config", str(folder / "gateway.json")]
    process = start(command, core, folder / "gateway.log")
    wait_for_port(port)
    table = table_of(upstream_port)
    push_table(port, with_everything(table) if everything else table)
    process.terminate()
    process.wait(WAIT_S)
    before_s = time.perf_counter()
    process = start(command, core, folder / "gateway.log")
    wait_ready(port)
    ready_s = time.perf_counter() - before_s
    return process, port, {"start_to_ready_s": round(ready_s, 3), "resident_idle_mb": round(resident_mb(process.pid), 1)}


def table_of(upstream_port: int) -> dict[str, Any]:
    """One service with a running rollout."""
    route: dict[str, Any] = {"name": "main", "provider": "openai", "base_url": f"http://127.0.0.1:{upstream_port}/v1", "model": "m"}
    route["price"] = {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10}
    releases: dict[str, Any] = {d: {"digest": d, "version": d, "routes": [route], "timeout_s": 30} for d in ("rel_a", "rel_b")}
    split = {"rollout_id": "ro_bench", "salt": "5a17", "stage_run": 1, "candidate": "rel_b", "share": 0.25}
    services = {"bench": {"name": "bench", "stable": "rel_a", "split": split}}
    return {"version": 1, "issued_us": 1, "contract": 1, "services": services, "releases": releases}


def with_everything(table: dict[str, Any]) -> dict[str, Any]:
    """A key and a budget for the client, and for each release a strong and a weak route, exact caches, and no personal data upstream."""
    for release in table["releases"].values():
        release["routes"].append({**release["routes"][0], "name": "small"})
        release["routing"] = {"strong": "main", "weak": "small", "strong_share_range": [0.55, 0.65]}
        release["cache"] = {"exact": True}
        release["personal"] = {"upstream": "redact"}
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    key = {"id": "key_bench", "name": "bench", "sha256": digest, "tenant": "bench", "budget_usd_micro_per_day": PLENTY_USD_MICRO}
    return {**table, "keys_required": True, "keys": [key]}


def push_table(port: int, table: dict[str, Any]) -> None:
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
