"""kill -9 in the middle of appends: everything that was acknowledged is there, and the log is whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import support_audit
from cohort.base.clock import SystemClock
from cohort.kernel.model import RecordKind
from cohort.storage.database import open_database
from support_audit import open_room, record

WRITE_FOR_EVER = r"""
import os, sys, threading
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from cohort.base.clock import SystemClock
from cohort.kernel.model import RecordKind
from cohort.storage.database import open_database
from support_audit import open_room, record

room = open_room(open_database(sys.argv[1]), Path(sys.argv[3]), SystemClock())

def write(caller):
    number = 0
    while True:
        position = room.log.append(record(caller * 1_000_000 + number, RecordKind.OUTCOME, private={"out": "x" * 100}))
        os.write(1, f"{position.index} {position.leaf}\n".encode())
        number += 1

for caller in range(int(sys.argv[4])):
    threading.Thread(target=write, args=(caller,), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.parametrize(("callers", "records"), [(1, 30), (8, 400)])
def test_what_was_acknowledged_before_a_kill_is_in_a_whole_log(url, tmp_path, callers, records):
    command = [sys.executable, "-c", WRITE_FOR_EVER, url, str(Path(support_audit.__file__).parent), str(tmp_path), str(callers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [process.stdout.readline().split() for _ in range(records)]
        process.send_signal(signal.SIGKILL)
        rest = [line.split() for line in process.stdout.read().splitlines()]
    database = open_database(url)
    room = open_room(database, tmp_path, SystemClock())
    for index, leaf in [*acknowledged, *(line for line in rest if len(line) == 2 and len(line[1]) == 64)]:
        assert room.desk.entry(int(index)).leaf == leaf
    answer = room.desk.verify()
    assert (answer.integrity, answer.why) == ("verified", "")
    assert room.log.append(record(1, RecordKind.OUTCOME)).index == answer.size
    database.close()
