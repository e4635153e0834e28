"""Workspaces as ext4 images on loop devices: bytes and inodes are limited by the file system itself, against everything that writes.

The image is a little larger than the quota. What is over is taken away again at creation, by allocating it (`ballast`), so that what an
empty workspace has free is the quota to the block and to the inode, and what is used is the difference to what is free: disk truth in
one system call. Needs root and the loop driver. A small journal keeps the files over a power cut.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from contextlib import suppress

from cohort.base.errors import CohortError, Retry
from cohort.kernel.workspaces import loop_devices
from cohort.kernel.workspaces.backend import (
    BLOCK_BYTES,
    FILES_DIRECTORY,
    HALF_MADE,
    SPARE,
    Size,
    Used,
    busy,
    furnish,
    hand_over,
    sweep_staging,
    unavailable,
)
from cohort.kernel.workspaces.protected import CLOSED, CONTENTS, HOOKS

BALLAST_DIRECTORY = "ballast"
INODES_OWN = 64
"""More than ext4's own and the layout's; the rest becomes ballast."""
JOURNAL_MB = 4
GROUP_BLOCKS = 32768
MKFS_WAIT_S = 60.0
ADJUST_TRIES_MAX = 16
READY = ".img"


def image_bytes(size: Size) -> int:
    """Large enough for the quota and everything ext4 keeps for itself."""
    blocks = size.bytes_max // BLOCK_BYTES
    groups = blocks // GROUP_BLOCKS + 2
    inodes = size.files_max + INODES_OWN + 16 * groups
    reserved = min(blocks // 48 + 1, 4096)  # what ext4 keeps back for its own records: a fiftieth, 4,096 clusters at most
    return (blocks + reserved + inodes // 16 + 40 * groups + (JOURNAL_MB << 8) + 256) * BLOCK_BYTES


class ImageBackend:
    """`images`: a directory of ours alone. `mounts`: a directory that the agents' users can pass through, on no network file system."""

    name = "image"
    hard = True
    read_only = (HOOKS,)

    def __init__(self, images: str, mounts: str) -> None:
        self._images = os.path.realpath(images)
        self._mounts = os.path.realpath(mounts)
        os.makedirs(self._images, 0o700, exist_ok=True)
        os.makedirs(self._mounts, 0o711, exist_ok=True)
        self._verified: dict[str, tuple[int, int, int]] = {}
        self._swept: set[str] = set()  # of what another process may have left; our own writes are not to be swept away
        self._lock = threading.Lock()

    def make(self, directory: str, size: Size) -> None:
        image = self._image(directory, HALF_MADE)
        try:
            with open(image, "xb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.truncate(image_bytes(size))
            _make_file_system(image, size)
            self._mount(directory, image)
            _furnish(self._point(directory), size)
            os.rename(image, self._image(directory, SPARE))  # from here on it exists
        except OSError as error:
            with suppress(CohortError):
                self.remove(directory)
            raise _failed(directory, error) from error

    def assign(self, directory: str, uid: int | None) -> None:
        try:
            if not self._mounted(directory):
                self._mount(directory, self._image(directory, SPARE))
            if uid is not None:
                hand_over(self._point(directory), uid)
            with suppress(FileNotFoundError):  # it is assigned already
                os.rename(self._image(directory, SPARE), self._image(directory))
        except OSError as error:
            raise _failed(directory, error) from error

    def release(self, directory: str) -> None:
        try:
            with suppress(FileNotFoundError):  # it is spare already
                os.rename(self._image(directory), self._image(directory, SPARE))
        except OSError as error:
            raise _failed(directory, error) from error

    def made(self, directory: str) -> bool:
        return any(os.path.exists(self._image(directory, end)) for end in (READY, SPARE))

    def attach(self, directory: str, size: Size) -> str:
        image = self._image(directory, SPARE if os.path.exists(self._image(directory, SPARE)) else READY)
        with self._lock:
            try:
                if not self._mounted(directory):
                    self._mount(directory, image)
                if directory not in self._swept:
                    sweep_staging(self._point(directory))
                    self._swept.add(directory)
                self._verified[directory] = self._verify(directory, image, size)
            except OSError as error:
                raise _failed(directory, error) from error
        return os.path.join(self._point(directory), FILES_DIRECTORY)

    def check(self, directory: str) -> None:
        known = self._verified.get(directory)
        if known is None or known != _identity(self._point(directory)):
            self._verified.pop(directory, None)
            raise unavailable(directory, "its mount is not the one expected", "Start control again; it mounts its images.")

    def free(self, directory: str, size: Size) -> Used:  # noqa: ARG002  the file system knows
        try:
            found = os.statvfs(self._point(directory))
        except OSError as error:
            raise _failed(directory, error) from error
        return Used(found.f_bavail * found.f_frsize, found.f_favail)

    room = free

    def spent(self, directory: str, change: Used | None) -> None:
        """Nothing to note: the file system knows."""

    def detach(self, directory: str) -> None:
        self._verified.pop(directory, None)
        point = self._point(directory)
        try:
            while self._mounted(directory):  # also what somebody has mounted over it, or it over something
                loop_devices.unmount(point)
        except OSError as error:
            raise (busy(directory) if error.errno == errno.EBUSY else _failed(directory, error)) from error
        with suppress(OSError):  # gone already, or somebody put something there, which is not ours to delete
            os.rmdir(point)

    def remove(self, directory: str) -> None:
        self.detach(directory)
        self._swept.discard(directory)
        for end in (READY, SPARE, HALF_MADE):
            with suppress(FileNotFoundError):
                os.unlink(self._image(directory, end))

    def spares(self) -> set[str]:
        images = {os.path.splitext(name) for name in os.listdir(self._images)}
        points = set(os.listdir(self._mounts)) - {name for name, _ in images}
        return points | {name for name, end in images if end in (SPARE, HALF_MADE)}

    def _image(self, directory: str, end: str = READY) -> str:
        return os.path.join(self._images, directory + end)

    def _point(self, directory: str) -> str:
        return os.path.join(self._mounts, directory)

    def _mounted(self, directory: str) -> bool:
        """Whether anything is; `_verify` says what."""
        try:
            return os.stat(self._point(directory)).st_dev != os.stat(self._mounts).st_dev
        except FileNotFoundError:
            return False

    def _mount(self, directory: str, image: str) -> None:
        os.makedirs(self._point(directory), 0o711, exist_ok=True)
        device = loop_devices.bind(image)
        try:
            loop_devices.mount_ext4(device, self._point(directory))
        finally:
            os.close(device)

    def _verify(self, directory: str, image: str, size: Size) -> tuple[int, int, int]:
        """That what is mounted is our image with this quota and nothing else; what `check` then compares."""
        mount = loop_devices.mount_at(self._point(directory))
        file = os.stat(image)
        why = None
        if mount is None or os.stat(self._point(directory)).st_dev in (os.stat(self._mounts).st_dev, file.st_dev):
            why = "nothing is mounted there"
        elif mount.kind != "ext4" or loop_devices.backing(mount.source) != (file.st_dev, file.st_ino):
            why = f"{mount.source} ({mount.kind}) is mounted there, not its image"
        elif file.st_size != image_bytes(size):
            why = f"its image has {file.st_size} bytes, not {image_bytes(size)}"
        else:
            free = self.free(directory, size)
            if free.bytes > size.bytes_max or free.files > size.files_max:
                why = f"it has {free.bytes} bytes and {free.files} files free, more than its quota"
        if why is not None:
            raise unavailable(directory, why, "Unmount what is there by hand and start control again.")
        return _identity(self._point(directory))


def available(images: str, mounts: str) -> str | None:
    """None when images can be made and mounted here, tried with a small one; why not otherwise."""
    backend = ImageBackend(images, mounts)
    probe = f"probe-{os.getpid()}"
    try:
        backend.make(probe, Size(1 << 20, 16))
        backend.remove(probe)
    except CohortError as error:
        with suppress(CohortError):
            backend.remove(probe)
        return error.message
    return None


def _identity(point: str) -> tuple[int, int, int]:
    try:
        found = os.statvfs(point)
        return os.stat(point).st_dev, found.f_blocks, found.f_files
    except OSError as error:
        raise _failed(os.path.basename(point), error) from error


def _make_file_system(image: str, size: Size) -> None:
    inodes = size.files_max + INODES_OWN
    features = ["-O", "^resize_inode", "-J", f"size={JOURNAL_MB}", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK_BYTES), "-N", str(inodes), *features, image]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=MKFS_WAIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"mkfs.ext4 took more than {MKFS_WAIT_S:.0f} s") from error
    if done.returncode != 0:
        raise OSError(errno.EIO, f"mkfs.ext4: {done.stderr.decode(errors='replace').strip()[:500]}")


def _furnish(point: str, size: Size) -> None:
    os.rmdir(os.path.join(point, "lost+found"))
    furnish(point)
    for name in (*CONTENTS, *CLOSED):
        opened = os.open(os.path.join(point, FILES_DIRECTORY, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            loop_devices.set_immutable(opened, True)
        finally:
            os.close(opened)
    ballast = os.path.join(point, BALLAST_DIRECTORY)
    os.mkdir(ballast, 0o700)
    blocks = os.open(os.path.join(ballast, "blocks"), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        for number in range(os.statvfs(point).f_ffree - size.files_max):
            os.close(os.open(os.path.join(ballast, str(number)), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _take_surplus(point, blocks, size)
    finally:
        os.close(blocks)


def _take_surplus(point: str, ballast: int, size: Size) -> None:
    """Allocate until exactly the quota is free."""
    taken = 0
    for _ in range(ADJUST_TRIES_MAX):
        found = os.statvfs(point)
        surplus = found.f_bavail * found.f_frsize - size.bytes_max
        if surplus == 0 and found.f_favail == size.files_max:
            return
        taken += surplus
        if taken < 0:
            break
        if surplus > 0:
            os.posix_fallocate(ballast, taken - surplus, surplus)
        else:
            os.ftruncate(ballast, taken)
    raise OSError(errno.ENOSPC, f"the image has no room for {size.bytes_max} bytes and {size.files_max} files")


def _failed(directory: str, error: OSError) -> CohortError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"no room on the host for the workspace {directory}: {error}"
        return CohortError("DISK_FULL", message, retry=Retry.SAFE, hint="Free disk space.")
    return unavailable(directory, error, "See docs/reference/workspaces.md for what images need.")
