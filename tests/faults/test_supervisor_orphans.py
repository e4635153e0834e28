"""The supervisor itself dies, or is asked to go: its children outlive the first and end with the second."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.settings import DataDir, Settings
from cohort.ops import house
from cohort.ops.installation import open_folder
from cohort.ops.listening import Listening
from cohort.ops.lock import held
from cohort.ops.supervisor import Supervisor
from support_processes import alive, child_spec, environment, free_ports, kill, ready_file, said, start_house, until

NAMES = ("control", "gateway")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A data directory on which nothing is left running."""
    yield tmp_path / "data"
    house.down(DataDir(tmp_path / "data"), 10.0)


def pids(folder: Path) -> list[int]:
    return [said(ready_file(folder, name)) for name in NAMES]


def test_sigterm_ends_the_supervisor_and_all_its_children(folder: Path) -> None:
    supervisor = start_house(folder)
    children = pids(folder)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 0
    assert [alive(pid) for pid in children] == [False, False]
    assert not DataDir(folder).state.exists()
    assert not held(DataDir(folder).lock)


def test_ctrl_c_ends_them_too(folder: Path) -> None:
    supervisor = start_house(folder)
    children = pids(folder)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(20) == 0
    assert [alive(pid) for pid in children] == [False, False]


def test_children_outlive_a_killed_supervisor_and_the_next_one_takes_them_over(folder: Path) -> None:
    first = start_house(folder)
    children = pids(folder)
    kill(first.pid)
    first.wait(20)
    assert [alive(pid) for pid in children] == [True, True]
    start_house(folder)
    assert pids(folder) == children
    running = house.running(DataDir(folder))
    assert running is not None
    assert [(state.pid, state.adopted) for state in running.processes] == [(pid, True) for pid in children]


def test_an_adopted_child_that_dies_is_started_again(folder: Path) -> None:
    first = start_house(folder)
    kill(first.pid)
    first.wait(20)
    start_house(folder)
    adopted = said(ready_file(folder, "control"))
    kill(adopted)
    until(lambda: said(ready_file(folder, "control")) != adopted and alive(said(ready_file(folder, "control"))))


def test_a_supervisor_that_cannot_write_its_account_goes_on_looking_after_its_children(folder: Path) -> None:
    start_house(folder)
    DataDir(folder).state.unlink()
    DataDir(folder).state.mkdir()
    control = said(ready_file(folder, "control"))
    kill(control)
    until(lambda: said(ready_file(folder, "control")) != control and alive(said(ready_file(folder, "control"))))
    DataDir(folder).state.rmdir()
    kill(said(ready_file(folder, "control")))
    assert until(lambda: house.running(DataDir(folder)))


def test_orphans_with_another_configuration_are_ended_and_started_afresh(folder: Path) -> None:
    first = start_house(folder)
    children = pids(folder)
    kill(first.pid)
    first.wait(20)
    start_house(folder, generation=2)
    assert [alive(pid) for pid in children] == [False, False]
    assert all(alive(pid) for pid in pids(folder))


def test_an_orphan_that_the_settings_no_longer_have_is_ended_and_the_others_are_taken_over(folder: Path) -> None:
    """It would go on accepting, with the routing table that it had."""
    first = start_house(folder, names=(*NAMES, "gateway-2"))
    children, surplus = pids(folder), said(ready_file(folder, "gateway-2"))
    kill(first.pid)
    first.wait(20)
    specs = [child_spec(folder, name) for name in NAMES]
    assert [found.pid for found in house.surplus(DataDir(folder), specs)] == [surplus]
    start_house(folder)
    assert not alive(surplus)
    assert pids(folder) == children


def test_a_port_that_only_an_orphan_holds_which_the_settings_no_longer_have_is_not_taken(tmp_path: Path) -> None:
    spec = child_spec(tmp_path, "gateway-3")
    orphan = subprocess.Popen(spec.argv, env=environment(), start_new_session=True)
    gateway, control = free_ports(2)
    settings = Settings(
        tmp_path, gateway=replace(Settings(tmp_path).gateway, port=gateway), control=replace(Settings(tmp_path).control, port=control)
    )
    open_folder(settings.data)
    talk = house.Talk(lambda _: None, lambda _: None, lambda _: None)
    try:
        until(spec.ready)
        with socket.create_server(("127.0.0.1", gateway)):
            assert len(house.prepare(settings, SystemClock(), os.urandom, talk)) == 2
    finally:
        orphan.kill()
        orphan.wait()


def test_down_ends_what_a_killed_supervisor_left_behind(folder: Path) -> None:
    first = start_house(folder)
    children = pids(folder)
    kill(first.pid)
    first.wait(20)
    assert house.down(DataDir(folder), 10.0) in children
    assert [alive(pid) for pid in children] == [False, False]


def test_down_ends_a_running_supervisor_and_says_which(folder: Path) -> None:
    supervisor = start_house(folder)
    assert house.down(DataDir(folder), 20.0) == supervisor.pid
    assert supervisor.wait(20) == 0
    assert house.down(DataDir(folder), 1.0) is None


def test_a_second_supervisor_is_told_who_runs(folder: Path) -> None:
    supervisor = start_house(folder)
    with pytest.raises(CohortError) as caught:
        house.locked(DataDir(folder))
    assert caught.value.code == "ALREADY_RUNNING"
    assert caught.value.details["pid"] == supervisor.pid
    assert str(supervisor.pid) in caught.value.message


def test_a_remembered_process_id_that_now_belongs_to_another_program_is_never_signalled(folder: Path) -> None:
    """A state file from before a crash names a process; without a lock it means nothing."""
    first = start_house(folder)
    state = DataDir(folder).state.read_text()
    house.down(DataDir(folder), 20.0)
    first.wait(20)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        DataDir(folder).state.write_text(state.replace(str(first.pid), str(bystander.pid)))
        assert house.down(DataDir(folder), 1.0) is None
        assert bystander.poll() is None
    finally:
        os.kill(bystander.pid, signal.SIGKILL)
        bystander.wait()


def test_who_connects_while_orphans_with_another_configuration_are_ended_waits_and_is_not_turned_away(tmp_path: Path) -> None:
    """The orphan's socket goes with it; its successor's is there before, though nobody accepts from it yet."""
    listening, lines = Listening("127.0.0.1", free_ports(1)[0]), list[str]()
    old = child_spec(tmp_path, "gateway")
    orphan = subprocess.Popen(old.argv, env=environment(), start_new_session=True)
    until(old.ready)
    spec = replace(child_spec(tmp_path, "gateway", generation=2), listening=listening)
    try:
        house.take_over(Supervisor([spec], lines.append), [spec], lines.append, DataDir(tmp_path))
        assert orphan.wait(20) is not None
        assert "another configuration" in lines[0]
        with socket.create_connection(("127.0.0.1", listening.port), 5):
            pass
    finally:
        orphan.kill()
        listening.close()


def test_of_two_processes_of_one_worker_the_one_that_has_the_place_is_adopted(tmp_path: Path) -> None:
    """The other was told to stop, and still ends what it had begun."""
    place = tmp_path / "lock"
    spec = replace(child_spec(tmp_path, "gateway"), place=place)
    both = [subprocess.Popen(spec.argv, env=environment(), start_new_session=True) for _ in range(2)]
    try:
        until(spec.ready)
        for child in both:
            place.write_text(str(child.pid))
            until(lambda: house.orphans([spec]))
            assert house.orphans([spec])["gateway"].pid == child.pid
        place.write_bytes(b"\xff")
        assert house.orphans([spec])["gateway"].pid in {child.pid for child in both}
    finally:
        for child in both:
            child.kill()
            child.wait()
