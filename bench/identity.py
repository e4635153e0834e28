"""What it costs to know who asks: authentication of a token, beside its two parts alone and the whole without the memory of signatures.

python bench/identity.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import sqlite3
import sys
import tempfile
from functools import partial
from pathlib import Path

import jwt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cohort.base.clock import SystemClock
from cohort.kernel.identity.rows import BY_SESSION
from cohort.kernel.ports import AUDIENCE
from cohort.storage.database import open_database
from support_identity import Offices
from support_timing import measured

WARM_UP = 200
SLOW_ROUNDS = 300
AGENTS = 10
"""So many sign in that none asks for more tokens than it may in a minute."""

timed = partial(measured, warm_up=WARM_UP)


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
        keys = itertools.cycle([offices.register(f"many-{number}").key for number in range(AGENTS)])

        def question() -> None:
            with database.read() as connection:
                connection.execute(BY_SESSION, {"session": pair.session}).one()

        def bare() -> None:
            plain.execute("SELECT * FROM agent_sessions s JOIN agents a ON a.id = s.agent WHERE s.id = ?", (pair.session,)).fetchone()

        def forgetting() -> None:
            identities._jwts._known._claims.clear()
            identities.authenticate(pair.token, AUDIENCE)

        found = {
            "authenticate": timed(lambda: identities.authenticate(pair.token, AUDIENCE), rounds),
            "authenticate, delegated": timed(lambda: identities.authenticate(child.token, AUDIENCE), rounds),
            "authenticate, signature not seen before": timed(forgetting, rounds),
            "its query": timed(question, rounds),
            "limit: the same query by sqlite3 alone": timed(bare, rounds),
            "peer: PyJWT decode alone": timed(lambda: jwt.decode(pair.token, key, algorithms=["EdDSA"], audience=AUDIENCE), rounds),
            "sign in and end it": timed(lambda: _sign_in(offices, next(keys)), min(rounds, SLOW_ROUNDS)),
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
