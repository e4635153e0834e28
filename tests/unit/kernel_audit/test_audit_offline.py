"""A log whose product is not running is read, and nothing of it is written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.audit.keys import read_keys
from cohort.kernel.audit.offline import open_audit_offline
from cohort.kernel.face import AuditQuery
from cohort.storage.database import open_database
from support_audit import fill, open_room


def fingerprint(folder: Path):
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in folder.glob("cohort.db*")}


@pytest.fixture
def closed_url(migrated_sqlite_url, tmp_path):
    database = open_database(migrated_sqlite_url)
    fill(open_room(database, tmp_path), 300)
    database.close()
    return migrated_sqlite_url


def key(tmp_path):
    return read_keys(tmp_path / "audit.key").ring


def test_a_stopped_log_is_verified_searched_proven_and_exported_untouched(closed_url, tmp_path):
    before = fingerprint(tmp_path)
    assert list(before) == ["cohort.db"]
    (tmp_path / "cohort.db").chmod(0o400)
    with open_audit_offline(closed_url, SystemClock(), key(tmp_path), anchors=[f"file:{tmp_path}/anchor"]) as desk:
        answer = desk.verify()
        assert (answer.integrity, answer.size) == ("verified", 300)
        assert desk.verify(full=False).integrity == "verified"
        assert len(desk.search(AuditQuery(text="number 7"))) == 11
        assert desk.prove(7).index == 7
        assert desk.export(str(tmp_path / "out"))["size"] == 300
        assert desk.anchor() == []
        with pytest.raises(CohortError) as caught:
            desk.note("x", "ada")
        assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert fingerprint(tmp_path) == before


def test_a_log_that_was_not_closed_is_read_with_its_write_ahead_log(migrated_sqlite_url, tmp_path):
    database = open_database(migrated_sqlite_url)
    fill(open_room(database, tmp_path), 40)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("cohort.db*"):
        if not path.name.endswith("-shm"):
            (copy / path.name).write_bytes(path.read_bytes())
    database.close()
    before = fingerprint(copy)
    with open_audit_offline(f"sqlite:///{copy}/cohort.db", SystemClock(), key(tmp_path)) as desk:
        assert (desk.verify().integrity, desk.size()) == ("verified", 40)
    after = fingerprint(copy)
    assert {name: after[name] for name in ("cohort.db", "cohort.db-wal")} == {name: before[name] for name in ("cohort.db", "cohort.db-wal")}


def test_without_the_key_no_log_is_whole(closed_url):
    with open_audit_offline(closed_url, SystemClock(), None) as desk:
        answer = desk.verify()
    assert (answer.integrity, answer.first_bad) == ("broken", None)
    assert "key is missing" in answer.why


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def test_a_truncated_file_is_broken_and_never_verified(closed_url, tmp_path):
    cut(tmp_path / "cohort.db")
    with open_audit_offline(closed_url, SystemClock(), key(tmp_path)) as desk:
        for full in (True, False):
            answer = desk.verify(full=full)
            assert (answer.integrity, answer.complete) == ("broken", False)
            assert "is damaged" in answer.why


def test_control_starts_on_a_truncated_log_and_says_so(closed_url, tmp_path):
    cut(tmp_path / "cohort.db")
    database = open_database(closed_url)
    room = open_room(database, tmp_path)
    assert room.log.trouble.code == "AUDIT_BROKEN"
    assert "is damaged" in room.desk.trouble[0]
    assert room.start() == 0
    room.stop()
    database.close()


@pytest.mark.parametrize(
    ("url", "code"), [("sqlite:////nowhere/audit.db", "NOT_FOUND"), ("::", "CONFIG_INVALID"), ("mysql://x/y", "CONFIG_INVALID")]
)
def test_what_is_no_log_is_said_to_be_none(url, code):
    with pytest.raises(CohortError) as caught, open_audit_offline(url, SystemClock(), None):
        pass
    assert caught.value.code == code


def test_a_postgres_log_is_read_in_transactions_that_cannot_write(postgres_url, tmp_path):
    database = open_database(postgres_url)
    fill(open_room(database, tmp_path), 5)
    database.close()
    with open_audit_offline(postgres_url, SystemClock(), key(tmp_path)) as desk:
        assert (desk.verify().integrity, desk.size()) == ("verified", 5)
