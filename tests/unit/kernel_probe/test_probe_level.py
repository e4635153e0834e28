"""From what was stopped to a level, and from a machine to what would raise it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.kernel.model import Level
from cohort.kernel.sandbox.attacks import ATTACKS
from cohort.kernel.sandbox.probe import PROBED
from cohort.kernel.sandbox.probe_fixes import APPARMOR_PATH, fixes_for
from cohort.kernel.sandbox.probe_level import Shown, level_of, soft_limits
from cohort.kernel.sandbox.probe_machine import Machine, look

ALL_STOPPED = Shown(PROBED, {attack.name: True for attack in PROBED}, frozenset(), hard_quota=True, cgroups=True)
GOOD = Machine("linux", True, "/usr/bin/bwrap", "/usr/bin/python3", 96365, None, None, False, False, 7, "", False)


def but(name: str, stopped: bool | None) -> Shown:
    return replace(ALL_STOPPED, stopped={**ALL_STOPPED.stopped, name: stopped})


def test_everything_stopped_is_what_the_backend_claims_and_never_more() -> None:
    assert level_of(ALL_STOPPED, Level.MACHINE) is Level.FULL
    assert level_of(ALL_STOPPED, Level.NAMESPACES) is Level.NAMESPACES
    assert level_of(ALL_STOPPED, Level.NONE) is Level.NONE


def test_full_isolation_wants_a_hard_quota_and_control_groups() -> None:
    assert level_of(replace(ALL_STOPPED, hard_quota=False), Level.FULL) is Level.NAMESPACES
    assert level_of(replace(ALL_STOPPED, cgroups=False), Level.FULL) is Level.NAMESPACES
    assert soft_limits(ALL_STOPPED) == ()
    assert [text.partition(":")[0] for text in soft_limits(replace(ALL_STOPPED, hard_quota=False, cgroups=False))] == ["memory", "disk"]


@pytest.mark.parametrize(
    ("name", "level"),
    [("memory-bomb", Level.NAMESPACES), ("process-listing", Level.FILES), ("home-secret", Level.LIMITS), ("tcp-loopback", Level.LIMITS)],
)
def test_one_attack_that_gets_through_costs_every_level_that_claims_it(name: str, level: Level) -> None:
    assert level_of(but(name, False), Level.FULL) is level
    assert level_of(but(name, None), Level.FULL) is level


def test_what_could_not_be_tried_by_this_user_costs_nothing() -> None:
    shown = but("shadow-file", None)
    assert level_of(shown, Level.FULL) is Level.LIMITS
    assert level_of(replace(shown, impossible=frozenset({"shadow-file"})), Level.FULL) is Level.FULL


def test_no_evidence_is_no_level() -> None:
    assert level_of(replace(ALL_STOPPED, stopped={attack.name: None for attack in PROBED}), Level.FULL) is Level.NONE
    assert level_of(replace(ALL_STOPPED, stopped={}), Level.FULL) is Level.NONE


@given(
    st.dictionaries(st.sampled_from([attack.name for attack in PROBED]), st.sampled_from([True, False, None])), st.sampled_from(list(Level))
)
def test_no_level_is_given_whose_claim_was_seen_to_fail(stopped: dict[str, bool | None], most: Level) -> None:
    level = level_of(replace(ALL_STOPPED, stopped=stopped), most)
    assert level <= most
    assert all(stopped.get(attack.name) is True for attack in PROBED if level in attack.stopped_at)


def test_the_probe_tries_a_part_of_the_list() -> None:
    assert set(PROBED) <= set(ATTACKS)
    assert 10 <= len(PROBED) <= 20


@pytest.mark.parametrize(
    ("machine", "level", "fix"),
    [
        (replace(GOOD, bubblewrap=None), Level.FILES, "apt-get install bubblewrap"),
        (replace(GOOD, namespaces_unprivileged=0), Level.FILES, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (replace(GOOD, namespaces_max=0), Level.FILES, "sysctl -w user.max_user_namespaces=15000"),
        (replace(GOOD, apparmor_restricts=1), Level.FILES, f"apparmor_parser -r {APPARMOR_PATH}"),
        (replace(GOOD, container=True), Level.FILES, "docker run --security-opt seccomp=unconfined"),
        (replace(GOOD, landlock=0, bubblewrap=None), Level.LIMITS, "lsm=landlock"),
        (replace(GOOD, python=None), Level.NONE, "apt-get install python3"),
        (replace(GOOD, root=False, groups="not ours", systemd=True), Level.NAMESPACES, "systemd-run --user --scope -p Delegate=yes"),
        (replace(GOOD, root=False), Level.NAMESPACES, "run Cohort as root"),
        (replace(GOOD, system="darwin"), Level.LIMITS, "on Linux"),
    ],
)
def test_a_missed_level_has_a_command(machine: Machine, level: Level, fix: str) -> None:
    assert any(fix in one for one in fixes_for(machine, level))


def test_nothing_is_to_be_fixed_at_the_highest_level() -> None:
    assert fixes_for(GOOD, Level.FULL) == ()
    assert fixes_for(replace(GOOD, system="darwin"), Level.FILES) == ()


def test_an_apparmor_profile_that_is_there_is_not_asked_for_again() -> None:
    assert not any("apparmor_parser" in one for one in fixes_for(replace(GOOD, apparmor_restricts=1, apparmor_profile=True), Level.FILES))


def test_settings_are_read_from_the_machine(tmp_path: Path) -> None:
    kernel = tmp_path / "proc/sys/kernel"
    kernel.mkdir(parents=True)
    (kernel / "apparmor_restrict_unprivileged_userns").write_text("1\n")
    (kernel / "unprivileged_userns_clone").write_text("nonsense\n")
    found = look(tmp_path)
    assert (found.apparmor_restricts, found.namespaces_unprivileged, found.namespaces_max) == (1, None, None)
    assert (found.python, found.container, found.systemd) == (None, False, False)
