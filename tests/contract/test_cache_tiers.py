"""The exact tiers outside the process: the same promises of files on disk and of a real Redis, and what is particular to each."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.gateway.cache.answers import Answer
from cohort.gateway.cache.disk import SUFFIX, Disk
from cohort.gateway.cache.packing import HEAD, Damaged, Found, Packing
from cohort.gateway.cache.resp import RespConnection
from cohort.gateway.cache.shared import PREFIX, RedisAddress, Shared, Unavailable, redis_address
from support_processes import free_ports
from support_redis import PASSWORD, RedisServer, running_redis

ANNA, BERT = "a" * 32, "b" * 32
HELLO = Answer(b'{"choices":["' + b"Hello. " * 100 + b'"]}', True, 42, 7, True)
KEY, OTHER = b"k" * 32, b"o" * 32
WAIT_S = 5.0


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


class Tier:
    """Disk and Redis behind the same three words."""

    def __init__(self, made: Any) -> None:
        self._made = made

    async def keep(self, key: bytes, answer: Answer, unit: str, ttl_s: float) -> Any:
        return await _done(self._made.keep(key, answer, unit, ttl_s))

    async def find(self, key: bytes) -> Found | None:
        return await _done(self._made.find(key))

    async def erase(self, unit: str) -> int:
        return await _done(self._made.erase(unit))


async def _done(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) else value


@pytest.fixture(params=["disk", "redis"])
def tier(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Callable[[], Tier]:
    """Makes the tier; each time as another process would that comes after the one before it."""
    packing = Packing(clock, "boot")
    if request.param == "disk":
        return lambda: Tier(Disk(tmp_path / "answers", 1 << 20, 100, clock, packing))
    server: RedisServer = request.getfixturevalue("redis")
    server.run("FLUSHALL")
    return lambda: Tier(Shared(redis_address(server.address, PASSWORD), WAIT_S, clock, packing))


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))  # type: ignore[arg-type]


def test_what_was_kept_is_found_by_the_next_process_with_its_age(tier: Callable[[], Tier], clock: ManualClock) -> None:
    async def work() -> None:
        await tier().keep(KEY, HELLO, ANNA, 60)
        clock.advance(20)
        found = await tier().find(KEY)
        assert found == Found(HELLO, ANNA, 20.0, 60.0)
        assert await tier().find(OTHER) is None

    run(work)


def test_an_answer_without_usage_stays_one(tier: Callable[[], Tier]) -> None:
    async def work() -> None:
        plain = Answer(b"{}", False)
        await tier().keep(KEY, plain, ANNA, 60)
        found = await tier().find(KEY)
        assert found is not None
        assert found.answer == plain

    run(work)


def test_nothing_is_found_after_its_time_nor_what_was_made_in_the_future(tier: Callable[[], Tier], clock: ManualClock) -> None:
    async def work() -> None:
        await tier().keep(KEY, HELLO, ANNA, 60)
        clock.advance(60)
        assert await tier().find(KEY) is None
        await tier().keep(KEY, HELLO, ANNA, 60)
        clock._now_us -= 10_000_000  # a clock that was set back, on a machine that started anew
        assert await tier().find(KEY) is None

    run(work)


def test_erasing_a_unit_removes_its_answers_and_no_others(tier: Callable[[], Tier]) -> None:
    async def work() -> None:
        one = tier()
        for n in range(5):
            await one.keep(bytes([n]) * 32, HELLO, ANNA, 60)
        await one.keep(KEY, HELLO, BERT, 60)
        another = tier()
        assert await another.erase(ANNA) == 5
        assert await another.erase(ANNA) == 0
        assert await another.find(KEY) is not None
        assert [await another.find(bytes([n]) * 32) for n in range(5)] == [None] * 5

    run(work)


# --- packing -------------------------------------------------------------------------------------------------------------------


def test_within_one_boot_a_clock_set_back_makes_nothing_younger() -> None:
    class Clocks:
        now, since = 1_000_000_000, 100.0

        def now_us(self) -> int:
            return self.now

        def monotonic_s(self) -> float:
            return self.since

    clocks = Clocks()
    packing = Packing(clocks, "boot")
    data = packing.pack(KEY, HELLO, ANNA, 60)
    clocks.since += 50.0
    clocks.now += 5_000_000  # set back by 45 s
    found = packing.unpack(KEY, data)
    assert found is not None
    assert found.age_s == 50.0
    clocks.since += 10.0
    assert packing.unpack(KEY, data) is None
    assert packing.label(data).left_s == 0.0
    other_boot = Packing(clocks, "another").unpack(KEY, data)
    assert other_boot is not None, "another boot has the wall clock only"


def test_every_flipped_byte_and_every_cut_is_found(clock: ManualClock) -> None:
    packing = Packing(clock, "boot")
    data = packing.pack(KEY, HELLO, ANNA, 60)
    for at in range(len(data)):
        with pytest.raises(Damaged):
            packing.unpack(KEY, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(Damaged):
            packing.unpack(KEY, data[:at])
    with pytest.raises(Damaged):
        packing.unpack(OTHER, data)


# --- disk ----------------------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_dropped_and_counted_and_no_client_sees_it(tmp_path: Path, clock: ManualClock) -> None:
    disk = Disk(tmp_path, 1 << 20, 100, clock, Packing(clock, ""))
    disk.keep(KEY, HELLO, ANNA, 60)
    (path,) = tmp_path.rglob("*" + SUFFIX)
    path.write_bytes(path.read_bytes()[:-3])
    assert disk.find(KEY) is None
    assert (disk.damaged, len(disk), disk.used_bytes, path.exists()) == (1, 0, 0, False)


def test_what_a_crash_leaves_is_cleared_away_and_the_rest_is_whole(tmp_path: Path, clock: ManualClock) -> None:
    packing = Packing(clock, "")
    Disk(tmp_path, 1 << 20, 100, clock, packing).keep(KEY, HELLO, ANNA, 60)
    (path,) = tmp_path.rglob("*" + SUFFIX)
    path.with_name("ab.fresh").write_bytes(b"half")
    path.with_name("not hexadecimal" + SUFFIX).write_bytes(b"x" * 200)
    (path.parent / ("cd" * 32 + SUFFIX)).write_bytes(b"")
    again = Disk(tmp_path, 1 << 20, 100, clock, packing)
    again.keep(OTHER, HELLO, ANNA, 60)
    assert len(again) == 2
    assert sorted(p.suffix for p in tmp_path.rglob("*.*")) == [SUFFIX, SUFFIX]
    assert again.find(KEY) is not None


def test_a_smaller_bound_than_before_holds_from_the_first_answer_on(tmp_path: Path, clock: ManualClock) -> None:
    packing = Packing(clock, "")
    before = Disk(tmp_path, 1 << 20, 100, clock, packing)
    for n in range(20):
        before.keep(bytes([n]) * 32, HELLO, ANNA, 60)
        os.utime(next(tmp_path.rglob(f"{n:02x}*{SUFFIX}")), (n, n))
    after = Disk(tmp_path, 1 << 20, 5, clock, packing)
    after.keep(KEY, HELLO, ANNA, 60)
    assert len(after) == 5
    assert len(list(tmp_path.rglob("*" + SUFFIX))) == 5
    assert after.find(bytes([19]) * 32) is not None, "the newest stay"


def test_a_folder_that_cannot_be_written_is_an_error_and_nothing_else(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "answers").write_text("a file where the folder should be")
    disk = Disk(tmp_path / "answers", 1 << 20, 5, clock, Packing(clock, ""))
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        disk.keep(KEY, HELLO, ANNA, 60)
    assert (len(disk), disk.used_bytes) == (0, 0)


# --- Redis ---------------------------------------------------------------------------------------------------------------------


def test_a_damaged_value_is_removed_and_counted(redis: RedisServer, clock: ManualClock) -> None:
    async def work() -> None:
        shared = Shared(redis_address(redis.address, PASSWORD), WAIT_S, clock, Packing(clock, ""))
        redis.run("FLUSHALL")
        await shared.keep(KEY, HELLO, ANNA, 60)
        redis.run("SETRANGE", (PREFIX + KEY).decode(), str(HEAD.size + 3), "x")
        assert await shared.find(KEY) is None
        assert (shared.damaged, redis.run("DBSIZE")) == (1, "0")

    run(work)


def test_values_leave_by_themselves(redis: RedisServer, clock: ManualClock) -> None:
    async def work() -> None:
        shared = Shared(redis_address(redis.address, PASSWORD), WAIT_S, clock, Packing(clock, ""))
        await shared.keep(KEY, HELLO, ANNA, 60)
        assert 55 < int(redis.run("TTL", (PREFIX + KEY).decode())) <= 60

    run(work)


@pytest.mark.parametrize("address", [RedisAddress("127.0.0.1", 1), RedisAddress(path="/nowhere/redis.sock")])
def test_a_server_that_is_not_there_is_unavailable_and_left_alone_for_a_while(address: RedisAddress, clock: ManualClock) -> None:
    async def work() -> None:
        shared = Shared(address, WAIT_S, clock, Packing(clock, ""))
        with pytest.raises(Unavailable):
            await shared.find(KEY)
        assert shared.rests
        clock.advance(2)
        assert not shared.rests

    run(work)


def test_a_server_that_dies_stands_still_or_gets_another_password_is_used_again_when_it_is_well(clock: ManualClock) -> None:
    passwords = [PASSWORD]

    async def meets(shared: Shared, *said: str) -> None:
        clock.advance(2)
        await shared.check()
        assert (shared.problem is None) is (not said), shared.problem
        assert all(word in str(shared.problem) for word in said), shared.problem
        if said:
            assert shared.rests
            clock.advance(2)
            with pytest.raises(Unavailable):
                await shared.find(KEY)

    async def work() -> None:
        with running_redis() as server:
            shared = Shared(redis_address(server.address, lambda: passwords[0]), 0.3, clock, Packing(clock, ""))
            await shared.keep(KEY, HELLO, ANNA, 600)
            await meets(shared)
            os.kill(server.process.pid, signal.SIGSTOP)
            await meets(shared, f"127.0.0.1:{server.port} is not used", "no answer within 0.3 s")
            os.kill(server.process.pid, signal.SIGCONT)
            await meets(shared)
            assert await shared.find(KEY) is not None
            server.kill()
            await meets(shared, "is not used")
            server.password = "another-password-than-before"
            server.start()
            await meets(shared, "WRONGPASS")
            passwords[0] = server.password
            await meets(shared)

    run(work)


def test_a_password_is_told_to_nobody_far_away(clock: ManualClock) -> None:
    for host in ("8.8.8.8", "[2001:4860:4860::8888]", "169.254.169.254", "0.0.0.0", "[::ffff:8.8.8.8]"):
        with pytest.raises(CohortError, match="not an address of this machine or a private network"):
            redis_address(f"redis://{host}:6379/0", PASSWORD)
    for host in ("127.0.0.1", "10.1.2.3", "[::1]", "[fd12::1]", "localhost", "100.64.0.1"):
        assert redis_address(f"redis://{host}:6379/0", PASSWORD).port == 6379

    async def work() -> None:
        shared = Shared(RedisAddress("8.8.8.8", password=PASSWORD), WAIT_S, clock, Packing(clock, ""))  # as a name that led there
        with pytest.raises(Unavailable, match=r"8\.8\.8\.8 is not an address of this machine"):
            await shared.find(KEY)

    run(work)


def test_a_wrong_password_is_unavailable_not_a_miss(redis: RedisServer, clock: ManualClock) -> None:
    async def work() -> None:
        shared = Shared(redis_address(redis.address, "wrong"), WAIT_S, clock, Packing(clock, ""))
        with pytest.raises(Unavailable, match="connecting"):
            await shared.find(KEY)

    run(work)


def test_connections_that_are_not_let_in_do_not_add_up(redis: RedisServer, clock: ManualClock) -> None:
    async def work() -> None:
        wrong = Shared(redis_address(redis.address, "wrong"), WAIT_S, clock, Packing(clock, ""))
        missing = redis_address(f"redis://127.0.0.1:{redis.port}/99", PASSWORD)  # a database there is not
        beyond = Shared(missing, WAIT_S, clock, Packing(clock, ""))
        for shared in (wrong, beyond):
            gc.collect()  # what other tests left open
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(5):
                with pytest.raises(Unavailable, match="connecting"):
                    await shared.find(KEY)
                await asyncio.sleep(0)  # the loop closes what was given up in its next round
            assert len(os.listdir("/proc/self/fd")) <= before

    run(work)


def test_a_server_that_restarts_is_used_again(clock: ManualClock) -> None:
    async def work() -> None:
        with running_redis() as server:
            shared = Shared(redis_address(server.address, PASSWORD), WAIT_S, clock, Packing(clock, ""))
            await shared.keep(KEY, HELLO, ANNA, 60)
            server.kill()
            with pytest.raises(Unavailable):
                await shared.find(KEY)
            with pytest.raises(Unavailable):
                await shared.erase(ANNA)
            server.start()
            assert await shared.find(KEY) is None
            await shared.keep(KEY, HELLO, ANNA, 60)
            assert await shared.find(KEY) is not None

    run(work)


@pytest.mark.parametrize(
    "said", [b"garbage\r\n", b"$99999999999\r\n", b"$x\r\n", b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", b"+OK\r\n+unasked\r\n", b""]
)
def test_what_is_no_redis_ends_the_connection_not_the_gateway(said: bytes, clock: ManualClock) -> None:
    async def work() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(said)
            await writer.drain()
            writer.close()

        port = free_ports(1)[0]
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            shared = Shared(RedisAddress("127.0.0.1", port), WAIT_S, clock, Packing(clock, ""))
            if said.startswith(b"+OK"):
                assert await shared.find(KEY) is None
            else:
                with pytest.raises(Unavailable):
                    await shared.find(KEY)

    run(work)


def test_a_silent_server_is_given_up_in_time_and_its_late_reply_is_nobodys(clock: ManualClock) -> None:
    async def work() -> None:
        held: list[asyncio.StreamWriter] = []

        async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)

        port = free_ports(1)[0]
        async with await asyncio.start_server(hold, "127.0.0.1", port):
            shared = Shared(RedisAddress("127.0.0.1", port), 0.05, clock, Packing(clock, ""))
            with pytest.raises(Unavailable, match="no answer within"):
                await shared.find(KEY)
            assert shared.rests
            for writer in held:
                writer.close()

    run(work)


def test_replies_come_in_pieces_and_in_order(redis: RedisServer) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(RespConnection, "127.0.0.1", redis.port)
        connection.command(b"AUTH", PASSWORD.encode())
        big = os.urandom(300_000)
        asked = [connection.command(b"SET", b"big", big), connection.command(b"NONSENSE"), connection.command(b"GET", b"big")]
        asked += [connection.command(b"LRANGE", b"none", b"0", b"1"), connection.command(b"EXISTS", b"big")]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert (answers[0], answers[2:]) == (b"OK", [big, [], 1])
        assert "unknown command" in str(answers[1]).lower()
        connection.close()

    run(work)


@pytest.mark.parametrize(
    "text", ["redis://", "http://h", "redis://user:secret@h/0", "redis://h/x", "redis://h:99999/0", "unix:relative", ""]
)
def test_an_address_that_is_none_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(CohortError, match="not an address") as caught:
        redis_address(text, "")
    assert "secret" not in str(caught.value)
