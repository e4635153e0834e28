"""kill -9 at any moment: what was committed is there, what was not is not, and the next process goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, inspect, select

from cohort.storage.database import open_database
from cohort.storage.schema import blobs as blob_table
from cohort.storage.schema import facts

OPEN = """
import sys
from sqlalchemy import insert
from cohort.storage import blobs, revisions
from cohort.storage.database import open_database
from cohort.storage.schema import facts
database = open_database(sys.argv[1])

def pair(connection, number):
    connection.execute(insert(facts).values(name=f"first {number}", value=number))
    blobs.put(database, connection, b"%d " % number * 3000)
    connection.execute(insert(facts).values(name=f"second {number}", value=number))
"""
WRITE_FOR_EVER = """
number = 0
while True:
    with database.write() as connection:
        pair(connection, number)
    print(number, flush=True)
    number += 1
"""
STOP_BEFORE_COMMIT = """
with database.write() as connection:
    pair(connection, 0)
    print("written", flush=True)
    sys.stdin.read()
"""
STOP_INSIDE_MIGRATION = """
with database.write() as connection:
    revisions.upgrade(connection)
    print("migrated", flush=True)
    sys.stdin.read()
"""


@contextmanager
def child(script: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `script` on the database, killed with SIGKILL at the end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OPEN + script, url], **pipes) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("commits", [1, 7, 40])
def test_a_process_killed_while_writing_leaves_whole_transactions(database, url, commits):
    with child(WRITE_FOR_EVER, url) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(commits)]
    with database.read() as connection:
        names = set(connection.execute(select(facts.c.name)).scalars())
        objects = connection.execute(select(func.count()).select_from(blob_table)).scalar_one()
    committed = len(names) // 2
    assert names == {f"{half} {number}" for half in ("first", "second") for number in range(committed)}
    assert len(acknowledged) <= committed
    assert objects == committed


def test_a_process_killed_before_its_commit_leaves_nothing_and_no_lock(database, url):
    with child(STOP_BEFORE_COMMIT, url) as process:
        assert process.stdout.readline() == "written\n"
    with database.write() as connection:
        assert connection.execute(select(facts)).all() == []
        connection.execute(facts.insert().values(name="first 0", value=1))
    database.check()


def test_a_process_killed_inside_a_migration_leaves_an_empty_database(empty_url):
    with child(STOP_INSIDE_MIGRATION, empty_url) as process:
        assert process.stdout.readline() == "migrated\n"
    database = open_database(empty_url)
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    assert database.migrate() is True
    database.check()
    database.close()
