"""Loop devices and mounts of Linux, by their system calls: no program is started, so it takes about a millisecond.

A device is bound with AUTOCLEAR while its descriptor is open: the mount keeps it, and when the mount is gone, or the process dies before
there is one, the kernel unbinds it by itself. No stale device can be left behind.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from dataclasses import dataclass

LOOP_CONTROL = "/dev/loop-control"
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A  # Linux 5.8
LOOP_GET_STATUS64 = 0x4C05
LO_FLAGS_AUTOCLEAR = 4
TRIES_MAX = 64
"""How often another process may take the free device first."""
MS_NOSUID, MS_NODEV, MS_NOATIME = 0x2, 0x4, 0x400
MNT_DETACH, UMOUNT_NOFOLLOW = 0x2, 0x8
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IMMUTABLE_FL = 0x10

_INFO = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `device`: as in `st_dev`."""

    point: str
    device: int
    kind: str
    source: str


def bind(image: str) -> int:
    """A descriptor of a loop device over `image`; the device lives until the descriptor and every mount of it are closed.

    Raises:
        OSError: there is no loop driver, no permission, or no device is free.
    """
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _ in range(TRIES_MAX):
            device = _free_device()
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, _configuration(backing, image))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device
    finally:
        os.close(backing)
    raise OSError(errno.EBUSY, f"no loop device was free in {TRIES_MAX} tries")


def _free_device() -> int:
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    return os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)


def _configuration(backing: int, image: str) -> bytes:
    name = os.fsencode(image)[-63:]
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, LO_FLAGS_AUTOCLEAR, name, b"", b"", 0, 0)
    return struct.pack("=II", backing, 4096) + info + bytes(64)


def backing(device: str) -> tuple[int, int] | None:
    """`st_dev` and `st_ino` of the file behind a loop device; None when it is none, or not bound."""
    try:
        opened = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    buffer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(opened, LOOP_GET_STATUS64, buffer)
    except OSError:
        return None
    finally:
        os.close(opened)
    found = _INFO.unpack(bytes(buffer))
    return _standard_device(found[0]), found[1]


def _standard_device(encoded: int) -> int:
    """`st_dev` from the kernel's huge encoding of a device number."""
    major, minor = (encoded >> 8) & 0xFFF, (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00)
    return os.makedev(major, minor)


def mount_ext4(descriptor: int, point: str) -> None:
    """Mount the bound device at `point`: no set-user-id programs, no devices; read-only as soon as it finds an error."""
    source = os.readlink(f"/proc/self/fd/{descriptor}")
    flags = MS_NOSUID | MS_NODEV | MS_NOATIME
    options = b"errors=remount-ro,discard"
    if _libc.mount(os.fsencode(source), os.fsencode(point), b"ext4", ctypes.c_ulong(flags), options) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)


def unmount(point: str) -> None:
    """Unmount; OSError EBUSY when something is open there, EINVAL when nothing is mounted."""
    if _libc.umount2(os.fsencode(point), UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)


def mounts_under(folder: str) -> dict[str, Mount]:
    """What is mounted directly in `folder`, by name; of several mounts on one point the uppermost."""
    found = {}
    for line in _mountinfo().splitlines():
        mount = _parsed(line)
        above, _, name = mount.point.rpartition("/")
        if above == folder:
            found[name] = mount
    return found


def mount_at(point: str) -> Mount | None:
    """What is mounted at `point`, the uppermost; None when nothing is. Does not read the lines of other mounts."""
    text, wanted = _mountinfo(), f" {_escaped(point)} "
    place = text.rfind(wanted)
    while place >= 0:
        start = text.rfind("\n", 0, place) + 1
        mount = _parsed(text[start:].partition("\n")[0])
        if mount.point == point:
            return mount
        place = text.rfind(wanted, 0, start)
    return None


def _mountinfo() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return lines.read()


def _parsed(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    fields, kind, source = before.split(" "), *after.split(" ")[:2]
    major, _, minor = fields[2].partition(":")
    return Mount(_plain(fields[4]), os.makedev(int(major), int(minor)), kind, _plain(source))


_OCTAL = ((" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"), ("\\", "\\134"))


def _plain(text: str) -> str:
    for character, octal in _OCTAL:
        text = text.replace(octal, character)
    return text


def _escaped(text: str) -> str:
    for character, octal in reversed(_OCTAL):
        text = text.replace(character, octal)
    return text


def set_immutable(opened: int, immutable: bool) -> None:
    """Nobody can write, rename, replace or remove an immutable file, whoever owns the directory it is in."""
    flags = struct.unpack("=i", fcntl.ioctl(opened, FS_IOC_GETFLAGS, bytes(4)))[0]
    flags = flags | FS_IMMUTABLE_FL if immutable else flags & ~FS_IMMUTABLE_FL
    fcntl.ioctl(opened, FS_IOC_SETFLAGS, struct.pack("=i", flags))
