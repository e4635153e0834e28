"""Questions that belong together are shown together, the riskiest first."""

from __future__ import annotations

from dataclasses import replace

from cohort.kernel.approvals.batches import batched
from support_approvals import MemoryAudit, action, desk, question, writing


def test_questions_of_one_task_and_operation_are_one_batch(sqlite_database, clock):
    approvals = desk(sqlite_database, clock, MemoryAudit())
    asked = []
    for about, task, risk in (
        (writing("a"), "t", 0.2),
        (writing("b"), "t", 0.6),
        (action(), "t", 0.7),
        (writing("c"), None, 0.2),
        (writing("d", session="se_other"), "t", 0.2),
        (writing("e", session="se_other"), None, 0.2),
    ):
        clock.advance(1)
        asked.append(approvals.ask(replace(question(about, task=task), risk=risk)))
    found = batched(approvals.list())
    assert [(batch.operation, batch.task, batch.risk, [asked.index(each) for each in batch.approvals]) for batch in found] == [
        ("terminal.run", "t", 0.7, [2]),
        ("files.write", "t", 0.6, [0, 1, 4]),
        ("files.write", None, 0.2, [3]),
        ("files.write", None, 0.2, [5]),
    ]
    assert batched([]) == []
