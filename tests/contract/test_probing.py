"""What compose and `cohort doctor` find out about this machine, by attack."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.compose.probing import choose_by_attack, probe_here, probe_place
from cohort.kernel.model import Level
from cohort.kernel.sandbox.boxes import Parts
from cohort.kernel.sandbox.probe_machine import look
from cohort.kernel.sandbox.spawner import Spawn, Spawner
from cohort.kernel.workspaces.backend_image import available
from support_command import Command
from support_sandbox import need_bubblewrap


def unobserved(spawn: Spawn) -> None:
    del spawn


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can pass through, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="cohort-containment-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_this_machine_shows_level_3_or_4_and_nothing_is_left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_bubblewrap()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    found = probe_here()
    hard = os.geteuid() == 0 and available(str(folder / "i"), str(folder / "m")) is None and not look().groups
    assert found.level is (Level.FULL if hard else Level.NAMESPACES)
    assert found.backend == "bubblewrap"
    assert not [row for row in found.rows if row.stopped is False]
    assert [path.name for path in folder.iterdir() if path.name.startswith("cohort-")] == []


def test_without_bubblewrap_less_is_shown_and_said(folder: Path) -> None:
    spawner = Spawner()
    parts = Parts(spawner, SystemClock(), unobserved, binary=str(folder / "bwrap"))
    try:
        with probe_place(folder) as place:
            choice, found = choose_by_attack(parts, place, folder, SystemClock(), os.urandom)
    finally:
        spawner.close()
    assert found.backend == choice.sandbox.name in ("confined", "limits")
    assert found.level == choice.sandbox.level <= Level.FILES
    assert any("bwrap is not there" in one.what for one in choice.obstacles)


def test_where_nothing_can_be_tried_the_level_is_0_with_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no folder for temporary files, so no workspace can be made for the probe."""
    monkeypatch.setattr("tempfile.tempdir", str(folder / "missing"))
    found = probe_here()
    assert (found.level, found.backend) == (Level.NONE, "none")
    assert "no folder to work in" in found.soft[0]
    assert found.fixes


@pytest.fixture
def cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, {"PATH": os.environ["PATH"]}, capsys)


def test_doctor_has_a_section_for_containment(cohort: Command) -> None:
    ran = cohort("doctor", "--json")
    assert ran.json["containment"]["level"] in [int(level) for level in Level]
    assert ran.json["containment"]["kernel"]
    assert {row["name"] for row in ran.json["containment"]["rows"]} >= {"home-secret", "mount"}
    assert "containment" in {check["name"] for check in ran.json["checks"]}
