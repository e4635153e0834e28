"""Who gets which release."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cohort.gateway.assignment import arm_of, is_shadowed, raw_unit, salts
from cohort.gateway.contract import Arm, Split, pseudonym

SRC = Path(__file__).parents[3] / "src"
UNITS = 100_000
KEY = b"k" * 32


def of(share: float = 0.0, shadow_share: float = 0.0, salt: str = "5a17") -> Split:
    return Split("ro_1", salt, 1, "rel_b", share, shadow_share)


def test_the_share_is_met_within_one_point_over_100_000_units() -> None:
    units = [pseudonym(KEY, f"user-{n}") for n in range(UNITS)]
    for share in (0.05, 0.25, 0.5):
        split = of(share)
        salt = salts(split)
        candidates = sum(arm_of(split, salt, unit) is Arm.CANDIDATE for unit in units)
        assert abs(candidates / UNITS - share) < 0.01


def test_another_process_gives_the_same_answer() -> None:
    code = (
        "from cohort.gateway.assignment import arm_of, salts\n"
        "from cohort.gateway.contract import Split, pseudonym\n"
        "split = Split('ro_1', '5a17', 1, 'rel_b', 0.25)\n"
        "print(''.join(arm_of(split, salts(split), pseudonym(b'k' * 32, f'user-{n}')).value[0] for n in range(2000)))"
    )
    other = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True)
    split = of(0.25)
    here = "".join(arm_of(split, salts(split), pseudonym(KEY, f"user-{n}")).value[0] for n in range(2000))
    assert other.stdout.strip() == here
    assert 400 < here.count("c") < 600


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_units(unit: str, one: float, other: float) -> None:
    small, large = of(min(one, other)), of(max(one, other))
    if arm_of(small, salts(small), unit) is Arm.CANDIDATE:
        assert arm_of(large, salts(large), unit) is Arm.CANDIDATE


@given(st.text(min_size=1))
def test_no_share_is_nobody_and_the_whole_share_is_everybody(unit: str) -> None:
    assert arm_of(of(0.0), salts(of()), unit) is Arm.STABLE
    assert arm_of(of(1.0), salts(of()), unit) is Arm.CANDIDATE
    assert not is_shadowed(of(), salts(of()), unit)
    assert is_shadowed(of(shadow_share=1.0), salts(of()), unit)


def test_shadowed_units_are_chosen_independently_of_the_arms() -> None:
    split = of(0.5, 0.5)
    salt = salts(split)
    units = [f"u{n}" for n in range(10_000)]
    both = sum(arm_of(split, salt, unit) is Arm.CANDIDATE and is_shadowed(split, salt, unit) for unit in units)
    assert abs(both / 10_000 - 0.25) < 0.02


def test_another_salt_draws_other_units() -> None:
    one, other = of(0.5, salt="aa"), of(0.5, salt="bb")
    same = sum(arm_of(one, salts(one), f"u{n}") is arm_of(other, salts(other), f"u{n}") for n in range(10_000))
    assert abs(same / 10_000 - 0.5) < 0.02


def test_the_header_comes_before_every_field() -> None:
    assert raw_unit(b"h", {"metadata": {"conversation_id": "m"}}) == "h"
    assert raw_unit(None, {"metadata": {"conversation_id": 7}, "conversation": 8, "user": ""}) is None
    assert raw_unit(b"", {"metadata": "x", "conversation": {"id": None}, "user": "u"}) == "u"
