"""L3 beside a model of what it promises, through restarts, damage and time."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cohort.base.clock import ManualClock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.disk import SUFFIX, Disk
from cohort.gateway.cache.packing import Packing

KEYS = st.sampled_from([bytes([n]) * 32 for n in range(6)])
UNITS = st.sampled_from(["a" * 32, "b" * 32])
BYTES_MAX, ENTRIES_MAX = 900, 4


class DiskMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cache"))
        self.clock = ManualClock()
        self.restart()
        self.kept: dict[bytes, tuple[bytes, str, float]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule()
    def restart(self) -> None:
        self.disk = Disk(self.folder, BYTES_MAX, ENTRIES_MAX, self.clock, Packing(self.clock, "boot"))

    @rule(key=KEYS, body=st.binary(max_size=700), unit=UNITS, ttl_s=st.integers(1, 60))
    def keep(self, key: bytes, body: bytes, unit: str, ttl_s: int) -> None:
        if self.disk.keep(key, Answer(body, True), unit, ttl_s):
            self.kept[key] = (body, unit, self.clock.monotonic_s() + ttl_s)
            found = self.disk.find(key)
            assert found is not None
            assert found.answer.body == body

    @rule(key=KEYS)
    def find(self, key: bytes) -> None:
        found = self.disk.find(key)
        if found is not None:
            body, unit, expires_s = self.kept[key]
            assert (found.answer.body, found.unit) == (body, unit)
            assert self.clock.monotonic_s() < expires_s

    @rule(unit=UNITS)
    def erase(self, unit: str) -> None:
        self.disk.erase(unit)
        for key, (_, owner, _) in self.kept.items():
            assert owner != unit or self.disk.find(key) is None
        self.kept = {key: entry for key, entry in self.kept.items() if entry[1] != unit}

    @rule(key=KEYS, at=st.integers(0, 10_000))
    def damage(self, key: bytes, at: int) -> None:
        path = self.folder / key.hex()[:2] / (key.hex() + SUFFIX)
        if path.exists():
            data = bytearray(path.read_bytes())
            data[at % len(data)] ^= 0x10
            path.write_bytes(data)
            assert self.disk.find(key) is None
            self.kept.pop(key, None)

    @rule(seconds=st.integers(0, 40))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.disk.sweep()

    @invariant()
    def an_opened_disk_stays_within_its_bounds(self) -> None:
        files = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        assert sum(files) <= BYTES_MAX
        assert len(files) <= ENTRIES_MAX


TestDisk = DiskMachine.TestCase
TestDisk.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
