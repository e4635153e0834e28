"""The log's writer on each store: shared commits, clocks, private payloads, lost answers, orphans."""

from __future__ import annotations

import secrets
import signal
import sqlite3
import threading
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise

import pytest
from sqlalchemy import Engine, event, text

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError, Retry
from cohort.kernel.audit import log as audit_log
from cohort.kernel.audit.log import Batching
from cohort.kernel.audit.recovery import ORPHAN_AGE_US
from cohort.kernel.audit.store import Rows
from cohort.kernel.face import AuditQuery
from cohort.kernel.model import Record, RecordKind
from cohort.storage.database import open_database
from support_audit import change, fill, open_room, record


class SteppingClock(ManualClock):
    """Can also be set back."""

    def set_back(self, seconds):
        self._now_us -= int(seconds * 1e6)


@pytest.fixture
def clock():
    return SteppingClock()


@pytest.fixture
def room(database, tmp_path, clock):
    return open_room(database, tmp_path, clock)


@pytest.fixture
def patient(database, tmp_path, clock):
    """A log whose leader waits for a crowd for as long as it takes."""
    return open_room(database, tmp_path, clock, batching=Batching(gather_s_max=60.0))


def together(calls):
    """Run the calls at the same time; what each returned or raised."""
    answers = [None] * len(calls)

    def run(number):
        try:
            answers[number] = calls[number]()
        except CohortError as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def append(room, number):
    return lambda: room.log.append(record(number, RecordKind.OUTCOME))


def test_callers_at_the_same_time_each_get_the_place_of_their_own_record(room):
    calls = [append(room, number) for number in range(120)]
    positions = together(calls)
    assert sorted(position.index for position in positions) == list(range(120))
    for number, position in enumerate(positions):
        entry = room.desk.entry(position.index)
        assert (entry.leaf, entry.body["action"]) == (position.leaf, f"act_{number}")
    assert room.desk.verify().integrity == "verified"


def test_one_caller_s_records_keep_their_order_among_those_of_others(room):
    def several(caller):
        return lambda: [room.log.append(record(caller, RecordKind.NOTE)).index for _ in range(20)]

    for indices in together([several(caller) for caller in range(8)]):
        assert indices == sorted(indices)


def test_callers_share_commits(room, database):
    """While the log's lock is held, callers gather; one commit then takes them all."""
    with database.write() as connection:
        database.lock(connection, audit_log.LOCK_NAME)
        threads = [threading.Thread(target=append(room, number)) for number in range(40)]
        for thread in threads:
            thread.start()
        while len(room.log._waiting) < 39:
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    with database.read() as connection:
        sizes = [head.size for head in Rows(connection).checkpoints(100)]
    assert sizes == [40]
    assert room.desk.size() == 40


@pytest.mark.parametrize(("batching", "size"), [(Batching(records_max=3), 3), (Batching(bytes_max=1), 1)])
def test_a_batch_has_limits(database, tmp_path, clock, batching, size):
    room = open_room(database, tmp_path, clock, batching=batching)
    sizes, write = [], room.log._write
    room.log._write = lambda batch: (sizes.append(len(batch)), write(batch))
    together([append(room, number) for number in range(20)])
    assert (room.desk.size(), room.desk.verify().integrity) == (20, "verified")
    assert max(sizes) <= size


def test_too_many_waiting_callers_are_refused(database, tmp_path, clock):
    room = open_room(database, tmp_path, clock, batching=Batching(waiting_max=0))
    with pytest.raises(CohortError) as caught:
        room.log.append(record(1))
    assert (caught.value.code, caught.value.retry) == ("AUDIT_UNAVAILABLE", Retry.SAFE)


def test_a_record_that_is_too_large_is_refused_alone(room):
    big = Record(RecordKind.NOTE, {"text": "x" * 70_000})
    answers = together([append(room, 1), lambda: room.log.append(big), append(room, 2)])
    assert answers[1].code == "RECORD_TOO_LARGE"
    assert room.desk.size() == 2


def test_a_clock_set_back_is_a_record_of_its_own(room, clock):
    fill(room, 2)
    before_us = clock.now_us()
    clock.set_back(3600)
    position = room.log.append(record(2, RecordKind.OUTCOME))
    assert (position.index, position.at_us) == (3, clock.now_us())
    note = room.desk.entry(2).body
    assert (note["kind"], note["body"]) == ("note", {"note": "clock_set_back", "from_us": before_us, "to_us": clock.now_us()})
    assert room.log.append(record(3, RecordKind.OUTCOME)).index == 4
    assert room.desk.verify().integrity == "verified"


def test_a_clock_that_is_a_little_behind_does_not_go_back_in_the_log(room, clock):
    first = room.log.append(record(1))
    clock.set_back(0.5)
    second = room.log.append(record(2))
    assert (second.index, second.at_us) == (1, first.at_us)


def test_checkpoints_of_an_hour_make_way_for_the_last(room, clock, database):
    for _ in range(3):
        fill(room, 2)
        clock.advance(3600)
    with database.read() as connection:
        assert [head.size for head in Rows(connection).checkpoints(100)] == [2, 4, 6]


def stored_payloads(database):
    with database.read() as connection:
        return connection.execute(text("SELECT name, salt, data, subject, erased_us FROM audit_payloads ORDER BY name")).all()


def private(room, subject="person 1", **payloads):
    return room.log.append(record(1, RecordKind.OUTCOME, private=payloads, subject=subject))


def test_private_payloads_stand_beside_the_log(room, database):
    position = private(room, stdout="Ada Lovelace", stderr="")
    entry = room.desk.entry(position.index)
    assert "Ada" not in str(entry.body)
    _, (name, salt, data, subject, erased_us) = stored_payloads(database)
    assert (name, bytes(data), subject, erased_us) == ("stdout", b"Ada Lovelace", "person 1", None)
    assert entry.body["private"]["stdout"] == sha256(bytes(salt) + b"Ada Lovelace").hexdigest()
    assert room.desk.payloads.of(position.index) == {"stdout": "Ada Lovelace", "stderr": ""}


def test_payloads_are_erased_by_subject_and_the_log_still_verifies(room, database):
    first, second = private(room, stdout="Ada"), private(room, "person 2", stdout="Grace")
    proof = room.desk.prove(first.index).text
    assert room.desk.erase("person 1", "ada") == 1
    assert room.desk.payloads.of(first.index) == {"stdout": None}
    assert room.desk.payloads.of(second.index) == {"stdout": "Grace"}
    assert room.desk.verify().integrity == "verified"
    assert room.desk.prove(first.index).text.split("\n")[1] == proof.split("\n")[1]
    assert room.desk.entry(2).body["body"] == {"note": "payloads_erased", "records": [first.index], "actor": "ada"}
    assert room.desk.erase("person 1", "ada") == 0
    assert room.desk.size() == 3


def test_nothing_of_an_erased_payload_is_left_in_the_files(sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock)
    secret = "Ada Lovelace, 10 December 1815. " * 500
    private(room, stdout=secret)
    private(room, "person 2", stdout="Grace")
    assert any(b"Ada Lovelace" in path.read_bytes() for path in tmp_path.glob("cohort.db*"))
    room.desk.erase("person 1", "ada")
    assert not any(b"Ada Lovelace" in path.read_bytes() for path in tmp_path.glob("cohort.db*"))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE audit_payloads SET data = ?", "was changed"),
        ("UPDATE audit_payloads SET name = 'other' WHERE ? IS NOT NULL", "not the one its entry commits to"),
        ("UPDATE audit_payloads SET data = NULL WHERE ? IS NOT NULL", "is missing and was not erased"),
    ],
)
def test_a_changed_payload_is_named(room, database, statement, why):
    private(room, stdout="Ada")
    change(database, (statement.replace("? IS", "CAST(? AS TEXT) IS"), [b"Eve" if "data = ?" in statement else "x"]))
    answer = room.desk.verify()
    assert (answer.integrity, answer.first_bad) == ("broken", 0)
    assert why in answer.why


def test_orphans_are_closed_at_the_next_start(room, database, tmp_path, clock):
    for number in (1, 2, 3):
        room.log.append(record(number))
    room.log.append(record(2, RecordKind.OUTCOME))
    again = open_room(database, tmp_path, clock)
    clock.advance(ORPHAN_AGE_US / 1e6 + 1)
    assert again.start() == 2
    again.stop()
    found = again.desk.search(AuditQuery(kind="outcome", action="act_3"))[0].body
    assert (found["body"]["outcome"], found["body"]["code"], found["agent"], found["session"]) == (
        "unknown",
        "OUTCOME_UNKNOWN",
        "ag_one",
        "se_one",
    )
    assert again.desk.verify().complete
    assert open_room(database, tmp_path, clock).start() == 0


def test_on_postgres_another_process_s_action_under_way_is_not_an_orphan(room, database, tmp_path, clock):
    room.log.append(record(1))
    closed = open_room(database, tmp_path, clock).start()
    assert closed == (0 if database.dialect == "postgresql" else 1)


def test_a_log_whose_key_is_gone_is_read_and_never_signed_by_a_new_one(room, database, tmp_path):
    fill(room, 3)
    (tmp_path / "audit.key").unlink()
    again = open_room(database, tmp_path)
    with pytest.raises(CohortError) as caught:
        again.log.append(record(3))
    assert caught.value.code == "AUDIT_BROKEN"
    assert not (tmp_path / "audit.key").exists()
    assert len(again.desk.search(AuditQuery())) == 3
    assert again.desk.verify().integrity == "broken"
    assert again.start() == 0
    again.stop()
    with pytest.raises(CohortError):
        again.desk.note("x", "ada")


@pytest.mark.parametrize("content", ["", "PRIVATE+KEY+x+y+z", "nonsense\n", "é"])
def test_a_damaged_key_file_is_a_wrong_setting(database, tmp_path, content):
    (tmp_path / "audit.key").write_text(content)
    with pytest.raises(CohortError) as caught:
        open_room(database, tmp_path)
    assert caught.value.code == "CONFIG_INVALID"


def test_the_key_is_private_and_the_log_keeps_its_name(room, database, tmp_path, clock):
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
    fill(room, 1)
    again = audit_room_named(database, tmp_path, clock, "other.example/audit")
    again.log.append(record(1))
    assert again.desk.checkpoint().startswith("test.example/audit\n")


def audit_room_named(database, tmp_path, clock, origin):
    from cohort.kernel.audit.room import open_audit

    return open_audit(database, clock, secrets.token_bytes, key_file=tmp_path / "audit.key", origin=origin)


def test_inner_hashes_that_are_damaged_are_rebuilt_from_the_entries(room, database, tmp_path):
    fill(room, 600)
    change(database, ("DELETE FROM audit_nodes WHERE idx = 1", []))
    again = open_room(database, tmp_path)
    assert again.log.trouble is None
    again.log.append(record(600, RecordKind.OUTCOME))
    assert again.desk.verify().integrity == "verified"


class LosesAnswers:
    """The database, except that a commit's answer is lost: after it happened, or before it could."""

    def __init__(self, database, happened):
        self._database = database
        self._happened = happened
        self.losing = True

    def __getattr__(self, name):
        return getattr(self._database, name)

    def beside(self):
        return self

    @contextmanager
    def write(self):
        if not self.losing:
            with self._database.write() as connection:
                yield connection
            return
        self.losing = False
        lost = CohortError("OUTCOME_UNKNOWN", "no answer to a commit", retry=Retry.CHECK_FIRST)
        with self._database.write() as connection:
            yield connection
            if not self._happened:
                raise lost
        raise lost


def test_a_commit_whose_answer_was_lost_is_found(database, tmp_path):
    losing = LosesAnswers(database, happened=True)
    room = open_room(losing, tmp_path)
    assert room.log.append(record(0, RecordKind.OUTCOME)).index == 0
    assert room.log.append(record(1, RecordKind.OUTCOME)).index == 1
    assert room.desk.verify().integrity == "verified"


def test_a_commit_that_was_lost_itself_is_never_claimed(database, tmp_path):
    room = open_room(LosesAnswers(database, happened=False), tmp_path)
    with pytest.raises(CohortError) as caught:
        room.log.append(record(0, RecordKind.OUTCOME))
    assert caught.value.code == ("AUDIT_UNAVAILABLE" if database.dialect == "postgresql" else "OUTCOME_UNKNOWN")
    assert room.log.append(record(1, RecordKind.OUTCOME)).index == 0


def test_a_busy_database_refuses_and_the_next_append_works(migrated_sqlite_url, tmp_path):
    database = open_database(migrated_sqlite_url, wait_s=0.05)
    room = open_room(database, tmp_path)
    other = sqlite3.connect(migrated_sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CohortError) as caught:
        room.log.append(record(0))
    assert (caught.value.code, caught.value.retry) == ("AUDIT_UNAVAILABLE", Retry.SAFE)
    other.execute("ROLLBACK")
    other.close()
    assert room.log.append(record(0)).index == 0
    database.close()


def test_a_log_that_cannot_be_written_at_start_does_not_keep_control_from_starting(migrated_sqlite_url, tmp_path, clock):
    database = open_database(migrated_sqlite_url, wait_s=0.05)
    room = open_room(database, tmp_path, clock)
    room.log.append(record(1))
    with sqlite3.connect(migrated_sqlite_url.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert room.start() == 0
        other.execute("ROLLBACK")
    other.close()
    assert room.start() == 1
    room.stop()
    database.close()


def test_on_postgres_a_record_is_written_inside_another_transaction_of_the_same_thread(postgres_url, tmp_path):
    database = open_database(postgres_url)
    room = open_room(database, tmp_path)
    with database.write() as connection:
        connection.execute(text("INSERT INTO facts (name, value) VALUES ('x', '1')"))
        assert room.log.append(record(1)).index == 0
        assert room.desk.size() == 1
        connection.rollback()
    assert room.desk.size() == 1
    database.close()


class Interrupted(Exception):
    """What the handler of a signal raises."""


def test_a_waiting_caller_that_is_interrupted_holds_up_nobody(room, database):
    def interrupt(*_):
        raise Interrupted

    def when_waiting():
        while len(room.log._waiting) < 1:
            threading.Event().wait(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with database.beside().write() as connection:
            database.lock(connection, audit_log.LOCK_NAME)
            leader = threading.Thread(target=append(room, 0))
            leader.start()
            while not room.log._led or room.log._waiting:
                threading.Event().wait(0.001)
            interrupter = threading.Thread(target=when_waiting)
            interrupter.start()
            with pytest.raises(Interrupted):
                room.log.append(record(1, RecordKind.OUTCOME))
            interrupter.join()
    finally:
        signal.signal(signal.SIGUSR1, former)
    leader.join()
    assert room.log.append(record(2, RecordKind.OUTCOME)).index == 1
    assert room.desk.verify().integrity == "verified"


@contextmanager
def signalled(meanwhile):
    """The main thread gets a signal whose handler raises, once `meanwhile` has returned in another thread."""

    def interrupt(*_):
        raise Interrupted

    def act():
        meanwhile()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    former, actor = signal.signal(signal.SIGUSR1, interrupt), threading.Thread(target=act)
    actor.start()
    try:
        yield
    finally:
        actor.join()
        signal.signal(signal.SIGUSR1, former)


def test_a_leader_that_is_interrupted_while_a_crowd_gathers_holds_up_nobody(patient):
    room = patient
    room.log._crowd, room.log._commit_s = 8, 60.0
    follower = threading.Thread(target=append(room, 0))

    def when_gathering():
        while room.log._gathered is None:
            threading.Event().wait(0.001)
        follower.start()
        while len(room.log._waiting) < 2:
            threading.Event().wait(0.001)
        room.log._crowd = 1

    with signalled(when_gathering), pytest.raises(Interrupted):
        room.log.append(record(1, RecordKind.OUTCOME))
    follower.join(10)
    assert not follower.is_alive()
    assert room.desk.size() == 1


def test_a_crowd_shares_one_commit(patient):
    room = patient
    room.log._crowd, room.log._commit_s = 12, 60.0
    sizes, write = [], room.log._write
    room.log._write = lambda batch: (sizes.append(len(batch)), write(batch))
    callers = [threading.Thread(target=append(room, number)) for number in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sizes == [12]
    assert room.desk.verify().size == 12


def test_a_crowd_that_does_not_come_is_waited_for_once(room):
    room.log._crowd, room.log._commit_s = 1000, 60.0
    room.log.append(record(0, RecordKind.OUTCOME))
    assert room.log._crowd == 1


def tickets(count):
    made = [audit_log._Ticket(audit_log.entries.prepare(record(number), secrets.token_bytes)) for number in range(count)]
    for one, following in pairwise(made):
        one.next = following
    return made


def woken(batch):
    return [ticket.given for ticket in batch]


def test_answers_are_passed_on_past_callers_who_have_gone(room):
    batch = tickets(5)
    room.log._withdraw([batch[1], batch[2]])
    room.log._pass(batch[0])
    assert woken(batch) == [False, False, False, True, False]
    room.log._withdraw([batch[3]])
    assert woken(batch) == [False, False, False, True, True], "who has gone after being woken has woken the next"
    room.log._pass(batch[3])
    room.log._pass(batch[4])


def test_an_error_nobody_foresaw_leaves_no_caller_waiting(room):
    def fail(*_):
        raise ZeroDivisionError

    calls = [append(room, number) for number in range(2)]
    event.listen(Engine, "begin", fail)
    try:
        with pytest.raises(ZeroDivisionError):
            calls[0]()
    finally:
        event.remove(Engine, "begin", fail)
    assert calls[1]().index == 0


def test_a_record_that_somebody_put_in_the_next_place_seals_the_log(room, database):
    fill(room, 3)
    change(
        database,
        (
            "INSERT INTO audit_entries (idx, entry, leaf, at_us, kind) SELECT 3, entry, leaf, at_us, kind FROM audit_entries WHERE idx = 2",
            [],
        ),
    )
    for _ in range(2):
        with pytest.raises(CohortError) as caught:
            room.log.append(record(3))
        assert caught.value.code == "AUDIT_BROKEN"
    assert room.log.trouble.code == "AUDIT_BROKEN"
    answer = room.desk.verify()
    assert (answer.integrity, answer.first_bad) == ("broken", 3)
