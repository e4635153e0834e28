"""What another process removes, or a folder that cannot be read, does not end the gateway."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.gateway.cache.erasing import Erased
from cohort.gateway.log import Log
from cohort.gateway.settings import Limits
from cohort.gateway.telemetry.contents import Contents

UNIT = "a" * 32


def _contents(folder: Path, clock: ManualClock, lines: io.StringIO) -> Contents:
    return Contents(folder, 1, Limits(), clock, Log("gw", clock, lines), Erased(clock), lambda _: False)


def test_a_sample_that_goes_while_the_folder_is_read_is_not_there(tmp_path: Path, clock: ManualClock) -> None:
    """A worker that drains removes what is old while its successor begins; a name that leads nowhere stands for it."""
    (tmp_path / f"1-1-stable.{UNIT}").symlink_to(tmp_path / "gone")
    (tmp_path / f"1-2-stable.{UNIT}").write_bytes(b'{"asked":[]}')
    contents = _contents(tmp_path, clock, io.StringIO())
    contents.sweep()
    assert (contents.get(1, 1, "stable"), contents.get(1, 2, "stable")) == (None, {"asked": []})


def test_a_folder_that_cannot_be_read_is_said_and_no_erasure_passes_for_done(tmp_path: Path, clock: ManualClock) -> None:
    folder, lines = tmp_path / "contents", io.StringIO()
    folder.write_bytes(b"not a folder")
    contents = _contents(folder, clock, lines)
    contents.sweep()
    assert "content_not_deleted" in lines.getvalue()
    with pytest.raises(CohortError) as caught:
        contents.erase(UNIT)
    assert caught.value.code == "CACHE_NOT_ERASED"
