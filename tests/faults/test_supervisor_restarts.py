"""Children that die, hang or never start: the supervisor brings them back, one by one, or says why it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from cohort.base.errors import CohortError
from cohort.ops.supervisor import Phase, ProcessSpec, Supervisor
from support_processes import alive, child_spec, environment, kill, ready_file, said, until


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Supervisor]]:
    """Supervisors that are stopped when the test ends. Children find the module they run by PYTHONPATH."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    supervisors: list[Supervisor] = []
    yield supervisors
    for supervisor in supervisors:
        supervisor.stop()


def look_after(started: list[Supervisor], *specs: ProcessSpec, lines: list[str] | None = None) -> Supervisor:
    supervisor = Supervisor(specs, (lines if lines is not None else []).append)
    started.append(supervisor)
    return supervisor


def patiently(timeout_s: float) -> bool:
    """Waits as told; nothing ever asks to stop."""
    return Event().wait(timeout_s)


def step_until_ready(supervisor: Supervisor) -> None:
    until(lambda: supervisor.step() or supervisor.ready)


def test_a_child_killed_with_sigkill_is_started_again_and_its_sibling_is_left_alone(tmp_path: Path, started: list[Supervisor]) -> None:
    supervisor = look_after(started, child_spec(tmp_path, "control"), child_spec(tmp_path, "gateway"))
    step_until_ready(supervisor)
    control, gateway = (state.pid for state in supervisor.states())
    assert control
    assert gateway
    kill(control)
    until(lambda: supervisor.step() or supervisor.states()[0].deaths)  # a dying process has no command line before it can be waited for
    step_until_ready(supervisor)
    after = supervisor.states()
    assert after[0].pid not in (None, control)
    assert (after[0].deaths, after[1].deaths) == (1, 0)
    assert after[1].pid == gateway


def test_a_child_that_ends_twice_at_the_start_fails_it_with_the_end_of_its_log(tmp_path: Path, started: list[Supervisor]) -> None:
    supervisor = look_after(started, child_spec(tmp_path, "control", exit=7), child_spec(tmp_path, "gateway"))
    with pytest.raises(CohortError) as caught:
        supervisor.wait_ready(patiently)
    assert caught.value.code == "PROCESS_FAILED"
    assert "control ended 2 times in a row" in caught.value.message
    assert "the database is away" in caught.value.message
    assert caught.value.details["log"] == str(tmp_path / "logs" / "control.log")


def test_a_child_that_is_not_ready_in_time_fails_the_start(tmp_path: Path, started: list[Supervisor]) -> None:
    spec = child_spec(tmp_path, "control")
    supervisor = look_after(started, ProcessSpec(spec.name, spec.argv, spec.log, lambda: False))
    with pytest.raises(CohortError) as caught:
        supervisor.wait_ready(patiently, within_s=0.1)
    assert "was not ready within 0.1 s" in caught.value.message


def test_after_the_start_a_child_that_is_given_up_leaves_the_others_running(tmp_path: Path, started: list[Supervisor]) -> None:
    lines: list[str] = []
    control = child_spec(tmp_path, "control")
    supervisor = look_after(started, control, child_spec(tmp_path, "gateway"), lines=lines)
    assert supervisor.wait_ready(patiently)
    gateway = supervisor.states()[1].pid
    child_spec(tmp_path, "control", exit=7)  # from now on it fails at start
    kill(said(ready_file(tmp_path, "control")))
    until(lambda: supervisor.step() or supervisor.states()[0].phase is Phase.FAILED)
    assert [state.pid for state in supervisor.states()] == [None, gateway]
    assert alive(gateway or 0)
    assert any("trying once every 60 s" in line and "the database is away" in line for line in lines)


def test_a_child_that_ignores_sigterm_is_killed_within_its_bound(tmp_path: Path, started: list[Supervisor]) -> None:
    lines: list[str] = []
    supervisor = look_after(started, child_spec(tmp_path, "gateway", deaf=True, stop_s=0.2), lines=lines)
    step_until_ready(supervisor)
    pid = supervisor.states()[0].pid or 0
    supervisor.stop()
    assert not alive(pid)
    assert supervisor.states()[0].phase is Phase.STOPPED
    assert "did not stop within 0.2 s and was killed" in lines[-1]


def test_a_stop_while_starting_is_not_a_failure(tmp_path: Path, started: list[Supervisor]) -> None:
    spec = child_spec(tmp_path, "control")
    supervisor = look_after(started, ProcessSpec(spec.name, spec.argv, spec.log, lambda: False))
    assert supervisor.wait_ready(lambda _: True) is False


def test_a_program_that_is_not_there_is_a_failure_of_the_start_and_not_of_the_supervisor(tmp_path: Path, started: list[Supervisor]) -> None:
    spec = child_spec(tmp_path, "control")
    lines: list[str] = []
    supervisor = look_after(started, ProcessSpec(spec.name, ("/no/such/program",), spec.log, lambda: True), lines=lines)
    with pytest.raises(CohortError) as caught:
        supervisor.wait_ready(patiently)
    assert caught.value.code == "PROCESS_FAILED"
    assert "could not be started" in lines[0]
