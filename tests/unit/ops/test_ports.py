"""Ports, locks, logs and command lines, with real sockets, files and processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.ops.lock import DirectoryLock, held
from cohort.ops.logs import cap_log, last_lines
from cohort.ops.ports import answers, check_free, fetch
from cohort.ops.processes import command_line, own_processes
from support_processes import until


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_names_the_setting_the_variable_and_the_program(listening: int) -> None:
    with pytest.raises(CohortError) as caught:
        check_free("127.0.0.1", listening, "gateway.port")
    error = caught.value
    assert (error.code, error.field) == ("PORT_IN_USE", "gateway.port")
    assert str(listening) in error.message
    assert "COHORT_GATEWAY_PORT" in error.hint
    if sys.platform == "linux":
        assert f"process {os.getpid()}" in error.message


def test_a_free_port_is_free(listening: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_free("127.0.0.1", port, "gateway.port")


def test_an_address_of_another_machine_is_refused_with_its_setting() -> None:
    with pytest.raises(CohortError) as caught:
        check_free("192.0.2.1", 8700, "control.port")
    assert (caught.value.code, caught.value.field) == ("BIND_REFUSED", "control.port")


def test_a_port_that_listens_and_says_nothing_does_not_answer(listening: int) -> None:
    assert answers("127.0.0.1", listening, "/ready", timeout_s=0.1) is False
    assert fetch("127.0.0.1", listening, "/ready", timeout_s=0.1) == (None, b"")


def test_a_lock_is_held_once_and_ends_with_its_release(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert held(path) is False
    first, second = DirectoryLock(path), DirectoryLock(path)
    assert first.acquire() is True
    assert second.acquire() is False
    assert held(path) is True
    first.release()
    assert held(path) is False


def test_a_lock_does_not_pass_to_children(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = DirectoryLock(path)
    assert lock.acquire()
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        assert held(path) is False
    finally:
        child.kill()
        child.wait()


def test_a_log_over_its_size_moves_aside_and_its_writer_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert cap_log(path, bytes_max=100) is False
        writer.write(b"b")
        assert cap_log(path, bytes_max=100) is True
        writer.write(b"c\n")
    assert path.read_bytes() == b"c\n"
    assert (tmp_path / "x.log.1").read_bytes() == b"a" * 100 + b"b"
    assert cap_log(tmp_path / "none.log") is False


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_on_a_full_disk_an_overlong_log_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"a" * 101)
    (tmp_path / "x.log.1").symlink_to("/dev/full")
    assert cap_log(path, bytes_max=100) is True
    assert path.read_bytes() == b""


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert last_lines(path, 2) == ["line 4998", "line 4999"]
    since = path.stat().st_size
    path.open("a").write("of this start\n")
    assert last_lines(path, 2, since_byte=since) == ["of this start"]
    assert last_lines(path, 2, since_byte=since + 1000) == []
    assert last_lines(tmp_path / "none.log") == []


def test_a_process_is_known_by_its_command_line_until_it_ends() -> None:
    argv = ("sleep", "61.5")
    child = subprocess.Popen(argv)
    try:
        until(lambda: command_line(child.pid) == argv)
        assert child.pid in [found.pid for found in own_processes() if found.argv == argv]
    finally:
        child.kill()
    until(lambda: command_line(child.pid) is None)  # a zombie has ended, though nobody has waited for it yet
    child.wait()
