"""The kernel as control composes it, on each store: an agent asks, a person answers, a command runs, and what it was promised is given back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.settings_kernel import KernelSettings
from cohort.compose.kernel import OVERCOMMIT, Kernel, build_kernel
from cohort.kernel.face import NewAgent, Request
from cohort.kernel.model import ActionResult, ApprovalState, Held, Limits, Outcome
from support_approvals import sign
from support_processes import until
from support_sandbox import need_bubblewrap


def configuration(folder: Path, own_log: bool) -> dict[str, Any]:
    """As `ops.configurations.control_config` writes it."""
    kernel = asdict(KernelSettings()) | {
        "workspace_root": str(folder / "workspaces"),
        "audit_url": f"sqlite:///{folder / 'audit.db'}" if own_log else None,
        "audit_key_file": str(folder / "audit.key"),
        "token_keys": str(folder / "token-keys"),
        "executions": str(folder / "executions"),
        "trust_domain": "test.example",
    }
    return {"installation": f"in{folder.name[-8:]}", "data_dir": str(folder), "kernel": kernel}


@pytest.fixture
def kernel(database) -> Iterator[Kernel]:
    need_bubblewrap()
    folder = Path(tempfile.mkdtemp(prefix="cohort-composed-"))
    folder.chmod(0o711)
    made = build_kernel(configuration(folder, own_log=database.dialect == "sqlite"), database, SystemClock(), {})
    made.start()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_whole_kernel_asks_a_person_runs_the_command_and_gives_back_what_it_promised(kernel):
    """One test, because a kernel takes seconds to probe its sandbox."""
    token = kernel.face.agents.mint(registered(kernel, "builder"), None, "anna").token
    asks_runs_and_records(kernel, token)
    processes_end_with_their_session(kernel, token)
    promises_are_kept_and_given_back(kernel)
    with pytest.raises(CohortError) as unknown:
        kernel.face.limits("nobody")
    assert unknown.value.code == "AGENT_UNKNOWN"
    assert {each.limit: each.held for each in kernel.face.limits("builder")}["processes"] is Held.ENFORCED
    assert kernel.face.audit.verify().integrity == "verified"
    nothing_was_a_breach(kernel)
    its_health_is_told_while_the_database_is_away(kernel)


class Away:
    """The audit log's desk while the database does not answer."""

    def size(self) -> int:
        raise CohortError("DATABASE_UNAVAILABLE", "it does not answer")


def its_health_is_told_while_the_database_is_away(kernel: Kernel) -> None:
    whole: Any = kernel.face
    away: Any = Away()
    kernel.face = replace(whole, audit=away)
    log, *others = kernel.health()
    kernel.face = whole
    assert (log.name, log.ok, log.detail) == ("audit log", False, "it does not answer")
    assert [(each.name, each.ok) for each in others] == [("containment", True), ("policy", True)]


def nothing_was_a_breach(kernel: Kernel) -> None:
    """What ran, the probe's own commands included, against what the log allowed."""
    counts = kernel._door.reconciler.compare()
    assert counts.executions >= 3
    assert (counts.bypasses, counts.containment_violations, counts.unauthorised) == (0, 0, 0), counts.findings


def registered(kernel: Kernel, name: str, limits: Limits | None = None) -> str:
    kernel.face.agents.register(NewAgent(name, ("system.execute", "system.read"), limits=limits or Limits()), "anna")
    return name


def approved(kernel: Kernel, token: str, request: Request) -> ActionResult:
    """Asked, answered with yes, and done."""
    waiting = kernel.face.actions.perform(token, request)
    assert waiting.outcome is Outcome.WAITING, waiting
    kernel.face.approvals.approve(waiting.approval_id, sign("berta"))
    return kernel.face.actions.perform(token, request)


def asks_runs_and_records(kernel: Kernel, token: str) -> None:
    done = approved(kernel, token, Request("terminal.run", {"argv": ["echo", "done"]}, why="to see"))
    assert (done.outcome, done.result["stdout"]) == (Outcome.DONE, "done\n")
    [asked] = kernel.face.approvals.list(ApprovalState.CONSUMED)
    assert (asked.plain, asked.approvers) == ("Run `echo done` in the workspace of agent `builder`", ("berta",))


def processes_end_with_their_session(kernel: Kernel, token: str) -> None:
    process = approved(kernel, token, Request("process.start", {"argv": ["sleep", "60"]})).result["id"]
    kernel.face.agents.revoke_session(kernel.face.actions.caller(token).session, "anna", "enough")
    another = kernel.face.agents.mint("builder", None, "anna").token

    def listed() -> list[tuple[str, bool]]:
        found = kernel.face.actions.perform(another, Request("process.list", {})).result["processes"]
        return [(each["id"], each["running"]) for each in found]

    until(lambda: listed() == [(process, False)])


def promises_are_kept_and_given_back(kernel: Kernel) -> None:
    most = replace(Limits(), memory_bytes=int(psutil.virtual_memory().total * OVERCOMMIT * 0.6))
    registered(kernel, "first", most)
    with pytest.raises(CohortError, match="bytes of memory are wanted") as caught:
        registered(kernel, "second", most)
    assert caught.value.code == "QUOTA_EXCEEDED"
    kernel.face.agents.revoke("first", "anna", "it is not needed")

    def fits() -> bool:
        try:
            return bool(registered(kernel, "second", most))
        except CohortError:
            return False

    until(fits)
