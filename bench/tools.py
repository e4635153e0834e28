"""What MCP adds to an action: one call by each way in, beside the HTTP API's own. What is decided and done is in memory, so this is the way alone.

python bench/tools.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client, StdioServerParameters

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import cohort
from cohort.storage.database import open_database
from support_mcp import Place, client, opened

WARM_UP = 10
CALL: tuple[str, dict[str, Any]] = ("files_read", {"path": "a.txt"})


async def measured(call: Callable[[], Awaitable[object]], rounds: int) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    for _ in range(WARM_UP):
        await call()
    taken = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - start_s) * 1000)
    taken.sort()
    return {"p50_ms": round(statistics.median(taken), 2), "p99_ms": round(taken[int(len(taken) * 0.99)], 2)}


async def run(place: Place, rounds: int) -> dict[str, dict[str, float]]:
    found = {}
    token = place.token()["access_token"]
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
        body = {"operation": "files.read", "arguments": CALL[1]}
        found["peer: POST /api/v1/actions"] = await measured(lambda: http.post(f"{place.url}/api/v1/actions", json=body), rounds)
    for name, mode in (("/mcp, 2026-07-28", "2026-07-28"), ("/mcp, 2025-11-25", "legacy")):
        async with client(place, mode) as over_http:
            found[name] = await measured(lambda here=over_http: here.call_tool(*CALL), rounds)
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "cohort.surfaces.cli", "mcp", "--agent", "scribe", "--url", place.url],
        env={"PYTHONPATH": str(Path(cohort.__file__).parents[1]), "PATH": os.environ["PATH"], "COHORT_AGENT_KEY": place.key},
    )
    async with Client(parameters, mode="legacy") as over_pipes:
        found["cohort mcp"] = await measured(lambda: over_pipes.call_tool(*CALL), rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/cohort.db")
        database.migrate()
        with opened(database, Path(folder)) as place:
            found = anyio.run(run, place, options.rounds)
        database.close()
    if options.json:
        print(json.dumps(found, indent=1))
        return
    peer = found["peer: POST /api/v1/actions"]["p50_ms"]
    for name, figures in found.items():
        print(f"{name:28} p50 {figures['p50_ms']:8.2f} ms   p99 {figures['p99_ms']:8.2f} ms   {figures['p50_ms'] / peer:5.1f} x the API")


if __name__ == "__main__":
    main()
