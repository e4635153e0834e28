"""Finding texts in a workspace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Place
from cohort.kernel.workspaces import search as module
from cohort.kernel.workspaces.beneath import best_opener
from cohort.kernel.workspaces.search import Match, Search


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "files"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text("one\ntwo needle needle\nthree\n needle")
    (root / "b.txt").write_text("needle\n")
    (root / "binary").write_bytes(b"needle\0")
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "fifo")
    return Place(WorkspaceId("ws_1"), str(root), os.geteuid(), os.getegid(), False)


@pytest.fixture
def search(clock: ManualClock) -> Search:
    return Search(best_opener(), clock)


def test_every_line_with_the_text_is_found_once(search: Search, place: Place) -> None:
    found = search.find(place, "needle")
    assert found.matches == (Match("b.txt", 1, "needle"), Match("src/a.py", 2, "two needle needle"), Match("src/a.py", 4, " needle"))
    assert (found.files, found.skipped, found.complete) == (3, 1, True)


def test_names_and_paths_narrow_it_down(search: Search, place: Place) -> None:
    assert [match.path for match in search.find(place, "needle", names="*.txt").matches] == ["b.txt"]
    assert [match.line for match in search.find(place, "needle", "src").matches] == [2, 4]
    assert [match.line for match in search.find(place, "needle", "src/a.py").matches] == [2, 4]


def test_the_text_is_taken_literally(search: Search, place: Place) -> None:
    (Path(place.root) / "regex").write_text("(a+)+$\naaaa\n")
    assert [match.line for match in search.find(place, "(a+)+$").matches] == [1]


def test_links_and_pipes_are_not_followed(search: Search, place: Place) -> None:
    assert search.find(place, "root:").matches == ()
    assert search.find(place, "root:", "link") == module.Matches((), 1, 1, True)
    assert search.find(place, "x", "fifo").skipped == 1


def test_what_is_cut_short_says_so(search: Search, place: Place) -> None:
    assert not search.find(place, "needle", limit=2).complete
    assert search.find(place, "needle", limit=3).complete


class Impatient(ManualClock):
    """Every look at it takes a second."""

    def monotonic_s(self) -> float:
        self.advance(1)
        return super().monotonic_s()


def test_it_ends_in_time(place: Place) -> None:
    for number in range(20):
        Path(place.root, f"{number}").write_text("needle")
    found = Search(best_opener(), Impatient()).find(place, "needle")
    assert not found.complete
    assert found.files < 20


def test_a_long_line_is_cut_around_the_text(search: Search, place: Place) -> None:
    Path(place.root, "long").write_text("x" * 10_000 + "here" + "y" * 10_000)
    (match,) = search.find(place, "here").matches
    assert len(match.text) == module.LINE_BYTES_MAX
    assert "here" in match.text


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"text": ""}, "text"), ({"text": "a\nb"}, "text"), ({"text": "x" * 1001}, "text"), ({"names": ""}, "names"), ({"limit": 0}, "limit")],
)
def test_what_makes_no_sense_is_refused(search: Search, place: Place, arguments: dict[str, object], field: str) -> None:
    with pytest.raises(CohortError) as raised:
        search.find(place, **({"text": "x"} | arguments))  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.field) == ("ARGUMENT_INVALID", field)
