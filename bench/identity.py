"""What it costs to know who asks: authentication of a token, beside its two parts alone and the whole without the memory of signatures.

python bench/identity.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jwt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cohort.base.clock import SystemClock
from cohort.kernel.identity.rows import BY_SESSION
from cohort.kernel.ports import AUDIENCE
from cohort.storage.database import open_database
from support_identity import Offices

WARM_UP = 200
SLOW_ROUNDS = 300


def measured(call: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median and 99th percentile in microseconds."""
    for _ in range(WARM_UP):
        call()
    taken = []
    for _ in range(rounds):
        start_ns = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - start_ns) / 1000)
    taken.sort()
    return {"p50_us": round(statistics.median(taken), 1), "p99_us": round(taken[int(len(taken) * 0.99)], 1)}


def run(rounds: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.db"
        database = open_database(f"sqlite:///{path}")
        database.migrate()
        offices = Offices(database, SystemClock(), Path(folder) / "tokens", seed=secrets.randbits(32))
        registered = offices.register("smoke-1", "files.read", "files.write", "agents.delegate")
        pair = offices.room.tokens.sign_in(registered.key, None, AUDIENCE)
        child = offices.room.tokens.exchange(pair.token, "smoke-1", ["files.read"], AUDIENCE)
        key = jwt.PyJWK(offices.room.tokens.jwks()["keys"][0]).key
        plain = sqlite3.connect(path)
        identities = offices.room.identities

        def question() -> None:
            with database.read() as connection:
                connection.execute(BY_SESSION, {"session": pair.session}).one()

        def bare() -> None:
            plain.execute("SELECT * FROM agent_sessions s JOIN agents a ON a.id = s.agent WHERE s.id = ?", (pair.session,)).fetchone()

        def forgetting() -> None:
            identities._jwts._known._claims.clear()
            identities.authenticate(pair.token, AUDIENCE)

        found = {
            "authenticate": measured(lambda: identities.authenticate(pair.token, AUDIENCE), rounds),
            "authenticate, delegated": measured(lambda: identities.authenticate(child.token, AUDIENCE), rounds),
            "authenticate, signature not seen before": measured(forgetting, rounds),
            "its query": measured(question, rounds),
            "limit: the same query by sqlite3 alone": measured(bare, rounds),
            "peer: PyJWT decode alone": measured(lambda: jwt.decode(pair.token, key, algorithms=["EdDSA"], audience=AUDIENCE), rounds),
            "sign in and end it": measured(lambda: _sign_in(offices, registered.key), min(rounds, SLOW_ROUNDS)),
        }
        database.close()
        plain.close()
        return found


def _sign_in(offices: Offices, key: str) -> None:
    pair = offices.room.tokens.sign_in(key, None, AUDIENCE)
    offices.room.agents.revoke_session(pair.session, "bench", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5000)
    options = parser.parse_args()
    found = run(options.rounds)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    limit = found["limit: the same query by sqlite3 alone"]["p50_us"]
    for name, figures in found.items():
        print(
            f"{name:42} p50 {figures['p50_us']:8.1f} us   p99 {figures['p99_us']:8.1f} us   {figures['p50_us'] / limit:6.1f} x the bare query"
        )


if __name__ == "__main__":
    main()
