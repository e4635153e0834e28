"""What asking people costs the gate: looking for a grant, using a rule, and a whole question, beside durable commits alone.

python bench/approvals.py [--json] [--rounds N]

The real audit log, two SQLite files as in an installation, and a history of answered questions. The limit is what cannot be less: one
durable commit for the record and one for the change, by sqlite3 alone, on the same disk in the same run.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cohort.base.clock import SystemClock
from cohort.kernel.approvals.desk_sql import SqlApprovals
from cohort.kernel.approvals.limits import ApprovalLimits
from cohort.kernel.audit.room import open_audit
from cohort.kernel.model import GrantScope
from cohort.storage.database import open_database
from support_approvals import POLICY, action, question, sign, writing
from support_timing import committing, measured

WARM_UP = 20
HISTORY = 2000
NO_BUDGET = {"asked_per_session_hour": 1_000_000}

timed = partial(measured, warm_up=WARM_UP)


def run(rounds: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        databases = [open_database(f"sqlite:///{folder / file}") for file in ("cohort.db", "audit.db")]
        for database in databases:
            database.migrate()
        clock = SystemClock()
        room = open_audit(databases[1], clock, secrets.token_bytes, key_file=folder / "key", origin="bench.example/audit")
        approvals = SqlApprovals(databases[0], room.log, clock, secrets.token_bytes, replace(ApprovalLimits(), **NO_BUDGET))
        found = measure(approvals, folder, rounds)
        room.stop()
        for database in databases:
            database.close()
        return found


def measure(approvals: SqlApprovals, folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    counter = iter(range(1_000_000))

    def whole() -> None:
        about = writing(str(next(counter)))
        asked = approvals.ask(question(about))
        approvals.approve(asked.id, sign())
        if approvals.consume(about, POLICY, None) is None:
            raise RuntimeError("an approval was not there")

    for _ in range(HISTORY):
        whole()
    asked = approvals.ask(question(action()))
    approvals.approve(asked.id, sign("anna", GrantScope.STANDING))
    approvals.consume(action(), POLICY, None)
    pending = approvals.ask(question(writing("pending")))
    one, other = committing(folder / "one.db"), committing(folder / "other.db")

    def both() -> None:
        one()
        other()

    return {
        "limit: two durable commits by sqlite3 alone": timed(both, rounds),
        "no grant: consume finds nothing": timed(lambda: approvals.consume(writing("none"), POLICY, None), rounds),
        "one use of a standing rule": timed(lambda: approvals.consume(action(), POLICY, None), rounds),
        "the same question again": timed(lambda: approvals.ask(question(pending.action)), rounds),
        "ask, approve and consume": timed(whole, rounds),
        "the inbox": timed(lambda: approvals.list(pending.state), rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=500)
    options = parser.parse_args()
    found = run(options.rounds)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    limit = next(iter(found.values()))["p50_us"]
    for name, figures in found.items():
        print(
            f"{name:44} p50 {figures['p50_us']:8.1f} us   p99 {figures['p99_us']:8.1f} us   {figures['p50_us'] / limit:6.2f} x two commits"
        )


if __name__ == "__main__":
    main()
