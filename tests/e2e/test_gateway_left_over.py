"""`cohort up` with fewer workers than there were: their records are taken, and what cannot be read is in `cohort status`."""

from __future__ import annotations

import io
from pathlib import Path

from cohort.base.clock import SystemClock
from cohort.gateway.contract import Call, encode_call
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.spool import Spool
from support_home import home_in
from support_processes import until


def leave(directory: Path, name: str, records: int) -> None:
    """What a worker of that name would have left."""
    clock = SystemClock()
    spool = Spool(directory, name, clock.now_us(), Limits(), clock, Log(name, clock, io.StringIO()))
    spool.open()
    for seq in range(records):
        spool.append(encode_call(Call("call", name, 1, seq, clock.now_us(), "support", "rel_a", f"unit {seq}")))
    spool.close()


def test_spools_of_workers_that_are_no_more_are_taken_or_named(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    gateway = home.folder / ".cohort" / "gateway"
    for number, records in ((2, 7), (3, 5)):
        leave(gateway / str(number) / "spool", f"gw-{number}", records)
    (gateway / "5").mkdir()
    (gateway / "5" / "spool").write_text("not a folder")

    def outcomes() -> str:
        parts = {part["name"]: part for part in home.ask("status", code=3)["parts"]}
        assert parts["control"]["ready"] == 200, "control serves all the same"
        return str(next(words for words in parts["control"]["says"] if words.startswith("outcomes: ")))

    try:
        home.run("init")
        home.ask("up", "--detach")
        said = until(lambda: (now := outcomes()).startswith("outcomes: 12 taken, 0 bytes wait") and now)
        assert f"{gateway / '5' / 'spool'} cannot be read: Not a directory" in said
    finally:
        home.run("down")
