"""The list of attacks over every backend that runs here, started by root and by an ordinary user, with the control beside it.

A row counts only if the attack succeeds without a sandbox. The claims are held both ways: what a level claims is stopped, and what it
does not claim succeeds, so that the tables say neither too much nor too little.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cohort.kernel.model import Level
from cohort.kernel.sandbox.attacks import ATTACKS, LISTED, Attack
from support_attacks import PRIVATE_UID, STAGE_BYTES, Stage, in_sandbox, stage, without_sandbox
from support_ordinary import UID
from support_sandbox import need_bubblewrap

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make what the attacks want: files of others, mounts, a set-uid program"
)

VOID = {
    "x32": "this kernel has no x32",
    "int-0x80": "this kernel runs no 32-bit programs",
    "release-agent": "no control groups are mounted here",
}
"""Rows whose control may fail for a reason that lies in the machine; any other control that fails is a failure of the test."""
SOFT = {(Level.NAMESPACES, "memory-bomb")}
"""Stopped or not, as it happens: neither is claimed."""


@dataclass(frozen=True)
class Side:
    """Who starts sandboxes. `hard`: whether the workspace's quota is."""

    name: str
    uid: int
    ordinary: bool
    hard: bool


SIDES = (Side("root", PRIVATE_UID, False, False), Side("ordinary", UID, True, False))


@dataclass(frozen=True)
class Matrix:
    """What succeeded, by row: without a sandbox, and in a sandbox by backend."""

    control: dict[str, bool | None]
    contained: dict[str, dict[str, bool | None]]


BACKENDS = {"bubblewrap": Level.NAMESPACES}


@pytest.fixture(scope="module", params=SIDES, ids=lambda side: side.name)
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    need_bubblewrap()
    side: Side = request.param
    with stage(side.uid, hard=False) as made:
        control = without_sandbox(made, ATTACKS)
        contained = {backend: in_sandbox(made, backend, ATTACKS, ordinary=side.ordinary) for backend in BACKENDS}
        yield Matrix(control, contained)


def void(matrix: Matrix, attack: Attack) -> bool:
    return matrix.control[attack.name] is not True and attack.name in VOID


def test_every_attack_succeeds_without_a_sandbox(matrix: Matrix) -> None:
    toothless = [attack.name for attack in ATTACKS if matrix.control[attack.name] is not True and attack.name not in VOID]
    assert toothless == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_level_claims_is_stopped(matrix: Matrix, backend: str) -> None:
    level, found = BACKENDS[backend], matrix.contained[backend]
    through = [attack.name for attack in ATTACKS if level in attack.stopped_at and found[attack.name] is not False]
    assert through == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_level_does_not_claim_succeeds(matrix: Matrix, backend: str) -> None:
    level, found = BACKENDS[backend], matrix.contained[backend]
    gaps = [
        attack for attack in ATTACKS if level not in attack.stopped_at and (level, attack.name) not in SOFT and not void(matrix, attack)
    ]
    assert [attack.name for attack in gaps if found[attack.name] is not True] == []


def test_there_are_42_rows_and_full_isolation_claims_them_all() -> None:
    assert len(LISTED) == 42
    assert all(Level.FULL in attack.stopped_at for attack in ATTACKS)
    assert sum(Level.NAMESPACES in attack.stopped_at for attack in LISTED) == 39
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_floods_are_kept_on_a_small_file_system_of_their_own() -> None:
    with stage(PRIVATE_UID, hard=True) as made:
        assert isinstance(made, Stage)
        for path in made.mounts:
            about = os.statvfs(path)
            assert about.f_blocks * about.f_frsize <= STAGE_BYTES
            assert path.stat().st_dev != made.root.stat().st_dev
        mounts = list(made.mounts)
    assert not any(os.path.ismount(path) for path in mounts)
