"""The way out as control composes it: a person grants an origin, the configuration calls it private, a command and a request reach it, all is charged."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.settings_kernel import KernelSettings
from cohort.compose.kernel import Kernel, build_kernel
from cohort.kernel.face import NewAgent, Request
from cohort.kernel.model import ActionResult, Autonomy, Outcome
from cohort.storage.database import Database, open_database
from support_approvals import sign
from support_egress import answering, serving
from support_sandbox import need_bubblewrap

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
FETCH = "import urllib.request as r\nprint(r.urlopen('http://localhost:{port}/', timeout=10).read().decode())"


def build(folder: Path, database: Database, private: tuple[str, ...]) -> Kernel:
    kernel = asdict(KernelSettings(egress_private=private)) | {
        "workspace_root": str(folder / "workspaces"),
        "audit_url": f"sqlite:///{folder / 'audit.db'}",
        "audit_key_file": str(folder / "audit.key"),
        "token_keys": str(folder / "token-keys"),
        "executions": str(folder / "executions"),
        "trust_domain": "test.example",
    }
    config = {"installation": f"in{folder.name[-8:]}", "data_dir": str(folder), "kernel": kernel}
    return build_kernel(config, database, SystemClock(), {})


def done(kernel: Kernel, token: str, request: Request) -> ActionResult:
    """Asked, answered with yes if a person has to, and done."""
    result = kernel.face.actions.perform(token, request)
    if result.outcome is Outcome.WAITING and result.approval_id is not None:
        kernel.face.approvals.approve(result.approval_id, sign("berta"))
        result = kernel.face.actions.perform(token, request)
    return result


def test_a_granted_origin_that_the_configuration_calls_private_is_reached_and_charged() -> None:
    need_bubblewrap()
    folder = Path(tempfile.mkdtemp(prefix="cohort-composed-"))
    folder.chmod(0o711)
    database = open_database(f"sqlite:///{folder / 'cohort.db'}")
    try:
        with serving(answering(REPLY)) as server:
            database.migrate()
            kernel = build(folder, database, (f"localhost:{server.port}",))
            kernel.start()
            try:
                reaches(kernel, server.port)
            finally:
                kernel.stop()
            assert len(server.received) == 2
    finally:
        database.close()
        shutil.rmtree(folder, ignore_errors=True)


def reaches(kernel: Kernel, port: int) -> None:
    origin = f"http://localhost:{port}"
    scopes = ("system.execute", "network.http")
    kernel.face.agents.register(NewAgent("fetcher", scopes, Autonomy.AGGRESSIVE, egress=(origin,)), "anna")
    token = kernel.face.agents.mint("fetcher", None, "anna").token
    ran = done(kernel, token, Request("python.run", {"code": FETCH.format(port=port), "network": True}))
    assert (ran.outcome, ran.result["stdout"]) == (Outcome.DONE, "hello\n"), ran
    asked = done(kernel, token, Request("http.request", {"url": f"{origin}/"}))
    assert (asked.outcome, asked.result["body"]) == (Outcome.DONE, "hello"), asked
    outcome = kernel.face.audit.entry(ran.outcome_index or 0).body
    assert len(REPLY) < _egress_bytes(outcome) < 1000
    counts = kernel._door.reconciler.compare()
    assert (counts.bypasses, counts.containment_violations, counts.unauthorised) == (0, 0, 0), counts.findings


def _egress_bytes(body: object) -> int:
    """The figure wherever the entry keeps it."""
    if not isinstance(body, dict):
        return 0
    return int(body["egress_bytes"]) if "egress_bytes" in body else max((_egress_bytes(value) for value in body.values()), default=0)


def test_a_private_host_that_is_no_host_is_refused_at_the_start(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'cohort.db'}")
    database.migrate()
    with pytest.raises(CohortError) as caught:
        build(tmp_path, database, ("10.0.0.0/8:443",))
    database.close()
    assert caught.value.code == "FIELD_INVALID"
