"""Several workers choose between two models: together they keep the wanted share, and a conversation keeps what it got at any of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.gateway.adaptive.router import ADAPTIVE, AdaptiveRouter
from cohort.gateway.contract_routing import RoutingPolicy
from cohort.gateway.log import Log
from cohort.gateway.shared.face import open_shared
from cohort.gateway.shared.fingerprints import Fingerprints

TOLERANCE = 0.03
"""What docs/reference/adaptive-routing.md promises of the share over all workers, from 3,000 conversations on."""
POLICY = RoutingPolicy(
    "big", "small", strong_share=0.4, strong_share_range=(0.3, 0.5), boundary=0.45, drift_max=0.3, control_bucket_share=0.0
)


def asked(words: int, turns: int) -> dict[str, object]:
    users = [{"role": "user", "content": "word " * (words if number == turns - 1 else 1)} for number in range(turns)]
    return {"messages": users}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_wanted_share_holds_over_all_workers_and_no_conversation_goes_down(tmp_path: Path, workers: int) -> None:
    clock, draw = ManualClock(), random.Random(11)
    routers = [AdaptiveRouter(seen=open_shared(tmp_path, clock, Log("gw", clock)).conversations) for _ in range(workers)]
    got: dict[str, list[bool]] = {}
    going: list[tuple[str, int, int]] = []
    for number in range(4000):
        going.append((f"{number:032x}", draw.randint(1, 400), 1))
        for unit, words, turns in [draw.choice(going) for _ in range(2)] + [going[-1]]:
            choice = draw.choice(routers).choose("s", "rel", POLICY, unit, asked(words, turns), frozenset())
            assert choice is not None
            got.setdefault(unit, []).append(choice.strong)
        going = going[-200:]
    assert all(models == sorted(models) for models in got.values()), "a conversation only moves up"
    newest = list(got.values())[-3000:]
    assert abs(sum(models[0] for models in newest) / len(newest) - POLICY.strong_share) <= TOLERANCE
    states = [router.state("s", "rel", POLICY, frozenset()) for router in routers]
    assert sum(state.conversations for state in states) == len(got), "each is counted once"
    for state in states:
        share = state.shares[ADAPTIVE]
        assert share is not None
        assert abs(share - POLICY.strong_share) < 0.1


def test_a_flag_once_set_by_any_worker_stays(tmp_path: Path, clock: ManualClock) -> None:
    one, other = (Fingerprints(tmp_path / "seen", 64, clock) for _ in range(2))
    assert one.note(False, "s", "u") is None
    assert other.note(False, "s", "u") is False
    assert other.note(True, "s", "u") is False
    assert [each.note(flag, "s", "u") for each in (one, other) for flag in (False, True)] == [True] * 4
    assert one.add("s", "u")
    assert other.note(False, "s", "u") is True
    assert other.note(False, "s", "v") is None
    assert one.holds("s", "v")
    one.close()
    other.close()
