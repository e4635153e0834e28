"""What goes wrong behind an answer stays behind it: the writer of the outer tiers goes on, and says so."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

from cohort.base.clock import ManualClock
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.disk import Disk
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.cache.outside import QUEUED_BYTES_MAX, QUEUED_MAX, Outside, Writing
from cohort.gateway.cache.packing import Packing
from cohort.gateway.contract_cache import CachePolicy
from cohort.gateway.log import Log

ANNA = "a" * 32
ON_DISK = CachePolicy(disk=True)


class Bench:
    """The outer tiers on `folder`."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.out = io.StringIO()
        self.disk = Disk(folder, 1 << 20, 100, self.clock, Packing(self.clock, ""))
        self.erased = Erased(self.clock)
        self.outside = Outside(self.disk, None, self.erased, Log("gw", self.clock, self.out))

    def writing(self, key: bytes, unit: str = ANNA, size: int = 5) -> Writing:
        return Writing(key, Answer(b"x" * size, True), unit, self.clock.monotonic_s(), ON_DISK)

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.out.getvalue().splitlines()]


async def settled(bench: Bench, writings: list[Writing]) -> None:
    for writing in writings:
        bench.outside.offer(writing)
    await bench.outside.write_all()


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_one_answer_that_cannot_be_packed_does_not_end_the_writer(tmp_path: Path) -> None:
    async def work() -> None:
        bench = Bench(tmp_path)
        await settled(bench, [bench.writing(b"1" * 32, unit="not hexadecimal"), bench.writing(b"2" * 32)])
        assert bench.events == ["cache_write_failed"]
        assert bench.disk.find(b"2" * 32) is not None

    run(work())


def test_a_disk_that_takes_nothing_is_said_once_a_minute(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")

    async def work() -> None:
        bench = Bench(tmp_path / "file")
        await settled(bench, [bench.writing(bytes([n]) * 32) for n in range(5)])
        assert bench.events == ["cache_disk_failed"]

    run(work())


def test_what_waits_to_be_written_is_bounded_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    async def work() -> None:
        many, large = Bench(tmp_path / "many"), Bench(tmp_path / "large")
        for n in range(QUEUED_MAX + 7):
            many.outside.offer(many.writing(n.to_bytes(32, "big")))
        large.outside.offer(large.writing(b"1" * 32, size=QUEUED_BYTES_MAX))
        large.outside.offer(large.writing(b"2" * 32))
        assert (many.outside.dropped, large.outside.dropped) == (7, 1)

    run(work())


def test_what_waits_when_a_person_is_forgotten_is_not_written_later(tmp_path: Path) -> None:
    async def work() -> None:
        bench = Bench(tmp_path)
        waiting = [bench.writing(b"1" * 32), bench.writing(b"2" * 32, unit="b" * 32)]
        bench.erased.add(ANNA)
        assert await bench.outside.erase(ANNA) == {"l2": 0, "l3": 0}
        await settled(bench, waiting)
        assert bench.disk.find(b"1" * 32) is None
        assert bench.disk.find(b"2" * 32) is not None

    run(work())
