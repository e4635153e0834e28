"""What `doctor` says of containment, from what the probe has shown."""

from __future__ import annotations

from dataclasses import replace

from cohort.kernel.face import Containment, ProbeRow
from cohort.kernel.model import Level
from cohort.ops.doctor import Grade, containment

STOPPED = ProbeRow("home-secret", True, "not in the mount namespace")
FULL = Containment("bubblewrap", Level.FULL, 1, (STOPPED, ProbeRow("x", None, "cannot be tried here")), (), (), "Linux 6.18", 7)
SOFT = replace(FULL, level=Level.NAMESPACES, soft=("disk: counted",), fixes=("do this", "then that"))


def test_full_isolation_is_good_and_says_by_what() -> None:
    (check,) = containment(FULL, 3)
    assert check.grade is Grade.GOOD
    assert check.found == "level 4 of 4 by bubblewrap, 1 of 1 attacks stopped; Linux 6.18, Landlock ABI 7"


def test_a_level_that_is_enough_says_what_is_soft_and_how_to_raise_it() -> None:
    first, second = containment(SOFT, 3)
    assert (first.grade, first.without, first.fix) == (Grade.MISSING, "disk: counted", "do this")
    assert (second.grade, second.fix) == (Grade.MISSING, "then that")


def test_a_level_that_is_too_low_says_that_commands_are_refused() -> None:
    first, *_ = containment(replace(SOFT, level=Level.LIMITS, landlock=0), 3)
    assert first.without.startswith("commands of agents are refused (isolation_min is 3), all else works")
    assert "no Landlock" in first.found


def test_each_attack_that_got_through_is_a_line_of_its_own() -> None:
    rows = (STOPPED, ProbeRow("udp", False, "got through: send datagrams"))
    checks = containment(replace(SOFT, rows=rows), 3)
    assert checks[-1].name == "attack udp"
    assert checks[-1].found == "got through: send datagrams"


def test_a_level_without_a_command_to_raise_it_names_the_page() -> None:
    first, *_ = containment(replace(SOFT, fixes=()), 3)
    assert first.fix == "docs/how-to/fix-containment.md"
