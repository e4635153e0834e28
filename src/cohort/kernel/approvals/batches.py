"""Questions that belong together, so that a person reads one heading instead of ten. Each is still answered, recorded and used by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cohort.base.ids import AgentId
from cohort.kernel.model import Approval


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions of one agent, one task (or session, where there is no task) and one operation, oldest first. `risk`: the highest."""

    agent: AgentId
    task: str | None
    operation: str
    risk: float
    approvals: tuple[Approval, ...]


def batched(approvals: Iterable[Approval]) -> Sequence[Batch]:
    """The riskiest batch first, then the one that waits longest."""
    groups: dict[tuple[str, ...], list[Approval]] = {}
    for approval in sorted(approvals, key=lambda each: (each.created_us, each.id)):
        belongs = ("task", approval.task) if approval.task is not None else ("session", approval.action.session)
        groups.setdefault((approval.action.agent, *belongs, approval.action.operation), []).append(approval)
    made = [_batch(group) for group in groups.values()]
    return sorted(made, key=lambda batch: (-batch.risk, batch.approvals[0].created_us, batch.approvals[0].id))


def _batch(group: Sequence[Approval]) -> Batch:
    first = group[0]
    return Batch(first.action.agent, first.task, first.action.operation, max(each.risk for each in group), tuple(group))
