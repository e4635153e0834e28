"""Whole after anything: killed, out of disk, started twice, its files damaged, control away."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.gateway.contract import Batch, Call, Cursor, Result
from support_gateway import SRC, GatewayProcess, release, split, table, write_config
from support_upstream import Upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[list[GatewayProcess]]:
    made: list[GatewayProcess] = []
    yield made
    for process in made:
        process.close()


def half(upstream: Upstream, version: int = 1) -> dict[str, object]:
    """A table with one service whose units are shared half and half."""
    releases = [release("well", upstream.base_url), release("tools", upstream.base_url), release("stall", upstream.base_url)]
    return table(version, releases, {"half": {"stable": "rel_well", "split": split("rel_tools", share=0.5)}, "stall": "rel_stall"})


def run(config: Path) -> subprocess.CompletedProcess[str]:
    """A gateway that is expected to give up at once."""
    command = [sys.executable, "-m", "cohort.gateway", "--config", str(config)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(SRC)}, capture_output=True, text=True, timeout=20, check=False)


def key_of(record: Call) -> tuple[int, int, str, str]:
    return (record.epoch, record.seq, record.kind, record.arm.value)


def test_every_call_that_ended_before_a_kill_is_in_the_spool_exactly_once(
    gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path, limits={"spool_segment_bytes": 8192})
    gateways.append(gateway)
    gateway.push(half(upstream))
    answered: list[int] = []
    enough = threading.Event()

    def ask(worker: int) -> None:
        for number in range(10_000):
            try:
                status, _, _ = gateway.chat("half", headers={"X_Cohort_Unit": f"{worker}-{number}"})
            except OSError:
                return
            answered.append(status)
            if len(answered) >= 200:
                enough.set()

    workers = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    assert enough.wait(20)
    gateway.kill()
    for worker in workers:
        worker.join(20)
    gateway.start()
    records = gateway.all_records()
    calls = [r for r in records if r.kind == "call"]
    assert len(calls) >= len(answered) >= 200
    assert len({key_of(r) for r in records}) == len(records)
    assert {r.seq for r in calls} <= {r.seq for r in records if r.kind == "assigned"}
    assert [r.at_us for r in records if r.kind == "assigned"] == sorted(r.at_us for r in records if r.kind == "assigned")
    assert gateway.pull(Cursor(10**6, 0)).damaged
    assert len(list((gateway.data_dir / "spool").glob("*.log"))) > 3


def test_a_gateway_without_control_serves_from_the_table_it_had(gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    gateways.append(gateway)
    gateway.push(half(upstream, version=7))
    gateway.kill()
    gateway.start()
    assert gateway.request("GET", "/ready")[0] == 200
    assert gateway.chat("half")[0] == 200
    assert gateway.started["table_version"] == 7


def test_a_damaged_table_is_set_aside_and_named(gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    gateways.append(gateway)
    gateway.push(half(upstream))
    gateway.kill()
    path = gateway.data_dir / "routing.json"
    path.write_bytes(path.read_bytes()[:-20])
    gateway.start()
    assert gateway.request("GET", "/ready")[0] == 503
    kept = gateway.logged("table_damaged")["kept_as"]
    assert (gateway.data_dir / kept).exists()
    gateway.push(half(upstream))
    assert gateway.request("GET", "/ready")[0] == 200


def test_acknowledged_segments_are_deleted_and_reading_goes_on(gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, limits={"spool_segment_bytes": 2048})
    gateways.append(gateway)
    gateway.push(half(upstream))
    for number in range(20):
        gateway.chat("half", headers={"X_Cohort_Unit": f"u{number}"})
    gateway.records(20)
    batch = gateway.pull(records_max=15)
    assert len(batch.records) == 15
    assert batch.behind > 0
    assert gateway.acknowledge(batch.next) == 200
    assert min(int(p.stem) for p in (gateway.data_dir / "spool").glob("*.log")) == batch.next.segment
    rest = gateway.pull(batch.next)
    assert not {key_of(r) for r in batch.records} & {key_of(r) for r in rest.records}
    assert len(batch.records) + len(rest.records) == 40
    assert gateway.acknowledge(Cursor(99, 0)) == 422


def test_a_waiting_reader_is_answered_as_soon_as_there_is_a_record(
    gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path)
    gateways.append(gateway)
    gateway.push(half(upstream))
    answers: list[int] = []
    reader = threading.Thread(target=lambda: answers.append(len(gateway.pull(wait_ms=20_000).records)))
    reader.start()
    gateway.chat("half")
    reader.join(5)
    assert answers
    assert answers[0] >= 1


def test_a_corrupt_segment_is_skipped_reported_and_kept_aside(gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    gateways.append(gateway)
    gateway.push(half(upstream))
    for number in range(5):
        gateway.chat("half", headers={"X_Cohort_Unit": f"u{number}"})
    gateway.records(5)
    gateway.kill()
    path = gateway.data_dir / "spool" / "0000000001.log"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"seq"', b'"sxq"')
    path.write_bytes(b"".join(lines) + b"deadbeef {torn")
    gateway.start()
    batch = gateway.pull()
    assert len(batch.records) == 9
    offset = sum(len(line) for line in lines[:4])
    assert batch.damaged == (f"segment 0000000001 at {offset}: {len(lines[4])} bytes damaged, set aside",)
    assert (path.parent / "0000000001.log.damaged").exists()
    assert gateway.pull(batch.next).damaged == ()


def named_as_dropped(*batches: Batch) -> int:
    """Records that were not written, by what was said of them: more than once, where the first word of it was the last line that fitted."""
    gaps = [words for batch in batches for words in batch.damaged]
    assert all("were not written" in words for words in gaps)
    return sum(int(words.partition(" records from ")[0]) for words in gaps)


def test_a_full_spool_is_said_counted_and_named_to_control_while_clients_are_served(
    gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path, limits={"spool_bytes_max": 6000, "spool_segment_bytes": 2000})
    gateways.append(gateway)
    gateway.push(half(upstream))
    for number in range(30):
        assert gateway.chat("half", headers={"X_Cohort_Unit": f"u{number}"})[0] == 200
    assert "spool_bytes_max" in json.loads(gateway.request("GET", "/ready")[2])["problems"][0]
    taken = gateway.pull()
    dropped = metric(gateway, "cohort_gateway_outcomes_dropped_total")
    assert dropped > 0
    assert gateway.acknowledge(taken.next) == 200
    assert gateway.chat("half", headers={"X_Cohort_Unit": "after"})[0] == 200
    after = gateway.pull(taken.next)
    assert named_as_dropped(taken, after) == dropped
    assert {r.kind for r in after.records} == {"assigned", "call"}
    assert json.loads(gateway.request("GET", "/ready")[2])["problems"] == []


def test_a_full_disk_stops_no_client_and_no_rollback(gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system (root)")
    try:
        gateway = GatewayProcess(tmp_path, data_dir=str(mount))
        gateways.append(gateway)
        gateway.push(half(upstream))
        fill(mount / "ballast")
        for number in range(20):
            assert gateway.chat("half", headers={"X_Cohort_Unit": f"u{number}"})[0] == 200
        assert "dropped" in json.loads(gateway.request("GET", "/ready")[2])["problems"][0]
        assert gateway.logged("outcomes_dropped")
        assert gateway.push(table(2, [release("well", upstream.base_url)], {"half": "rel_well"})).splits == {}
        assert json.loads((mount / "routing.json").read_bytes())["version"] == 2
        (mount / "ballast").unlink()
        assert gateway.chat("half", headers={"X_Cohort_Unit": "after"})[0] == 200
        gateway.records(1)
    finally:
        gateways[0].close()
        subprocess.run(["umount", str(mount)], check=True)


def test_a_limit_on_the_size_of_files_is_met_like_a_full_disk(gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    gateways.append(gateway)
    gateway.push(half(upstream))
    size = (gateway.data_dir / "spool" / "0000000001.log").stat().st_size
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size + 600, resource.RLIM_INFINITY))
    for number in range(5):
        assert gateway.chat("half", headers={"X_Cohort_Unit": f"u{number}"})[0] == 200
    assert json.loads(gateway.request("GET", "/health")[2])["problems"]
    before = gateway.pull()
    assert before.records
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert gateway.chat("half", headers={"X_Cohort_Unit": "after"})[0] == 200
    after = gateway.pull(before.next)
    assert [r.kind for r in after.records] == ["assigned", "call"]
    assert named_as_dropped(before, after) == 10 - len(before.records)


def test_a_port_in_use_is_one_clear_line(gateways: list[GatewayProcess], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(write_config(tmp_path, port=port))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"PORT_IN_USE: 127.0.0.1:{port} is in use by another process. Stop it, or set another `port`."]


def test_a_host_that_others_can_reach_is_refused_unless_exposed(gateways: list[GatewayProcess], tmp_path: Path) -> None:
    done = run(write_config(tmp_path, host="0.0.0.0"))
    assert done.returncode == 1
    assert done.stderr.startswith("BIND_REFUSED: 0.0.0.0")
    gateways.append(GatewayProcess(tmp_path, host="0.0.0.0", expose=True))
    assert gateways[0].request("GET", "/health")[0] == 200


def test_a_second_gateway_on_the_same_directory_is_refused(gateways: list[GatewayProcess], tmp_path: Path) -> None:
    gateways.append(GatewayProcess(tmp_path))
    done = run(tmp_path / "gateway.json")
    assert done.returncode == 1
    assert done.stderr.startswith("ALREADY_RUNNING: another gateway uses")


def wait_for_outcomes(gateway: GatewayProcess) -> None:
    """Control's long poll; a gateway that stops may answer it or hang up."""
    with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError):
        gateway.link("GET", "/-/outcomes?segment=1&wait_ms=30000")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_requests_in_flight_end(gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path, number: int) -> None:
    gateway = GatewayProcess(tmp_path, limits={"drain_s": 5})
    gateways.append(gateway)
    slow = release("stall", upstream.base_url, timeout_s=0.8)
    gateway.push(table(1, [slow]))
    before = len(upstream.seen)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(gateway.chat("stall")[0]))
    waiting = threading.Thread(target=wait_for_outcomes, args=(gateway,))
    idle = gateway.connect()
    asking.start()
    waiting.start()
    upstream.wait_for(before + 1)
    gateway.process.send_signal(number)
    asking.join(10)
    waiting.join(10)
    assert gateway.process.wait(10) == 0
    assert answers == [504]
    assert idle.recv(1) == b""
    assert gateway.logged("stopped")
    gateway.start()
    assert [r.result for r in gateway.all_records()] == [Result.TIMEOUT]


def test_requests_still_in_flight_when_the_drain_is_over_are_recorded_as_lost(
    gateways: list[GatewayProcess], upstream: Upstream, tmp_path: Path
) -> None:
    gateway = GatewayProcess(tmp_path, limits={"drain_s": 0.2})
    gateways.append(gateway)
    gateway.push(half(upstream))
    before = len(upstream.seen)
    body = json.dumps({"model": "stall", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    with gateway.connect() as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )
        upstream.wait_for(before + 1)
        assert gateway.terminate() == 0
    gateway.start()
    assert [r.result for r in gateway.all_records()] == [Result.LOST]


def metric(gateway: GatewayProcess, name: str) -> float:
    text = gateway.request("GET", "/metrics")[2].decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def fill(path: Path) -> None:
    """Leave not a byte free."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue


def test_a_gateway_whose_supervisor_is_gone_goes_on_serving(upstream: Upstream, gateways: list[GatewayProcess], tmp_path: Path) -> None:
    config = write_config(tmp_path, limits={"spool_bytes_max": 3000})
    command = [sys.executable, "-m", "cohort.gateway", "--config", str(config)]
    gateway = GatewayProcess.__new__(GatewayProcess)
    gateway.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SRC)}, stderr=subprocess.PIPE)
    gateways.append(gateway)
    assert gateway.process.stderr is not None
    gateway.port = int(json.loads(gateway.process.stderr.readline())["port"])
    gateway.process.stderr.close()
    gateway.push(half(upstream))
    for number in range(30):
        assert gateway.chat("half", headers={"X_Cohort_Unit": f"u{number}"})[0] == 200
    assert metric(gateway, "cohort_gateway_log_lines_lost_total") >= 2
    assert gateway.terminate() == 0
