"""However sessions fetch, write, run and read, whoever holds a stranger's words is marked: the gate against a model that follows the words."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.clock import ManualClock
from cohort.base.ids import AgentSessionId
from cohort.kernel.actions.clearance import Executed
from cohort.kernel.model import Autonomy, Outcome
from migrated_database import migrated
from support_gate import SCOPES, GateHouse, make_caller

STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["fetch", "write", "read", "run", "run with network", "recall", "remember"])),
    min_size=1,
    max_size=12,
)
ASKED = {
    "fetch": ("http.request", {"url": "https://known.example/"}),
    "write": ("files.write", {"path": "a", "content": "x"}),
    "read": ("files.read", {"path": "a"}),
    "run": ("terminal.run", {"argv": ["ls"]}),
    "run with network": ("terminal.run", {"argv": ["ls"], "network": True}),
    "recall": ("memory.read", {"query": "x"}),
    "remember": ("memory.write", {"text": "x"}),
}


@settings(max_examples=30)
@given(steps=STEPS)
def test_whoever_holds_a_strangers_words_is_marked(steps: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = migrated(Path(folder) / "gate.db")
        try:
            _follow(GateHouse(database, ManualClock(), Path(folder)), steps)
        finally:
            database.close()


def _follow(gates: GateHouse, steps: list[tuple[int, str]]) -> None:
    for name in ("memory.read", "memory.write"):
        gates.gate.register(name, lambda _cleared: Executed({}))
    caller = make_caller(gates.clock, (*SCOPES, "memory.read", "memory.write"), autonomy=Autonomy.AGGRESSIVE)
    sessions = [AgentSessionId(f"se_{number}" + "s" * 15) for number in range(3)]
    gates.identities.callers = {session: replace(caller, session=session) for session in sessions}
    holds, data = [False] * 3, False
    for who, what in steps:
        assert _done(gates, sessions[who], *ASKED[what])
        reads, writes = what in ("read", "run", "run with network", "recall"), what in ("write", "run", "run with network", "remember")
        holds[who] = holds[who] or what in ("fetch", "run with network") or (reads and data)
        data = data or (writes and holds[who])
        assert [gates.identities.taint(session).untrusted for session in sessions] == holds
        assert bool(gates.identities.untrusted_data) == data


def _done(gates: GateHouse, token: str, operation: str, arguments: dict[str, Any]) -> bool:
    result = gates.ask(operation, token=token, **arguments)
    if result.outcome is Outcome.WAITING:
        gates.approve(result)
        result = gates.ask(operation, token=token, **arguments)
    return result.outcome is Outcome.DONE
