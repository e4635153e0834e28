"""What every store promises about transactions."""

from __future__ import annotations

import math
import threading

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from cohort.base.errors import CohortError, Retry
from cohort.storage.database import open_database
from cohort.storage.schema import calls, facts, keys, rollouts, series, streams, transitions


def put(connection, name, value):
    connection.execute(insert(facts).values(name=name, value=value))


def value_of(database, name):
    with database.read() as connection:
        return connection.execute(select(facts.c.value).where(facts.c.name == name)).scalar_one_or_none()


def rollout_row(rollout_id, **changes):
    row = {
        "id": rollout_id, "service": "support", "stable": "rel_a", "candidate": "rel_b", "plan": {}, "speed": 1.0, "salt": "00",
        "state": "running", "stage": 0, "stage_run": 0, "stage_since_us": 0, "held_us": 0, "approved": False, "revision": 1,
        "created_us": 1, "created_by": "test", "evidence": {}, "position": [], "summary": {},
    }  # fmt: skip
    return row | changes


def call_row(**changes):
    row = {
        "rollout_id": "ro_1", "at_us": 1, "gateway": "gw", "epoch": 1, "seq": 1, "kind": "call", "arm": "stable", "stage_run": 0,
        "share": 0.05, "unit": "u", "result": "ok", "status": 200, "negative": False,
    }  # fmt: skip
    return row | changes


def test_a_write_is_there_for_the_next_reader(database):
    with database.write() as connection:
        put(connection, "routing_version", 7)
    assert value_of(database, "routing_version") == 7


def test_nobody_sees_a_write_before_its_commit(database):
    with database.write() as connection:
        put(connection, "routing_version", 7)
        assert value_of(database, "routing_version") is None


def test_an_exception_rolls_everything_back(database):
    def fails():
        with database.write() as connection:
            put(connection, "first", 1)
            put(connection, "second", 2)
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        fails()
    assert value_of(database, "first") is None
    with database.write() as connection:
        put(connection, "first", 3)
    assert value_of(database, "first") == 3


def test_a_reader_sees_one_moment_for_as_long_as_it_reads(database):
    with database.write() as connection:
        put(connection, "a", 1)
    with database.read() as reader:
        before = reader.execute(select(facts.c.value).where(facts.c.name == "a")).scalar_one()
        with database.write() as writer:
            writer.execute(update(facts).values(value=2))
        assert reader.execute(select(facts.c.value).where(facts.c.name == "a")).scalar_one() == before == 1
    assert value_of(database, "a") == 2


def test_a_reader_cannot_write(database):
    def write_while_reading():
        with database.read() as connection:
            put(connection, "a", 1)

    with pytest.raises((CohortError, DBAPIError)):
        write_while_reading()
    assert value_of(database, "a") is None


def test_many_writers_at_once_lose_nothing(database):
    with database.write() as connection:
        put(connection, "count", 0)
    threads_count, times = 8, 25

    def count():
        for _ in range(times):
            with database.write() as connection:
                database.lock(connection, "count")
                now = connection.execute(select(facts.c.value).where(facts.c.name == "count")).scalar_one()
                connection.execute(update(facts).where(facts.c.name == "count").values(value=now + 1))

    threads = [threading.Thread(target=count) for _ in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(database, "count") == threads_count * times


def test_two_opened_databases_take_turns(database, url):
    """As two processes would."""
    other = open_database(url)
    with database.write() as connection:
        put(connection, "count", 0)

    def count(mine):
        for _ in range(20):
            with mine.write() as connection:
                mine.lock(connection, "count")
                now = connection.execute(select(facts.c.value).where(facts.c.name == "count")).scalar_one()
                connection.execute(update(facts).where(facts.c.name == "count").values(value=now + 1))

    threads = [threading.Thread(target=count, args=(mine,)) for mine in (database, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert value_of(database, "count") == 40


def test_a_writer_that_waits_too_long_is_told_so(database, url):
    impatient = open_database(url, wait_s=0.05)

    def wait_for_the_same_lock():
        with impatient.write() as connection:
            impatient.lock(connection, "name")

    with database.write() as connection:
        database.lock(connection, "name")
        with pytest.raises(CohortError) as caught:
            wait_for_the_same_lock()
    impatient.close()
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    assert caught.value.retry is Retry.SAFE


def test_a_transaction_inside_a_transaction_is_a_mistake_that_shows_at_once(database):
    def nest():
        with database.write(), database.write():
            pass

    with pytest.raises(RuntimeError, match="inside"):
        nest()
    with database.write() as connection:
        put(connection, "a", 1)
    assert value_of(database, "a") == 1


def test_an_upsert_adds_or_changes(database):
    for value in (1, 2):
        with database.write() as connection:
            statement = database.upsert(facts).values(name="a", value=value)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": statement.excluded.value}))
    assert value_of(database, "a") == 2
    with database.write() as connection:
        done = connection.execute(database.upsert(facts).values(name="a", value=3).on_conflict_do_nothing(index_elements=["name"]))
        assert done.rowcount == 0
    assert value_of(database, "a") == 2


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**53,
        0.1 + 0.2,
        5e-324,
        1.7976931348623157e308,
        "",
        'Grüße 🌊 \u0000 \\ " \ud800',
        [],
        {},
        {"a": [1, {"b": None}]},
    ],
)
def test_json_comes_back_as_it_was(database, value):
    with database.write() as connection:
        put(connection, "a", value)
    found = value_of(database, "a")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1.0, math.nan]])
def test_json_has_no_infinities_on_any_store(database, value):
    def write():
        with database.write() as connection:
            put(connection, "a", value)

    with pytest.raises((StatementError, ValueError)):
        write()
    assert value_of(database, "a") is None


def test_a_float_column_keeps_every_bit(database):
    share = 0.1 + 0.2
    with database.write() as connection:
        connection.execute(insert(rollouts).values(rollout_row("ro_1")))
        connection.execute(insert(calls).values(call_row(share=share)))
    with database.read() as connection:
        assert connection.execute(select(calls.c.share)).scalar_one() == share


def test_a_service_has_one_active_rollout_and_any_number_of_ended_ones(database):
    with database.write() as connection:
        connection.execute(insert(rollouts).values(rollout_row("ro_0", ended_us=5)))
        connection.execute(insert(rollouts).values(rollout_row("ro_1", ended_us=6)))
        connection.execute(insert(rollouts).values(rollout_row("ro_2")))
        connection.execute(insert(rollouts).values(rollout_row("ro_3", service="other")))

    def start_a_second():
        with database.write() as connection:
            connection.execute(insert(rollouts).values(rollout_row("ro_4")))

    with pytest.raises(IntegrityError):
        start_a_second()
    with database.write() as connection:
        connection.execute(update(rollouts).where(rollouts.c.id == "ro_2").values(ended_us=7))
        connection.execute(insert(rollouts).values(rollout_row("ro_4")))


def test_an_idempotency_key_is_taken_once_per_rollout_and_none_any_number_of_times(database):
    row = {"rollout_id": "ro_1", "at_us": 1, "kind": "paused", "stage": 0, "actor": "a", "reason": "", "detail": {}}
    with database.write() as connection:
        connection.execute(insert(rollouts).values(rollout_row("ro_1")))
        connection.execute(insert(transitions), [row | {"seq": seq, "idempotency_key": None} for seq in range(3)])
        connection.execute(insert(transitions).values(row | {"seq": 3, "idempotency_key": "k"}))

    def again():
        with database.write() as connection:
            connection.execute(insert(transitions).values(row | {"seq": 4, "idempotency_key": "k"}))

    with pytest.raises(IntegrityError):
        again()


def test_foreign_keys_hold(database):
    def orphan():
        with database.write() as connection:
            connection.execute(insert(series).values(rollout_id="ro_x", bucket_us=1, arm="stable", calls=1, failed=0, latency={}))

    with pytest.raises(IntegrityError):
        orphan()


def test_the_cursor_of_a_stream_moves_only_with_its_data(database):
    cursor = {"gateway": "gw", "epoch": 1, "segment": 0, "offset": 0, "taken_us": 1}
    with database.write() as connection:
        connection.execute(insert(rollouts).values(rollout_row("ro_1")))
        connection.execute(insert(streams).values(cursor))

    def take(seqs):
        with database.write() as connection:
            connection.execute(update(streams).where(streams.c.gateway == "gw").values(offset=streams.c.offset + len(seqs)))
            for seq in seqs:
                connection.execute(insert(calls).values(call_row(seq=seq)))

    take([1, 2])
    with pytest.raises(IntegrityError):
        take([3, 2])
    with database.read() as connection:
        assert connection.execute(select(streams.c.offset)).scalar_one() == 2
        assert connection.execute(select(calls.c.seq).order_by(calls.c.seq)).scalars().all() == [1, 2]


def test_an_error_does_not_repeat_the_values(database):
    row = {"id": "key_1", "name": "n", "role": "admin", "sha256": "ab" * 32, "created_us": 1}
    with database.write() as connection:
        connection.execute(insert(keys).values(row))

    def again():
        with database.write() as connection:
            connection.execute(insert(keys).values(row | {"name": "very-private"}))

    with pytest.raises(IntegrityError) as caught:
        again()
    assert "very-private" not in str(caught.value)


def test_a_wrong_statement_stays_the_programmers_error(database):
    def ask():
        with database.read() as connection:
            connection.execute(text("SELECT nonsense FROM facts"))

    with pytest.raises(DBAPIError):
        ask()
    database.check()


def test_a_closed_database_opens_again_when_asked(database):
    database.close()
    database.check()


def test_a_generation_ends_with_any_commit_and_with_nothing_else(database, url):
    if database.dialect == "postgresql":
        assert database.generation() is None
        return
    found = [database.generation()]
    with database.write() as connection:
        put(connection, "a", 1)
        assert database.generation() == found[0]
    found.append(database.generation())
    elsewhere = open_database(url)
    with elsewhere.write() as connection:
        put(connection, "b", 1)
    found.append(database.generation())
    elsewhere.close()
    assert len(set(found)) == 3

    def fails():
        with database.write() as connection:
            put(connection, "c", 1)
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        fails()
    value_of(database, "a")
    assert database.generation() == found[2]


def test_generations_of_two_connections_are_never_alike(sqlite_database):
    before = sqlite_database.generation()
    sqlite_database.close()
    assert sqlite_database.generation() != before


def test_asking_for_the_generation_does_not_hold_the_log_back(sqlite_database):
    sqlite_database.generation()
    for number in range(3):
        with sqlite_database.write() as connection:
            put(connection, f"n{number}", number)
    with sqlite_database.read() as connection:
        driver = connection.connection.driver_connection
        _, frames, copied = driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert frames == copied > 0


def test_a_writer_that_failed_leaves_nothing_open_for_the_next(sqlite_database):
    def fails():
        with sqlite_database.write() as connection:
            put(connection, "lost", 1)
            raise KeyError("the caller's own")

    for number in range(3):
        with pytest.raises(KeyError):
            fails()
        with sqlite_database.write() as connection:
            assert connection.execute(select(facts.c.name).where(facts.c.name == "lost")).all() == []
            put(connection, f"kept-{number}", number)
    assert [value_of(sqlite_database, f"kept-{number}") for number in range(3)] == [0, 1, 2]


def test_a_turn_to_write_that_does_not_come_is_said_to_be_so(sqlite_url, migrated_sqlite_url):
    impatient = open_database(sqlite_url, wait_s=0.01)
    inside, over = threading.Event(), threading.Event()

    def holds():
        with impatient.write():
            inside.set()
            over.wait(10)

    holder = threading.Thread(target=holds)
    holder.start()
    assert inside.wait(10)
    with pytest.raises(CohortError) as caught, impatient.write():
        pass
    over.set()
    holder.join(10)
    assert (caught.value.code, caught.value.retry) == ("DATABASE_UNAVAILABLE", Retry.SAFE)
    with impatient.write() as connection:
        put(connection, "after", 1)
    impatient.close()
