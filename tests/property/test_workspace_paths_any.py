"""For any text: a path has one canonical form that stays inside, or a coded error. For any sequence of acts: nothing outside changes."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Limits, Place
from cohort.kernel.workspaces.backend import Size, Used
from cohort.kernel.workspaces.backend_directory import DirectoryBackend
from cohort.kernel.workspaces.beneath import Opener, Walk, best_opener
from cohort.kernel.workspaces.files import Files, How
from cohort.kernel.workspaces.paths import canonical
from cohort.kernel.workspaces.protected import protection

PATH_CODES = {"PATH_INVALID", "PATH_ESCAPES"}
FILE_CODES = PATH_CODES | {"PATH_PROTECTED", "PATH_MISSING", "PATH_EXISTS", "PATH_WRONG_KIND", "QUOTA_EXCEEDED"}

pieces = st.one_of(
    st.sampled_from(["..", ".", "", "/", "a", ".git", "hooks", "\0", "\\", "~", "é", "e\u0301", "\u202e", "\udcff"]), st.text(max_size=8)
)
texts = st.one_of(st.lists(pieces, max_size=12).map("/".join), st.text(max_size=300), st.lists(pieces, max_size=20).map("".join))


@settings(max_examples=500)
@given(texts)
def test_a_path_has_one_form_that_stays_inside_or_a_coded_error(text: str) -> None:
    try:
        path = canonical(text)
    except CohortError as error:
        assert error.code in PATH_CODES  # noqa: PT017
        assert error.field == "path"  # noqa: PT017
        return
    assert canonical(path) == path
    assert path == "" or not {"", ".", ".."} & set(path.split("/"))
    assert unicodedata.is_normalized("NFC", path)
    assert os.path.normpath(os.path.join("/root", path)).startswith("/root")
    assert len(os.fsencode(path)) <= 4096


class Ledger:
    """The quota of one directory, kept by the backend itself."""

    def __init__(self, backend: DirectoryBackend, directory: str, size: Size) -> None:
        self.backend, self.directory, self.size = backend, directory, size

    @contextmanager
    def changing(self, workspace: WorkspaceId) -> Iterator[None]:
        yield

    def room(self, workspace: WorkspaceId) -> Used:
        return self.backend.room(self.directory, self.size)

    def spent(self, workspace: WorkspaceId, change: Used | None) -> None:
        self.backend.spent(self.directory, change)


names = st.sampled_from(["a", "b", "a/b", "b/a", "a/b/c", "link", "link/x", "a/link", ".git", ".bashrc", "../x", "/etc/passwd", ""])
contents = st.sampled_from([b"", b"x", b"x" * 5000, b"x" * 300_000])


class Acts(RuleBasedStateMachine):
    """An agent that writes through the file API, and plants links beside it as a command in a sandbox could."""

    opener: Opener = Walk()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        base = Path(self.folder.name)
        self.outside = base / "outside"
        self.outside.mkdir()
        (self.outside / "x").write_bytes(b"secret")
        self.size = Size.of(Limits(disk_bytes=1 << 20, files=16))
        self.backend = DirectoryBackend(str(base / "workspaces"), ManualClock(), self.opener)
        self.backend.make("one", self.size)
        self.backend.assign("one", None)
        root = self.backend.attach("one", self.size)
        self.place = Place(WorkspaceId("ws_1"), root, os.geteuid(), os.getegid(), False)
        self.files = Files(Ledger(self.backend, "one", self.size), self.opener)

    def teardown(self) -> None:
        self.backend.remove("one")
        self.folder.cleanup()

    @contextmanager
    def refusals(self) -> Iterator[None]:
        try:
            yield
        except CohortError as error:
            assert error.code in FILE_CODES, error.code  # noqa: PT017

    @rule(path=names, data=contents, how=st.sampled_from(How))
    def write(self, path: str, data: bytes, how: How) -> None:
        with self.refusals():
            self.files.write(self.place, path, data, how)
            assert protection(path) is None
            assert self.files.read(self.place, path).data.endswith(data)

    @rule(path=names, parents=st.booleans())
    def mkdir(self, path: str, parents: bool) -> None:
        with self.refusals():
            self.files.mkdir(self.place, path, parents)

    @rule(path=names, to=names)
    def move(self, path: str, to: str) -> None:
        with self.refusals():
            self.files.move(self.place, path, to)

    @rule(path=names, recursive=st.booleans())
    def delete(self, path: str, recursive: bool) -> None:
        with self.refusals():
            self.files.delete(self.place, path, recursive)

    @rule(path=names)
    def read(self, path: str) -> None:
        with self.refusals():
            assert self.files.read(self.place, path).data != b"secret"

    @rule(path=st.sampled_from(["link", "a/link", "a", "b"]), leads_to=st.sampled_from(["outside", "x", "a", "."]))
    def plant(self, path: str, leads_to: str) -> None:
        targets = {"outside": str(self.outside), "x": str(self.outside / "x"), "a": "a", ".": "."}
        planted = Path(self.place.root, path)
        if not planted.parent.is_symlink():  # in a sandbox the way out leads nowhere; here it would
            with suppress(OSError):
                planted.symlink_to(targets[leads_to])
        self.backend.spent("one", None)  # what a command does is seen at the next count

    @invariant()
    def nothing_outside_changes(self) -> None:
        assert os.listdir(self.outside) == ["x"]
        assert (self.outside / "x").read_bytes() == b"secret"

    @invariant()
    def the_count_kept_is_the_count_on_disk(self) -> None:
        kept = self.backend.room("one", self.size)
        assert kept == self.backend.free("one", self.size)
        assert kept.bytes >= 0


class ActsByOpenAt2(Acts):
    opener = best_opener()


TestActs = Acts.TestCase
TestActs.settings = settings(max_examples=40, stateful_step_count=20)
TestActsByOpenAt2 = ActsByOpenAt2.TestCase
TestActsByOpenAt2.settings = settings(max_examples=40, stateful_step_count=20)
