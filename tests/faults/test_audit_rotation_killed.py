"""kill -9 before every step to the disk of a change of keys: it has happened or it has not, and the log goes on whole."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from cohort.base.clock import SystemClock
from cohort.kernel.model import RecordKind
from cohort.storage.database import open_database
from support_audit import fill, open_room, record

TO_THE_DISK = {"fsync", "replace", "rename", "unlink", "execute", "executemany", "commit", "write"}
STEPS_MAX = 200
RECORDS = 5


def room_in(folder: Path) -> Any:
    return open_room(open_database(f"sqlite:///{folder / 'audit.db'}"), folder, SystemClock())


def prepared(folder: Path, verb: str) -> Path:
    """A closed log in a folder, one step before `verb`."""
    folder.mkdir()
    database = open_database(f"sqlite:///{folder / 'audit.db'}")
    database.migrate()
    room = open_room(database, folder, SystemClock())
    fill(room, RECORDS)
    if verb == "retire":
        room.desk.rotate_key("ana")
    room.stop()
    database.close()
    return folder


def change(room: Any, verb: str) -> None:
    room.desk.rotate_key("ana") if verb == "rotate" else room.desk.retire_key(None, "ana")


def killed_before(step: int, folder: Path, verb: str) -> bool:
    """Change the keys in a process that dies before its `step`-th call that goes to the disk; False when it ended before."""
    child = os.fork()
    if child == 0:
        left = step
        room = room_in(folder)

        def count(_frame: Any, event: str, called: Any) -> None:
            nonlocal left
            if event == "c_call" and getattr(called, "__name__", "") in TO_THE_DISK:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(count)
            change(room, verb)
            sys.setprofile(None)
        except BaseException:
            os._exit(7)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize("verb", ["rotate", "retire"])
def test_a_change_of_keys_has_happened_or_not_wherever_it_is_killed(tmp_path, verb):
    template, outcomes = prepared(tmp_path / "template", verb), []
    before = 2 if verb == "retire" else 1
    for step in range(1, STEPS_MAX):
        folder = shutil.copytree(template, tmp_path / f"step-{step}")
        if not killed_before(step, folder, verb):
            break
        room = room_in(folder)
        assert room.log.trouble is None, f"killed before step {step}"
        active, size = sum(key.active for key in room.desk.signing_keys()), room.desk.size()
        recorded = size > RECORDS + before - 1
        assert active == (before if not recorded else 3 - before), f"killed before step {step}"
        assert room.log.append(record(9, RecordKind.OUTCOME)).index == size
        assert room.desk.verify().integrity == "verified", f"killed before step {step}"
        assert room_in(folder).desk.verify().integrity == "verified"
        assert not (folder / "audit.key").read_text().count("ing "), "no mark is left"
        assert not (folder / "audit.key.new").exists(), "nor a secret"
        if not recorded:
            change(room, verb)
        outcomes.append(recorded)
    assert outcomes == sorted(outcomes), "once it has happened it has happened"
    assert {*outcomes} == {False, True}
    assert len(outcomes) > 10
