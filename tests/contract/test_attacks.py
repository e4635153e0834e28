"""The list of attacks over every backend that runs here, started by root and by an ordinary user, with the control beside it.

A row counts only if the attack succeeds without a sandbox. The claims are held both ways: what a level claims is stopped, and what it
does not claim succeeds, so that the tables say neither too much nor too little.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from cohort.kernel.model import Level
from cohort.kernel.sandbox import landlock
from cohort.kernel.sandbox.attacks import ATTACKS, LISTED, Attack
from cohort.kernel.sandbox.probe_machine import look
from cohort.kernel.workspaces.backend_image import available
from support_attacks import PRIVATE_UID, STAGE_BYTES, in_sandbox, stage, without_sandbox
from support_ordinary import UID
from support_sandbox import need_bubblewrap

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make what the attacks want: files of others, mounts, a set-uid program"
)

LANDLOCK_WITH_SIGNALS = 6
VOID = {
    "x32": "this kernel has no x32",
    "int-0x80": "this kernel runs no 32-bit programs",
    "release-agent": "no control groups are mounted here",
}
"""Rows whose control may fail for a reason that lies in the machine; any other control that fails is a failure of the test."""


@dataclass(frozen=True)
class Case:
    """A backend and who starts it. `level`: what it claims with this workspace, whose quota is hard or not; `image`: as in production."""

    backend: str
    level: Level
    ordinary: bool = False
    hard: bool = False
    image: bool = False

    @property
    def name(self) -> str:
        return f"{self.backend}{'-image' if self.image else ''}-{'ordinary' if self.ordinary else 'root'}"

    @property
    def uid(self) -> int:
        return UID if self.ordinary else PRIVATE_UID


CASES = (
    Case("bubblewrap-cold", Level.NAMESPACES),
    Case("bubblewrap-warm", Level.NAMESPACES),
    Case("bubblewrap-cold", Level.NAMESPACES, ordinary=True),
    Case("bubblewrap-warm", Level.NAMESPACES, ordinary=True),
    Case("bubblewrap-cold-full", Level.FULL, hard=True),
    Case("bubblewrap-warm-full", Level.FULL, hard=True),
    Case("bubblewrap-warm-full", Level.FULL, hard=True, image=True),
    Case("bubblewrap-cold-egress", Level.NAMESPACES),
    Case("bubblewrap-cold-egress", Level.NAMESPACES, ordinary=True),
    Case("confined", Level.FILES),
    Case("confined", Level.FILES, ordinary=True),
    Case("limits", Level.LIMITS),
    Case("limits", Level.LIMITS, ordinary=True),
)


def by_chance(case: Case, attack: Attack) -> bool:
    """Whether something else than the sandbox stops it: at level 1 the agent is still no root, and may be another user than Cohort's."""
    return case.level is Level.LIMITS and (attack.as_root or attack.name in ("environ", "x32"))


@pytest.mark.parametrize("uid", [PRIVATE_UID, UID], ids=["private", "ordinary"])
def test_every_attack_succeeds_without_a_sandbox(uid: int) -> None:
    with stage(uid, hard=False) as made:
        found = without_sandbox(made, ATTACKS)
    assert [attack.name for attack in ATTACKS if found[attack.name] is not True and attack.name not in VOID] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_level_stops_what_it_claims_and_claims_what_it_stops(case: Case, tmp_path: Path) -> None:
    if case.level >= Level.NAMESPACES:
        need_bubblewrap()
    if case.level is Level.FILES and landlock.abi() < LANDLOCK_WITH_SIGNALS:
        pytest.skip("this kernel's Landlock does not know signals")
    if case.level is Level.FULL and (reason := look().groups):
        pytest.skip(f"no control groups to use here: {reason}")
    if case.image and (missing := available(str(tmp_path / "images"), str(tmp_path / "mounts"))) is not None:
        pytest.skip(missing)
    with stage(case.uid, hard=case.hard, image=case.image) as made:
        found = in_sandbox(made, case.backend, ATTACKS, ordinary=case.ordinary)
    assert [attack.name for attack in ATTACKS if case.level in attack.stopped_at and found[attack.name] is not False] == []
    gaps = [attack for attack in ATTACKS if case.level not in attack.stopped_at | attack.soft_at and not by_chance(case, attack)]
    assert [attack.name for attack in gaps if found[attack.name] is not True] == []


def test_there_are_42_rows_and_full_isolation_claims_them_all() -> None:
    assert len(LISTED) == 42
    assert all(Level.FULL in attack.stopped_at for attack in ATTACKS)
    claims = {level: sum(level in attack.stopped_at for attack in LISTED) for level in Level}
    assert (claims[Level.LIMITS], claims[Level.FILES], claims[Level.NAMESPACES], claims[Level.FULL]) == (3, 37, 39, 42)
    assert claims[Level.NONE] == 0
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_floods_are_kept_on_a_small_file_system_of_their_own() -> None:
    with stage(PRIVATE_UID, hard=True) as made:
        for path in made.mounts:
            about = os.statvfs(path)
            assert about.f_blocks * about.f_frsize <= STAGE_BYTES
            assert path.stat().st_dev != made.root.stat().st_dev
        mounts = list(made.mounts)
    assert not any(os.path.ismount(path) for path in mounts)
