"""Reading what is mounted."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from cohort.kernel.workspaces import loop_devices

TMPFS = (b"none", b"tmpfs", ctypes.c_ulong(loop_devices.MS_NOSUID | loop_devices.MS_NODEV), b"size=64k,nr_inodes=8")


def test_the_root_is_mounted() -> None:
    found = loop_devices.mount_at("/")
    assert found is not None
    assert found.device == os.stat("/").st_dev


def test_what_is_not_mounted_is_not_found(tmp_path: Path) -> None:
    assert loop_devices.mount_at(str(tmp_path)) is None
    assert loop_devices.mounts_under(str(tmp_path)) == {}


def test_a_name_with_blanks_and_backslashes_is_found(tmp_path: Path) -> None:
    point = tmp_path / "a b\\040\tc"
    point.mkdir()
    source, kind, flags, options = TMPFS
    if ctypes.CDLL(None).mount(source, os.fsencode(point), kind, flags, options) != 0:
        pytest.skip("this user cannot mount")
    try:
        found = loop_devices.mount_at(str(point))
        assert found is not None
        assert (found.point, found.kind, found.device) == (str(point), "tmpfs", point.stat().st_dev)
        assert loop_devices.mounts_under(str(tmp_path)) == {point.name: found}
    finally:
        loop_devices.unmount(str(point))


def test_what_is_no_loop_device_has_nothing_behind_it() -> None:
    assert loop_devices.backing("/dev/null") is None
    assert loop_devices.backing("/nowhere") is None
