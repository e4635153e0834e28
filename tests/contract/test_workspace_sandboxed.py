"""What a command in the sandbox can and cannot do to its workspace, on images and on directories; the same tried without the sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.kernel.model import Command, Completed, Place
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox.bubblewrap import Bubblewrap
from cohort.kernel.sandbox.spawner import Spawner
from cohort.kernel.workspaces.protected import CLOSED, CONTENTS
from cohort.storage.database import Database
from support_sandbox import LIMITS, need_bubblewrap, parts
from support_workspaces import SMALL, Room, unmounted_after, why_no_images

CEILING_BLOCKS = 4096
"""A flood writes at most so many blocks of 4 KiB, 16 MiB, whatever the quota does."""
FILES_CEILING = 500


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    need_bubblewrap()
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture(params=["image", "directory"])
def room(request: pytest.FixtureRequest, sqlite_database: Database) -> Iterator[Room]:
    if request.param == "image" and (why := why_no_images()) is not None:
        pytest.skip(f"no image workspaces here: {why}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        with unmounted_after(folder):
            room = Room(folder, sqlite_database, request.param, private_uids=os.geteuid() == 0)
            yield room
            room.workspaces.stop()


@pytest.fixture
def place(room: Room) -> Place:
    return room.place()


@pytest.fixture
def sandbox(spawner: Spawner, place: Place) -> Iterator[Sandbox]:
    made = Bubblewrap(parts(spawner))
    yield made
    made.close(place)


def shell(sandbox: Sandbox, place: Place, text: str) -> Completed:
    return sandbox.run(place, LIMITS, Command(("sh", "-c", text)))


def state(place: Place) -> dict[str, tuple[int, int, bytes]]:
    """Everything about the placeholders that a command might change."""
    found = {}
    for name in (*CONTENTS, *CLOSED):
        path = Path(place.root, name)
        status = path.lstat()
        found[name] = (
            status.st_ino,
            status.st_mode,
            path.read_bytes() if name in CONTENTS else b"".join(map(os.fsencode, os.listdir(path))),
        )
    return found


TRICKS = [
    "echo evil > {name}",
    "echo evil >> {name}",
    "echo evil > {name}/evil",
    "rm -rf {name}",
    "mv {name} elsewhere",
    "mv {name} {name}2; mkdir -p {name}; echo evil > {name}/evil",
    "ln -sf /etc/passwd {name}",
    "touch evil; mv -f evil {name}",
    "touch evil; ln -f evil {name}",
    "mkdir -p evil; touch evil/evil; rmdir {name}; rm -f {name}; mv -T evil {name}",
    "chmod 777 {name}; echo evil > {name}",
    "chmod -R 777 {name}; echo evil > {name}/evil",
    "mv .git .git2; mkdir -p .git; mv .git2/hooks .git; echo evil > .git/hooks/evil",
    "rm -rf .git; mkdir -p .git/hooks; echo evil > .git/hooks/evil",
    "mount -o remount,rw {name}; umount {name}; echo evil > {name}",
    "chattr -i {name}; echo evil > {name}",
    "truncate -s 100 {name}; dd if=/dev/zero of={name} bs=1 count=1",
]


def test_no_trick_changes_a_protected_name(room: Room, place: Place, sandbox: Sandbox) -> None:
    before = state(place)
    for name in (".bashrc", ".gitconfig", ".mcp.json", ".vscode", ".claude", ".git/hooks", ".git/info", ".git/info/exclude"):
        lines = [f"( {trick.format(name=name)} )" for trick in TRICKS]
        assert shell(sandbox, place, f"exec 2>/dev/null; {'; '.join(lines)}; true").exit_code == 0
        assert state(place) == before, name
    changed = {change.path for change in room.desk.diff("smoke-1")}
    assert not any(path.startswith((".git/hooks", ".git/info", ".vscode", ".claude", ".bashrc", ".mcp.json")) for path in changed)


def test_the_same_tricks_work_where_nothing_holds_them_back(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    for number, trick in enumerate(TRICKS):
        folder = tmp_path / f"{number}"
        (folder / ".git" / "hooks").mkdir(parents=True)
        (folder / "it").touch()
        (folder / "folder").mkdir()
        for name in ("it", "folder"):
            subprocess.run(["sh", "-c", trick.format(name=name)], cwd=folder, capture_output=True, check=False)
        it, inside = folder / "it", [folder / "folder", folder / ".git" / "hooks"]
        changed = (
            not it.is_file() or it.is_symlink() or it.read_bytes() != b"" or any(not one.is_dir() or os.listdir(one) for one in inside)
        )
        assert changed, trick


def test_git_works_in_the_sandbox(place: Place, sandbox: Sandbox) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    done = shell(
        sandbox,
        place,
        "git init -q && echo 1 > a && git add -A && git -c user.name=a -c user.email=b commit -qm x && git status -s && git ls-files",
    )
    assert (done.exit_code, done.stdout) == (0, b"a\n"), done.stderr


def test_a_flood_of_bytes_or_files_ends_at_the_quota(room: Room, place: Place, sandbox: Sandbox) -> None:
    if not place.hard_quota:
        pytest.skip("the quota of a directory is soft: this is what soft means")
    assert os.stat(place.root).st_dev != os.stat(os.path.dirname(os.path.dirname(place.root))).st_dev
    flood = f"dd if=/dev/zero of=flood bs=4096 count={CEILING_BLOCKS}; i=0; while [ $i -lt {FILES_CEILING} ]; do : > f$i || break; i=$((i+1)); done"
    shell(sandbox, place, f"{flood} 2>/dev/null; true")
    usage = room.workspaces.usage(place.workspace)
    assert usage.bytes_used <= usage.bytes_max == SMALL.disk_bytes
    assert usage.files_used == usage.files_max == SMALL.files
    room.desk.discard("smoke-1", "ann", "flood")
    assert room.workspaces.usage(place.workspace).bytes_used == 0


def test_what_a_command_wrote_past_a_soft_quota_is_seen(room: Room, place: Place, sandbox: Sandbox) -> None:
    if place.hard_quota:
        pytest.skip("nothing gets past a hard quota")
    shell(sandbox, place, "dd if=/dev/zero of=flood bs=4096 count=2048 2>/dev/null")
    usage = room.workspaces.usage(place.workspace)
    assert usage.bytes_used == 2048 * 4096 > usage.bytes_max
    with pytest.raises(Exception, match="no room"):
        room.files.write(place, "more", b"x")
    room.files.delete(place, "flood")
    room.files.write(place, "more", b"x")
