"""What every kind of workspace promises, on images and on directories, through openat2 and through the walk."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.model import Limits, Place
from cohort.kernel.workspaces import loop_devices
from cohort.kernel.workspaces.backend_image import ImageBackend, available
from cohort.kernel.workspaces.beneath import OpenAt2, Opener, Walk, best_opener
from cohort.kernel.workspaces.files import How
from cohort.kernel.workspaces.protected import DIRECTORIES, FILES, PLACEHOLDERS
from cohort.storage.database import Database
from support_workspaces import SMALL, Room, unmounted_after, why_no_images

CEILING_BYTES = 64 << 20
FILES_CEILING = 1000
DESCRIPTION_BYTES = 2 * 4096
"""What a file system may need to say where the parts of a large file are; it is part of what is used."""
"""What a flood may write at most, if the quota that it tests did not hold."""


def code_of(raised: pytest.ExceptionInfo[CohortError]) -> str:
    return raised.value.code


def tried(room: Room, place: Place, path: str, data: bytes) -> bool:
    """Write; False when the quota refused it."""
    try:
        room.files.write(place, path, data)
    except CohortError as error:
        if error.code != "QUOTA_EXCEEDED":
            raise
        return False
    return True


def fill(path: str) -> int:
    """Write into one file until the disk is full; how many bytes went in."""
    written = 0
    with open(path, "wb", buffering=0) as file:
        while written < CEILING_BYTES:
            try:
                written += file.write(b"x" * 65536)
            except OSError as error:
                return written if error.errno == errno.ENOSPC else -1
    return written


def touch_all(folder: str) -> int:
    """Make empty files until there are no inodes; how many were made."""
    for number in range(FILES_CEILING):
        try:
            Path(folder, f"inode-{number}").touch()
        except OSError as error:
            return number if error.errno == errno.ENOSPC else -1
    return FILES_CEILING


@pytest.fixture(params=["image", "directory"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "image" and (why := why_no_images()) is not None:
        pytest.skip(f"no image workspaces here: {why}")
    return str(request.param)


@pytest.fixture(params=["openat2", "walk"])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "openat2" and best_opener().name != "openat2":
        pytest.skip("this kernel, or a filter on it, has no openat2")
    return OpenAt2() if request.param == "openat2" else Walk()


@pytest.fixture
def room(tmp_path: Path, sqlite_database: Database, kind: str, opener: Opener) -> Iterator[Room]:
    with unmounted_after(tmp_path):
        room = Room(tmp_path, sqlite_database, kind, opener, private_uids=os.geteuid() == 0)
        yield room
        room.workspaces.stop()


@pytest.fixture
def place(room: Room) -> Place:
    return room.place()


class TestQuota:
    def test_an_empty_workspace_uses_nothing_and_has_its_whole_quota(self, room: Room, place: Place) -> None:
        usage = room.workspaces.usage(place.workspace)
        assert (usage.bytes_used, usage.files_used) == (0, 0)
        assert (usage.bytes_max, usage.files_max) == (SMALL.disk_bytes, SMALL.files)
        assert usage.hard is place.hard_quota

    def test_usage_is_exact(self, room: Room, place: Place) -> None:
        room.files.mkdir(place, "src")
        room.files.write(place, "src/a.txt", b"x" * 5000)
        usage = room.workspaces.usage(place.workspace)
        assert (usage.bytes_used, usage.files_used) == (4096 + 8192, 2)
        room.files.write(place, "src/a.txt", b"x" * 100)
        room.files.write(place, "src/a.txt", b"y" * 100, How.APPEND)
        assert room.workspaces.usage(place.workspace).bytes_used == 4096 + 4096
        room.files.delete(place, "src", recursive=True)
        assert room.workspaces.usage(place.workspace).bytes_used == 0
        assert room.workspaces.usage(place.workspace).files_used == 0

    def test_bytes_hold_under_50_concurrent_writers(self, room: Room, place: Place) -> None:
        refused, written = self.flood(room, place, b"x" * (256 << 10), count=4)
        usage = room.workspaces.usage(place.workspace)
        assert usage.bytes_used <= usage.bytes_max
        assert refused + written == 200
        assert refused > 0
        assert written >= 12  # the quota was used, not only kept

    def test_files_hold_under_50_concurrent_writers(self, room: Room, place: Place) -> None:
        refused, written = self.flood(room, place, b"x", count=4)
        assert room.workspaces.usage(place.workspace).files_used == SMALL.files == written
        assert refused == 100

    def flood(self, room: Room, place: Place, data: bytes, count: int) -> tuple[int, int]:
        """50 threads write `count` files each; how many writes were refused, how many done."""
        assert 50 * count * max(len(data), 4096) <= CEILING_BYTES
        refused, written = [], []

        def write(number: int) -> None:
            for turn in range(count):
                (written if tried(room, place, f"{number}-{turn}", data) else refused).append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(refused), len(written)

    def test_overwriting_is_not_charged_twice(self, room: Room, place: Place) -> None:
        for _ in range(20):
            room.files.write(place, "same", b"x" * (1 << 20))
        assert (1 << 20) <= room.workspaces.usage(place.workspace).bytes_used <= (1 << 20) + DESCRIPTION_BYTES

    def test_a_refused_write_leaves_what_was_there(self, room: Room, place: Place) -> None:
        room.files.write(place, "kept", b"before")
        with pytest.raises(CohortError) as raised:
            room.files.write(place, "kept", b"x" * (5 << 20))
        assert code_of(raised) == "QUOTA_EXCEEDED"
        with pytest.raises(CohortError):
            room.files.write(place, "kept", b"x" * (5 << 20), How.APPEND)
        assert room.files.read(place, "kept").data == b"before"

    def test_the_quota_and_the_files_outlive_a_restart(
        self, room: Room, place: Place, tmp_path: Path, sqlite_database: Database, kind: str, opener: Opener
    ) -> None:
        room.files.write(place, "kept", b"x" * (3 << 20))
        room.workspaces.stop()
        again = Room(tmp_path, sqlite_database, kind, opener, private_uids=os.geteuid() == 0)
        found = again.workspaces.place(place.workspace)
        assert found == place
        assert (3 << 20) <= again.workspaces.usage(place.workspace).bytes_used <= (3 << 20) + DESCRIPTION_BYTES
        with pytest.raises(CohortError) as raised:
            again.files.write(found, "more", b"x" * (2 << 20))
        assert code_of(raised) == "QUOTA_EXCEEDED"
        again.workspaces.stop()

    def test_an_image_stops_what_writes_past_the_file_api(self, room: Room, place: Place, kind: str) -> None:
        if kind != "image":
            pytest.skip("the quota of a directory is soft: this is what soft means")
        assert os.stat(place.root).st_dev != os.stat(os.path.dirname(os.path.dirname(os.path.dirname(place.root)))).st_dev
        assert 0 < fill(f"{place.root}/flood") <= SMALL.disk_bytes
        os.unlink(f"{place.root}/flood")
        assert touch_all(place.root) == SMALL.files

    @pytest.mark.parametrize("limits", [Limits(disk_bytes=0), Limits(disk_bytes=1 << 50), Limits(files=1), Limits(files=1 << 40)])
    def test_limits_that_no_workspace_can_have_are_refused(self, room: Room, limits: Limits) -> None:
        with pytest.raises(CohortError) as raised:
            room.place("odd", limits)
        assert code_of(raised) == "FIELD_INVALID"
        assert room.workspaces.listed(("creating", "ready", "removing")) == []


class TestWorkspaces:
    def test_each_agent_has_a_place_of_its_own(self, room: Room, place: Place) -> None:
        other = room.place("smoke-2")
        room.files.write(place, "mine", b"1")
        assert other.root != place.root
        assert room.files.list(other).entries == ()
        assert room.workspaces.owner(place.workspace) == "ag_smoke-1"
        if os.geteuid() == 0:
            assert other.uid == place.uid + 1 == os.stat(other.root).st_uid

    def test_a_second_request_for_the_same_agent_gets_the_same_one(self, room: Room, place: Place) -> None:
        assert room.place("smoke-1") == place
        assert room.audit.events() == ["created"]

    def test_an_unknown_one_is_an_error(self, room: Room) -> None:
        with pytest.raises(CohortError) as raised:
            room.workspaces.place("ws_nobody")
        assert code_of(raised) == "WORKSPACE_UNKNOWN"

    def test_what_is_not_recorded_is_not_made(self, room: Room) -> None:
        room.audit.failure = CohortError("AUDIT_UNAVAILABLE", "the log is full")
        with pytest.raises(CohortError) as raised:
            room.place()
        assert code_of(raised) == "AUDIT_UNAVAILABLE"
        assert room.workspaces.listed(("creating", "ready", "removing")) == []
        assert room.backend.spares() == set()
        room.audit.failure = None
        assert room.files.list(room.place()).entries == ()

    def test_a_removed_one_is_gone_from_the_disk(self, room: Room, place: Place, tmp_path: Path) -> None:
        room.files.write(place, "deep", b"x")
        room.workspaces.remove(place.workspace, "ann", "done with it")
        assert not os.path.exists(place.root)
        assert room.audit.events() == ["created", "removed"]
        with pytest.raises(CohortError) as raised:
            room.workspaces.place(place.workspace)
        assert code_of(raised) == "WORKSPACE_UNKNOWN"
        assert list(tmp_path.glob("images/*")) == list(tmp_path.glob("workspaces/*")) == list(tmp_path.glob("mounts/*")) == []

    def test_its_quota_can_be_changed(self, room: Room, place: Place, tmp_path: Path) -> None:
        room.files.mkdir(place, "a", parents=True)
        room.files.write(place, "a/b", b"x" * (1 << 20), mode=0o755)
        os.link(f"{place.root}/a/b", f"{place.root}/c")
        os.symlink("a/b", f"{place.root}/d")
        os.mkfifo(f"{place.root}/e")
        os.utime(f"{place.root}/a", ns=(1, 2))
        usage = room.workspaces.resize(place.workspace, Limits(disk_bytes=16 << 20, files=500), "ann")
        assert (usage.bytes_max, usage.files_max, usage.files_used) == (16 << 20, 500, 4)
        assert (1 << 20) + 4096 <= usage.bytes_used <= (1 << 20) + 4096 + DESCRIPTION_BYTES
        found = room.workspaces.place(place.workspace)
        status = os.stat(f"{found.root}/a/b")
        assert (status.st_mode & 0o777, status.st_uid, status.st_nlink) == (0o755, place.uid, 2)
        assert os.readlink(f"{found.root}/d") == "a/b"
        assert os.stat(f"{found.root}/a").st_mtime_ns == 2
        room.files.write(found, "large", b"x" * (12 << 20))
        assert len([*tmp_path.glob("images/*"), *tmp_path.glob("workspaces/*")]) == 1
        with pytest.raises(CohortError) as raised:
            room.workspaces.resize(place.workspace, SMALL, "ann")
        assert code_of(raised) == "QUOTA_EXCEEDED"
        room.files.delete(found, "large")
        assert room.workspaces.resize(place.workspace, SMALL, "ann").bytes_max == SMALL.disk_bytes
        assert room.audit.events() == ["created", "resized", "resized"]

    def test_a_quota_that_cannot_be_recorded_is_not_changed(self, room: Room, place: Place, tmp_path: Path) -> None:
        room.audit.failure = CohortError("AUDIT_UNAVAILABLE", "the log is full")
        with pytest.raises(CohortError) as raised:
            room.workspaces.resize(place.workspace, Limits(disk_bytes=16 << 20), "ann")
        assert code_of(raised) == "AUDIT_UNAVAILABLE"
        assert room.workspaces.place(place.workspace) == place
        assert room.workspaces.usage(place.workspace).bytes_max == SMALL.disk_bytes
        assert len([*tmp_path.glob("images/*"), *tmp_path.glob("workspaces/*")]) == 1

    def test_a_busy_one_is_not_removed(self, room: Room, place: Place) -> None:
        room.busy.add(place.workspace)
        for act in (
            lambda: room.workspaces.remove(place.workspace, "ann", ""),
            lambda: room.workspaces.resize(place.workspace, Limits(), "ann"),
        ):
            with pytest.raises(CohortError) as raised:
                act()
            assert code_of(raised) == "WORKSPACE_BUSY"
        assert room.audit.events() == ["created"]

    def test_nobody_gets_its_place_while_somebody_has_it_alone(self, room: Room, place: Place) -> None:
        got: list[Place] = []
        waiting = threading.Thread(target=lambda: got.append(room.workspaces.place(place.workspace)))
        with room.workspaces.alone(place.workspace):
            assert room.workspaces.place(place.workspace) == place
            waiting.start()
            waiting.join(0.1)
            assert got == []
        waiting.join()
        assert got == [place]

    def test_what_is_kept_ready_in_it_is_closed_before_it_vanishes(self, room: Room, place: Place) -> None:
        room.workspaces.resize(place.workspace, Limits(disk_bytes=8 << 20), "ann")
        now = room.workspaces.place(place.workspace)
        room.workspaces.remove(place.workspace, "ann", "")
        assert room.closed == ([place, now] if place.hard_quota else [now])

    def test_one_whose_directory_was_exchanged_is_not_handed_out(self, room: Room, place: Place, kind: str) -> None:
        if kind == "image":
            base = os.path.dirname(place.root)
            loop_devices.unmount(base)
            os.mkdir(place.root)  # what a failed mount looks like: a directory on the disk of the host
            other = room.backend.attach  # attaching again mounts over it and verifies
            assert other is not None
            assert os.stat(room.workspaces.place(place.workspace).root).st_dev != os.stat(os.path.dirname(base)).st_dev
        else:
            os.rename(place.root, f"{place.root}.old")
            with pytest.raises(CohortError) as raised:
                room.workspaces.place(place.workspace)
            assert code_of(raised) == "WORKSPACE_UNAVAILABLE"


class TestFiles:
    def test_what_is_written_is_read(self, room: Room, place: Place) -> None:
        written = room.files.write(place, "a.txt", b"hello", How.CREATE, mode=0o600)
        assert (written.created, written.size) == (True, 5)
        piece = room.files.read(place, "a.txt", offset=1, limit=3)
        assert (piece.data, piece.size, piece.more) == (b"ell", 5, True)
        entry = room.files.stat(place, "./a.txt")
        assert (entry.path, entry.kind, entry.size, entry.mode) == ("a.txt", "file", 5, 0o600)
        assert not room.files.write(place, "a.txt", b" again", How.APPEND).created
        assert room.files.read(place, "a.txt").data == b"hello again"
        room.files.write(place, "a.txt", b"new")
        assert room.files.stat(place, "a.txt").mode == 0o600
        assert os.stat(f"{place.root}/a.txt").st_uid == place.uid

    def test_create_does_not_replace(self, room: Room, place: Place) -> None:
        room.files.write(place, "a", b"1")
        with pytest.raises(CohortError) as raised:
            room.files.write(place, "a", b"2", How.CREATE)
        assert code_of(raised) == "PATH_EXISTS"

    def test_a_listing_has_pages_and_no_placeholders(self, room: Room, place: Place) -> None:
        for name in "cab":
            room.files.write(place, name, b"")
        first = room.files.list(place, limit=2)
        assert [entry.path for entry in first.entries] == ["a", "b"]
        rest = room.files.list(place, after=first.after, limit=2)
        assert [entry.path for entry in rest.entries] == ["c"]
        assert rest.after is None

    def test_directories_are_made_moved_and_deleted(self, room: Room, place: Place) -> None:
        room.files.mkdir(place, "a/b/c", parents=True)
        room.files.mkdir(place, "a/b/c", parents=True)
        room.files.write(place, "a/b/c/x", b"1")
        with pytest.raises(CohortError) as raised:
            room.files.delete(place, "a")
        assert code_of(raised) == "PATH_EXISTS"
        assert room.files.move(place, "a/b", "d").path == "d"
        assert room.files.read(place, "d/c/x").data == b"1"
        assert room.files.delete(place, "d", recursive=True) == 3
        assert room.files.delete(place, "a") == 1
        assert os.listdir(os.path.join(os.path.dirname(place.root), "staging")) == []

    def test_a_move_never_replaces(self, room: Room, place: Place) -> None:
        room.files.write(place, "a", b"1")
        room.files.write(place, "b", b"2")
        with pytest.raises(CohortError) as raised:
            room.files.move(place, "a", "b")
        assert (code_of(raised), raised.value.field) == ("PATH_EXISTS", "to")
        assert room.files.read(place, "b").data == b"2"

    def test_a_deep_tree_is_deleted_without_recursion(self, room: Room, place: Place) -> None:
        above = os.open(place.root, os.O_RDONLY)
        for _ in range(90):  # deeper than a path may be, as a command in a sandbox could make it
            os.mkdir("d" * 200, dir_fd=above)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=above)
            os.close(above)
            above = below
        os.close(above)
        room.files.delete(place, "d" * 200, recursive=True)
        assert room.workspaces.usage(place.workspace).files_used == 0

    def test_links_are_refused_wherever_they_lead(self, room: Room, place: Place) -> None:
        room.files.mkdir(place, "inside")
        room.files.write(place, "inside/a", b"1")
        for name, target in {"out": "/etc", "in": "inside", "file": "inside/a", "loop": "loop"}.items():
            os.symlink(target, f"{place.root}/{name}")
        for path in ("out/passwd", "in/a", "file", "loop", "loop/x"):
            for act in (
                lambda path: room.files.read(place, path),
                lambda path: room.files.write(place, path, b"x"),
                lambda path: room.files.write(place, path, b"x", How.APPEND),
                lambda path: room.files.list(place, path),
            ):
                with pytest.raises(CohortError) as raised:
                    act(path)
                assert code_of(raised) == "PATH_ESCAPES", path
        assert room.files.stat(place, "out").kind == "link"
        room.files.delete(place, "out")
        assert os.path.exists("/etc/passwd")

    def test_what_is_no_regular_file_is_refused_at_once(self, room: Room, place: Place) -> None:
        os.mkfifo(f"{place.root}/fifo")
        for act in (
            lambda: room.files.read(place, "fifo"),
            lambda: room.files.write(place, "fifo", b"x"),
            lambda: room.files.write(place, "fifo", b"x", How.APPEND),
            lambda: room.files.read(place, ""),
            lambda: room.files.write(place, "", b"x"),
        ):
            with pytest.raises(CohortError) as raised:
                act()
            assert code_of(raised) == "PATH_WRONG_KIND"

    def test_a_hard_link_is_refused_where_it_may_lead_out(self, room: Room, place: Place, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.write_bytes(b"secret")
        if place.hard_quota:
            with pytest.raises(OSError, match="Invalid cross-device link"):
                os.link(outside, f"{place.root}/link")
            return
        os.link(outside, f"{place.root}/link")
        for act in (lambda: room.files.read(place, "link"), lambda: room.files.write(place, "link", b"x", How.APPEND)):
            with pytest.raises(CohortError) as raised:
                act()
            assert code_of(raised) == "PATH_ESCAPES"
        room.files.write(place, "link", b"new")  # takes the name away from the file; the file itself is not touched
        assert outside.read_bytes() == b"secret"

    @pytest.mark.parametrize("path", [*FILES, *DIRECTORIES, ".git/hooks", ".git/config"])
    def test_protected_names_cannot_be_written(self, room: Room, place: Place, path: str) -> None:
        for tried in (path, path.upper(), f"sub/{path}", f"{path}/deeper", f"{path}. "):
            for act in (
                lambda path: room.files.write(place, path, b"x"),
                lambda path: room.files.mkdir(place, path, parents=True),
                lambda path: room.files.delete(place, path, recursive=True),
                lambda path: room.files.move(place, "a", path),
                lambda path: room.files.move(place, path, "a"),
            ):
                with pytest.raises(CohortError) as raised:
                    act(tried)
                assert code_of(raised) == "PATH_PROTECTED"

    def test_a_file_that_names_another_repository_cannot_be_written(self, room: Room, place: Place) -> None:
        room.files.mkdir(place, "sub")
        for path in ("sub/.git", "sub/.GIT", ".git"):
            with pytest.raises(CohortError) as raised:
                room.files.write(place, path, b"gitdir: ../evil")
            assert code_of(raised) == "PATH_PROTECTED"

    def test_placeholders_keep_the_protected_names_taken(self, room: Room, place: Place, kind: str) -> None:
        for name in PLACEHOLDERS:
            status = os.stat(f"{place.root}/{name}", follow_symlinks=False)
            assert status.st_mode & 0o222 == 0
            if kind == "image" and name != ".git/hooks":
                with pytest.raises(PermissionError):
                    os.rename(f"{place.root}/{name}", f"{place.root}/elsewhere")
            assert name in place.read_only or kind == "image"
        assert ".git/hooks" in place.read_only


def test_every_loop_device_of_a_removed_workspace_is_given_back(tmp_path: Path, sqlite_database: Database) -> None:
    if (why := why_no_images()) is not None:
        pytest.skip(f"no image workspaces here: {why}")
    with unmounted_after(tmp_path):
        room = Room(tmp_path, sqlite_database, "image")
        place = room.place()
        source = loop_devices.mounts_under(str(tmp_path / "mounts")).popitem()[1].source
        image = next(tmp_path.glob("images/*.img")).stat()
        assert loop_devices.backing(source) == (image.st_dev, image.st_ino)
        room.workspaces.remove(place.workspace, "ann", "")
        assert loop_devices.backing(source) != (image.st_dev, image.st_ino)


@pytest.mark.skipif(os.geteuid() != 0, reason="private uids need root")
def test_an_agents_user_reaches_its_own_workspace_and_no_other(sqlite_database: Database, kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # as the parents of the workspaces are in production
        with unmounted_after(folder):
            room = Room(folder, sqlite_database, kind, private_uids=True)
            mine, other = room.place("mine"), room.place("other")
            for place in (mine, other):
                room.files.write(place, "x", b"1")
            tries = {f"{mine.root}/x": "read", f"{other.root}/x": "refused", other.root: "refused", f"{mine.root}/../staging": "refused"}
            assert _as_user(mine.uid, list(tries)) == list(tries.values())
            room.workspaces.stop()


def _as_user(uid: int, paths: list[str]) -> list[str]:
    """What a program of that user gets from each path."""
    program = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read()
        print("read")
    except PermissionError:
        print("refused")
"""
    command = ["/usr/bin/python3", "-c", program, *paths]
    done = subprocess.run(command, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.split()


def test_registrations_at_the_same_time_get_different_users_and_directories(tmp_path: Path, database: Database, kind: str) -> None:
    with unmounted_after(tmp_path):
        room = Room(tmp_path, database, kind, private_uids=os.geteuid() == 0)
        for number in range(8):
            room.agent(f"a{number}")
        with ThreadPoolExecutor(16) as threads:
            places = list(threads.map(lambda number: room.place(f"a{number % 8}"), range(16)))
        assert len({place.workspace for place in places}) == len({place.root for place in places}) == 8
        assert len({place.uid for place in places}) == (8 if os.geteuid() == 0 else 1)
        assert len([*tmp_path.glob("images/*.img"), *tmp_path.glob("workspaces/*")]) == 8
        room.workspaces.stop()


class TestImages:
    """What an image must be to be handed out."""

    @pytest.fixture
    def images(self, tmp_path: Path, sqlite_database: Database) -> Iterator[Room]:
        if (why := why_no_images()) is not None:
            pytest.skip(f"no image workspaces here: {why}")
        with unmounted_after(tmp_path):
            room = Room(tmp_path, sqlite_database, "image")
            yield room
            room.workspaces.stop()

    def image_of(self, room: Room, folder: Path) -> Path:
        """The image of a new workspace, at rest."""
        place = room.place()
        room.workspaces.stop()
        assert not os.path.exists(place.root)
        return next(folder.glob("images/*.img"))

    def refused(self, room: Room) -> str:
        with pytest.raises(CohortError) as raised:
            room.place()
        assert code_of(raised) == "WORKSPACE_UNAVAILABLE"
        assert raised.value.hint
        return raised.value.message

    def test_a_missing_one_is_refused(self, images: Room, tmp_path: Path) -> None:
        self.image_of(images, tmp_path).unlink()
        assert "No such file" in self.refused(images)

    def test_a_damaged_one_is_refused(self, images: Room, tmp_path: Path) -> None:
        image = self.image_of(images, tmp_path)
        with image.open("r+b") as file:
            file.seek(1024)
            file.write(bytes(1024))
        self.refused(images)
        assert loop_devices.mounts_under(str(tmp_path / "mounts")) == {}

    def test_one_of_another_size_is_refused(self, images: Room, tmp_path: Path) -> None:
        image = self.image_of(images, tmp_path)
        with image.open("r+b") as file:
            file.truncate(image.stat().st_size + 4096)
        assert "bytes, not" in self.refused(images)

    def test_another_file_system_in_its_place_is_refused(self, images: Room, tmp_path: Path) -> None:
        self.image_of(images, tmp_path)
        (kept,) = images.workspaces.listed()
        point = tmp_path / "mounts" / kept.directory
        (point / "files").mkdir(parents=True)
        other = ImageBackend(str(tmp_path / "others"), str(tmp_path / "mounts"))
        other.make("stranger", kept.size)
        loop_devices.unmount(str(tmp_path / "mounts" / "stranger"))
        device = loop_devices.bind(str(tmp_path / "others" / "stranger.spare"))
        loop_devices.mount_ext4(device, str(point))
        os.close(device)
        assert "not its image" in self.refused(images)

    def test_a_link_in_place_of_an_image_is_refused(self, images: Room, tmp_path: Path) -> None:
        image = self.image_of(images, tmp_path)
        image.rename(tmp_path / "elsewhere")
        image.symlink_to(tmp_path / "elsewhere")
        self.refused(images)

    def test_without_the_program_that_makes_them_there_are_none(
        self, images: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "mkfs.ext4" in self.refused(images)
        assert "mkfs.ext4" in str(available(str(tmp_path / "images"), str(tmp_path / "mounts")))
        assert list(tmp_path.glob("images/*")) == list(tmp_path.glob("mounts/*")) == []
