"""The way out as control composes it: a person grants an origin, the configuration calls it private, a command and a request reach it, all is charged."""

from __future__ import annotations

import shutil
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.settings_kernel import KernelSettings
from cohort.compose.kernel import Kernel, build_kernel
from cohort.kernel.face import AuditQuery, NewAgent, Request
from cohort.kernel.model import ActionResult, Autonomy, Limits, Outcome
from cohort.storage.database import Database, open_database
from support_approvals import sign
from support_egress import Served, answering, serving
from support_processes import until
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


SINK = (
    "import os, socket, time\n"
    "print('up', flush=True)\n"
    "while not os.path.exists('go'): time.sleep(0.02)\n"
    "made = socket.create_connection(('127.0.0.1', 3128))\n"
    "made.sendall(b'POST http://localhost:{port}/ HTTP/1.1\\r\\nHost: localhost:{port}\\r\\nContent-Length: 100000000\\r\\n\\r\\n')\n"
    "sent = 0\n"
    "try:\n"
    "    while True: sent += made.send(b'x' * 65536)\n"
    "except OSError: print('cut', flush=True)\n"
    "time.sleep(60)"
)
MOST = 700_000


def swallowing(connection: socket.socket, served: Served) -> None:
    while data := connection.recv(65536):
        served.received.append(data)


def test_a_long_running_process_is_cut_when_the_days_bytes_end_and_that_is_recorded_once() -> None:
    need_bubblewrap()
    folder = Path(tempfile.mkdtemp(prefix="cohort-composed-"))
    folder.chmod(0o711)
    database = open_database(f"sqlite:///{folder / 'cohort.db'}")
    try:
        with serving(swallowing) as server:
            database.migrate()
            kernel = build(folder, database, (f"localhost:{server.port}",))
            kernel.start()
            try:
                is_cut(kernel, server)
            finally:
                kernel.stop()
    finally:
        database.close()
        shutil.rmtree(folder, ignore_errors=True)


def is_cut(kernel: Kernel, server: Served) -> None:
    origin, limits = f"http://localhost:{server.port}", Limits(egress_bytes_per_day=MOST)
    agent = kernel.face.agents.register(
        NewAgent("talker", ("system.execute", "system.read"), Autonomy.AGGRESSIVE, limits, (origin,)), "anna"
    ).agent
    token = kernel.face.agents.mint("talker", None, "anna").token
    request = Request("process.start", {"argv": ["python3", "-c", SINK.format(port=server.port)], "network": True})
    first, second = done(kernel, token, request), done(kernel, token, request)
    (Path(kernel.face.workspaces.show("talker").root) / "go").touch()
    for started in (first, second):
        asked = Request("process.output", {"process": started.result["id"]})
        until(lambda asked=asked: kernel.face.actions.perform(token, asked).result["stdout"] == "up\ncut\n")
    assert MOST - 200_000 < sum(map(len, server.received)) <= MOST, "both together, while they still run"
    assert kernel._door.quotas.used_today(agent.id)["egress_bytes"] == MOST
    third = done(kernel, token, request)
    assert (third.outcome, third.code) == (Outcome.REFUSED, "QUOTA_EXCEEDED")
    cuts = [entry.body for entry in kernel.face.audit.search(AuditQuery(kind="quota")) if entry.body["body"].get("event") == "egress"]
    assert sorted(cut["action"] for cut in cuts) == sorted([first.action_id, second.action_id])
    assert {cut["body"]["target"] for cut in cuts} == {f"localhost:{server.port}"}


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
