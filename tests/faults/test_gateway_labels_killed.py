"""What comparisons taught is whole after every kill -9, whenever it comes."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from cohort.gateway.cache.semantic.labels import PLACE
from support_gateway import GatewayProcess, release, table
from support_upstream import Upstream

KILLS = 4


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


def state(gateway: GatewayProcess) -> dict[str, Any]:
    return json.loads(gateway.link("GET", "/-/cache")[1])["l4"]


def ask_until_killed(gateway: GatewayProcess, enough: threading.Event, count: int) -> None:
    """The same few questions in ever other spacing, so that each is compared with what is kept of another."""
    for number in range(10_000):
        text = f"How do I reset my {('password', 'phone', 'router')[number % 3]}{' ' * (number // 3 + 1)}?"
        try:
            gateway.chat("well", messages=[{"role": "user", "content": text}], temperature=0)
        except (OSError, HTTPException):
            return
        if number == count:
            enough.set()


def test_a_gateway_killed_while_it_learns_knows_afterwards_what_it_had_written(upstream: Upstream, tmp_path: Path) -> None:
    chance, gateway = random.Random(11), GatewayProcess(tmp_path)
    cache = {"exact": False, "semantic": {"false_hit_max": 0.001, "sample_share": 1.0}}
    known = 0
    try:
        gateway.push(table(1, [release("well", upstream.base_url, cache=cache)]))
        for _ in range(KILLS):
            enough = threading.Event()
            asking = threading.Thread(target=ask_until_killed, args=(gateway, enough, chance.randrange(8, 40)))
            asking.start()
            assert enough.wait(10)
            learned = state(gateway)["services"]["well"]["learned"]["same"]
            gateway.kill()
            asking.join(10)
            gateway.start()
            found = state(gateway)
            assert found["damaged"] == 0
            places = list(PLACE.iter_unpack((gateway.data_dir / "labels" / "entries").read_bytes()))
            counted = sum(same for digest, _, _, same, _, _, _ in places if any(digest))
            assert counted >= known + learned, "what was counted before the kill is on disk"
            known = counted
    finally:
        gateway.close()
