"""Looking at what an agent changed, keeping it, throwing it away, taking it back: on images and on directories."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.base.ids import SnapshotId
from cohort.kernel.face import WorkspaceDesk
from cohort.kernel.model import Place
from cohort.kernel.workspaces import desk as desk_module
from cohort.kernel.workspaces.beneath import Walk
from cohort.kernel.workspaces.files import How
from cohort.kernel.workspaces.scanning import UNSURE_NS
from cohort.storage.database import Database
from support_workspaces import SMALL, Room, unmounted_after, why_no_images


@pytest.fixture(params=["image", "directory"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "image" and (why := why_no_images()) is not None:
        pytest.skip(f"no image workspaces here: {why}")
    return str(request.param)


@pytest.fixture
def room(tmp_path: Path, database: Database, kind: str) -> Iterator[Room]:
    with unmounted_after(tmp_path):
        room = Room(tmp_path, database, kind, private_uids=os.geteuid() == 0)
        yield room
        room.workspaces.stop()


@pytest.fixture
def place(room: Room) -> Place:
    place = room.place()
    room.files.mkdir(place, "src")
    room.files.write(place, "src/kept", b"1\n2\n3\n")
    room.files.write(place, "src/changed", b"1\n2\n3\n", mode=0o755)
    room.files.write(place, "removed", b"old")
    os.symlink("src/kept", f"{place.root}/link")
    return place


def tree_of(place: Place) -> dict[str, tuple[int, object]]:
    """Everything in the workspace that can be told from outside: modes, contents, targets."""
    found: dict[str, tuple[int, object]] = {}
    for above, folders, names in os.walk(place.root):
        for name in (*folders, *names):
            path = Path(above, name)
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(place.root))] = (path.lstat().st_mode, content)
    return found


def change(room: Room, place: Place) -> None:
    room.files.write(place, "src/changed", b"1\nzwei\n3\n")
    room.files.delete(place, "removed")
    room.files.mkdir(place, "new/deep", parents=True)
    room.files.write(place, "new/deep/file", b"x" * 5000)
    os.unlink(f"{place.root}/link")
    os.symlink("/etc/passwd", f"{place.root}/link")


def test_the_desk_is_the_face(room: Room) -> None:
    desk: WorkspaceDesk = room.desk
    assert desk.list() == []


def test_everything_is_new_before_the_first_commit(room: Room, place: Place) -> None:
    changes = [(change.kind, change.path, change.bytes_after) for change in room.desk.diff("smoke-1")]
    assert changes == [("added", "link", None), ("added", "removed", 3), ("added", "src/changed", 6), ("added", "src/kept", 6)]
    assert room.desk.show("smoke-1").changes == 4


def test_a_commit_is_what_differences_are_to(room: Room, place: Place) -> None:
    committed = room.desk.commit("smoke-1", "ann", "first")
    assert (committed.files, committed.bytes, committed.reason) == (3, 15, "first")
    assert room.desk.diff("smoke-1") == []
    change(room, place)
    found = {change.path: (change.kind, change.bytes_before, change.bytes_after) for change in room.desk.diff(place.workspace)}
    assert found == {
        "src/changed": ("changed", 6, 9),
        "removed": ("removed", 3, None),
        "new/deep/file": ("added", None, 5000),
        "link": ("changed", None, None),
    }
    assert room.desk.show("smoke-1").committed_us == committed.created_us


def test_discard_goes_back_to_the_commit_and_can_be_taken_back(room: Room, place: Place) -> None:
    room.desk.commit("smoke-1", "ann", "first")
    before = tree_of(place)
    change(room, place)
    after = tree_of(place)
    thrown_away = room.desk.discard("smoke-1", "ann", "no")
    assert tree_of(place) == before
    assert room.desk.diff("smoke-1") == []
    assert room.desk.restore("smoke-1", thrown_away.id, "ann", "after all") == thrown_away
    assert tree_of(place) == after
    assert len(room.desk.diff("smoke-1")) == 4
    assert os.stat(f"{place.root}/new/deep/file").st_uid == place.uid
    assert room.audit.events() == ["created", "commit", "snapshot", "discard", "snapshot", "restore"]


def test_discard_before_the_first_commit_empties_the_workspace(room: Room, place: Place) -> None:
    room.desk.discard("smoke-1", "ann", "no")
    assert room.files.list(place).entries == ()
    usage = room.workspaces.usage(place.workspace)
    assert (usage.bytes_used, usage.files_used) == (0, 0)


def test_a_change_that_hides_itself_is_seen(room: Room, place: Place) -> None:
    room.desk.commit("smoke-1", "ann", "first")
    path = f"{place.root}/src/kept"
    status = os.stat(path)
    Path(path).write_bytes(b"3\n2\n1\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [change.path for change in room.desk.diff("smoke-1")] == ["src/kept"]


class Watched:
    """An opener that notes what is opened for reading."""

    name = "watched"

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, root: int, path: str, flags: int, mode: int = 0) -> int:
        if not flags & os.O_PATH:
            self.opened.append(path)
        return Walk().open(root, path, flags, mode)


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, sqlite_database: Database) -> None:
    opener = Watched()
    room = Room(tmp_path, sqlite_database, "directory", opener)
    place = room.place()
    room.files.write(place, "a", b"1")
    room.files.write(place, "b", b"1")
    written_ns = os.stat(f"{place.root}/b").st_ctime_ns
    while os.stat(place.root).st_mtime_ns - written_ns < 2 * UNSURE_NS:
        os.utime(place.root)
    for expected in (1, 1, 1):
        room.desk.diff("smoke-1")
        assert opener.opened.count("a") == expected
    os.chmod(f"{place.root}/a", 0o600)
    room.desk.diff("smoke-1")
    assert (opener.opened.count("a"), opener.opened.count("b")) == (2, 1)


def test_a_text_difference_shows_lines_and_no_control_sequences(room: Room, place: Place) -> None:
    room.desk.commit("smoke-1", "ann", "first")
    room.files.write(place, "src/changed", "1\nzwei \x1b[31m\u202e\n3\n".encode())
    assert room.desk.text_diff("smoke-1", "src/changed").splitlines() == [
        "--- a/src/changed",
        "+++ b/src/changed",
        "@@ -1,3 +1,3 @@",
        " 1",
        "-2",
        "+zwei \\u001b[31m\\u202e",
        " 3",
    ]
    assert room.desk.text_diff("smoke-1", "src/kept") == ""
    room.files.delete(place, "removed")
    assert "+++ /dev/null" in room.desk.text_diff("smoke-1", "removed")


def test_what_is_no_small_text_has_no_text_difference(room: Room, place: Place) -> None:
    room.files.write(place, "binary", b"\xff\xfe")
    room.files.write(place, "large", b"x" * (desk_module.TEXT_BYTES_MAX + 1))
    room.files.write(place, "long", b"\n" * (desk_module.TEXT_LINES_MAX + 1))
    for path, code in {
        "binary": "PATH_WRONG_KIND",
        "src": "PATH_WRONG_KIND",
        "link": "PATH_WRONG_KIND",
        "large": "FILE_TOO_LARGE",
        "long": "FILE_TOO_LARGE",
        "nowhere": "PATH_MISSING",
        "../x": "PATH_ESCAPES",
    }.items():
        with pytest.raises(CohortError) as raised:
            room.desk.text_diff("smoke-1", path)
        assert raised.value.code == code, path


def test_a_large_file_is_kept_in_parts_and_comes_back(room: Room, tmp_path: Path) -> None:
    from cohort.kernel.model import Limits

    place = room.place("large", Limits(disk_bytes=32 << 20))
    room.files.write(place, "large", os.urandom(1 << 20) * 10)
    content = Path(place.root, "large").read_bytes()
    saved = room.desk.snapshot("large", "ann", "")
    room.files.write(place, "large", b"x", How.APPEND)
    room.desk.restore("large", saved.id, "ann", "")
    assert Path(place.root, "large").read_bytes() == content


def test_a_file_with_several_names_comes_back_as_one_file(room: Room, place: Place) -> None:
    for name in ("a", "src/b", "zz"):
        os.link(f"{place.root}/removed", f"{place.root}/{name}")
    saved = room.desk.snapshot("smoke-1", "ann", "")
    before, used = tree_of(place), room.workspaces.usage(place.workspace)
    room.desk.discard("smoke-1", "ann", "")
    room.desk.restore("smoke-1", saved.id, "ann", "")
    assert tree_of(place) == before
    assert os.stat(f"{place.root}/zz").st_nlink == 4
    assert room.workspaces.usage(place.workspace) == used


def test_a_snapshot_that_does_not_fit_is_refused_before_anything_changes(room: Room) -> None:
    from cohort.kernel.model import Limits

    place = room.place("shrunk", Limits(disk_bytes=8 << 20, files=50))
    room.files.write(place, "large", b"x" * (5 << 20))
    saved = room.desk.snapshot("shrunk", "ann", "")
    room.files.delete(place, "large")
    room.workspaces.resize(place.workspace, SMALL, "ann")
    events = room.audit.events()
    with pytest.raises(CohortError) as raised:
        room.desk.restore("shrunk", saved.id, "ann", "")
    assert raised.value.code == "QUOTA_EXCEEDED"
    assert room.audit.events() == events


@pytest.fixture
def passable(sqlite_database: Database, kind: str) -> Iterator[Room]:
    """A room in a folder that an agent's own user can pass through, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        with unmounted_after(folder):
            room = Room(folder, sqlite_database, kind, private_uids=os.geteuid() == 0)
            yield room
            room.workspaces.stop()


@pytest.mark.skipif(shutil.which("git") is None and os.environ.get("CI") != "true", reason="git is not installed")
def test_git_works_in_the_root_and_does_not_see_placeholders(passable: Room) -> None:
    room, place = passable, passable.place()
    owner = {"user": place.uid, "group": place.gid, "extra_groups": []} if os.geteuid() == 0 else {}

    def git(*words: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": place.root}
        done = subprocess.run(["git", *words], cwd=place.root, env=environment, capture_output=True, text=True, check=False, **owner)
        assert done.returncode == 0, done.stderr
        return done.stdout

    git("init", "--quiet")
    room.files.write(place, "kept", b"1")
    room.files.write(place, "gone", b"2")
    assert git("status", "--short").splitlines() == ["?? gone", "?? kept"]
    git("add", "--all")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "x")
    room.desk.commit("smoke-1", "ann", "")
    room.files.delete(place, "gone")
    assert git("status", "--short") == " D gone\n"
    room.desk.discard("smoke-1", "ann", "")
    assert git("status", "--short") == ""
    assert git("log", "--format=%s") == "x\n"


def test_names_that_are_not_utf8_come_back(room: Room, place: Place) -> None:
    name = os.fsencode(place.root) + b"/\xff\xfe"
    with open(name, "wb") as file:
        file.write(b"odd")
    saved = room.desk.snapshot("smoke-1", "ann", "")
    os.unlink(name)
    room.desk.restore("smoke-1", saved.id, "ann", "")
    with open(name, "rb") as file:
        assert file.read() == b"odd"
    assert "\\xff\\xfe" in [change.path for change in room.desk.diff("smoke-1")]
    assert [entry.usable for entry in room.files.list(place).entries if entry.path == "\\xff\\xfe"] == [False]


def test_a_hook_that_a_command_brought_in_is_seen_and_discarded(room: Room, place: Place) -> None:
    """A sandbox that does not pin `.git` lets a command move it away, placeholder and all, and make its own."""
    os.rename(f"{place.root}/.git", f"{place.root}/.old")
    os.makedirs(f"{place.root}/.git/hooks")
    Path(place.root, ".git/hooks/post-commit").write_text("#!/bin/sh\n")
    assert ".git/hooks/post-commit" in [change.path for change in room.desk.diff("smoke-1")]
    room.desk.discard("smoke-1", "ann", "no")
    assert sorted(os.listdir(f"{place.root}/.git")) == ["hooks", "info"]
    assert os.listdir(f"{place.root}/.git/hooks") == []
    assert not os.path.exists(f"{place.root}/.old")


def test_a_busy_workspace_is_left_alone(room: Room, place: Place) -> None:
    saved = room.desk.snapshot("smoke-1", "ann", "")
    room.busy.add(place.workspace)
    for act in (
        lambda: room.desk.commit("smoke-1", "ann", ""),
        lambda: room.desk.discard("smoke-1", "ann", ""),
        lambda: room.desk.snapshot("smoke-1", "ann", ""),
        lambda: room.desk.restore("smoke-1", saved.id, "ann", ""),
        lambda: room.desk.remove("smoke-1", "ann", ""),
    ):
        with pytest.raises(CohortError) as raised:
            act()
        assert raised.value.code == "WORKSPACE_BUSY"
    assert room.audit.events() == ["created", "snapshot"]
    assert room.desk.diff("smoke-1") != []


def test_what_cannot_be_recorded_does_not_happen(room: Room, place: Place) -> None:
    room.desk.commit("smoke-1", "ann", "first")
    change(room, place)
    before = tree_of(place)
    room.audit.failure = CohortError("AUDIT_UNAVAILABLE", "the log is full")
    for act in (
        lambda: room.desk.commit("smoke-1", "ann", ""),
        lambda: room.desk.discard("smoke-1", "ann", ""),
        lambda: room.desk.snapshot("smoke-1", "ann", ""),
        lambda: room.desk.remove("smoke-1", "ann", ""),
    ):
        with pytest.raises(CohortError) as raised:
            act()
        assert raised.value.code == "AUDIT_UNAVAILABLE"
    assert tree_of(place) == before
    assert len(room.desk.snapshots("smoke-1")) == 1
    assert len(room.desk.diff("smoke-1")) == 4


def test_unknown_ones_are_errors(room: Room, place: Place) -> None:
    with pytest.raises(CohortError) as raised:
        room.desk.show("nobody")
    assert raised.value.code == "WORKSPACE_UNKNOWN"
    with pytest.raises(CohortError) as raised:
        room.desk.restore("smoke-1", SnapshotId("sn_none"), "ann", "")
    assert raised.value.code == "SNAPSHOT_UNKNOWN"
    room.place("other")
    others = room.desk.snapshot("other", "ann", "")
    with pytest.raises(CohortError) as raised:
        room.desk.restore("smoke-1", others.id, "ann", "")
    assert raised.value.code == "SNAPSHOT_UNKNOWN"


def test_the_same_content_is_stored_once(room: Room, place: Place) -> None:
    from sqlalchemy import func, select

    from cohort.storage.schema import snapshot_blobs as blobs

    first = room.desk.snapshot("smoke-1", "ann", "")
    with room.database.read() as connection:
        before = connection.execute(select(func.count()).select_from(blobs)).scalar_one()
    again = room.desk.snapshot("smoke-1", "ann", "")
    with room.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(blobs)).scalar_one() == before
    assert again.digest == first.digest
    assert {found.id for found in room.desk.snapshots("smoke-1")} == {first.id, again.id}
