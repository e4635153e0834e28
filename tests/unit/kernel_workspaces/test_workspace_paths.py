"""Every trick with a path, as text."""

from __future__ import annotations

import unicodedata

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.workspaces.paths import DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, canonical, listed, neutral, shown
from cohort.kernel.workspaces.protected import check_writable, protection

TRICKS = {
    "..": "PATH_ESCAPES",
    "../etc/passwd": "PATH_ESCAPES",
    "a/../b": "PATH_ESCAPES",
    "a/..": "PATH_ESCAPES",
    "./..": "PATH_ESCAPES",
    "/": "PATH_ESCAPES",
    "/etc/passwd": "PATH_ESCAPES",
    "//etc/passwd": "PATH_ESCAPES",
    "/proc/self/root": "PATH_ESCAPES",
    "a\0b": "PATH_INVALID",
    "\0": "PATH_INVALID",
    "a\nb": "PATH_INVALID",
    "a\x1b[2Jb": "PATH_INVALID",
    "a\x7fb": "PATH_INVALID",
    "a\x85b": "PATH_INVALID",
    "..\\..\\windows": "PATH_INVALID",
    "C:\\windows": "PATH_INVALID",
    "a\\b": "PATH_INVALID",
    "a\u202etxt.exe": "PATH_INVALID",
    "a\u200bb": "PATH_INVALID",
    "a\u2066b": "PATH_INVALID",
    "\ufeffa": "PATH_INVALID",
    "a\u00adb": "PATH_INVALID",
    "a\u2028b": "PATH_INVALID",
    "a\u2029b": "PATH_INVALID",
    "a\udcffb": "PATH_INVALID",
    "a\uffffb": "PATH_INVALID",
    "cafe\u0301": "PATH_INVALID",
    "\u212b": "PATH_INVALID",  # the Angstrom sign composes to a letter
    "x" * 10_000: "PATH_INVALID",
    "é" * 3000: "PATH_INVALID",
    "x" * (NAME_BYTES_MAX + 1): "PATH_INVALID",
    "é" * 128: "PATH_INVALID",
    "a/" * (DEPTH_MAX + 1): "PATH_INVALID",
}

FINE = {
    "": "",
    ".": "",
    "./": "",
    "a": "a",
    "./a//b/./c/": "a/b/c",
    "...": "...",
    "..a": "..a",
    "a..": "a..",
    " ": " ",
    "a b": "a b",
    "~": "~",
    "-rf": "-rf",
    "$(id)": "$(id)",
    "a:b": "a:b",
    "%2e%2e": "%2e%2e",
    "\u2024\u2024/x": "\u2024\u2024/x",  # one-dot leaders: two characters like any other
    "\uff0e\uff0e": "\uff0e\uff0e",  # full-width full stops: no file system of ours folds them
    "日本語/ファイル": "日本語/ファイル",
    "caf\u00e9": "caf\u00e9",
    "x" * NAME_BYTES_MAX: "x" * NAME_BYTES_MAX,
    "a/" * DEPTH_MAX: "/".join("a" * DEPTH_MAX),
}


@pytest.mark.parametrize("text", TRICKS, ids=lambda text: ascii(text)[:40])
def test_a_trick_is_refused_with_its_code_and_field(text: str) -> None:
    with pytest.raises(CohortError) as raised:
        canonical(text, "where")
    assert (raised.value.code, raised.value.field) == (TRICKS[text], "where")
    assert raised.value.hint
    assert len(raised.value.message) < 400
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Cs") for one in raised.value.message + raised.value.hint)


@pytest.mark.parametrize("text", FINE, ids=lambda text: ascii(text)[:40])
def test_a_plain_path_has_one_form(text: str) -> None:
    assert canonical(text) == FINE[text]
    assert canonical(FINE[text]) == FINE[text]


def test_what_is_no_text_is_refused() -> None:
    for value in (None, 1, b"a", ["a"]):
        with pytest.raises(CohortError) as raised:
            canonical(value)  # type: ignore[arg-type]
        assert raised.value.code == "PATH_INVALID"


def test_a_path_of_the_longest_kind_is_fine() -> None:
    path = "/".join(["x" * 250] * 16)
    assert len(path) < PATH_BYTES_MAX
    assert canonical(path) == path


@pytest.mark.parametrize(
    "path",
    [
        ".bashrc",
        ".BASHRC",
        "a/b/.BashRc",
        ".bashrc.",
        ".bashrc ",
        ".vscode/settings.json",
        ".VSCODE/tasks.json",
        "x/.idea",
        ".claude/settings.json",
        ".mcp.json",
        "\uff0emcp.json",  # a full-width full stop, which a folding file system would take for a plain one
        ".ma\u212aefile/.ssh".replace("\u212a", "k"),
        ".git/hooks",
        ".git/hooks/pre-commit",
        ".GIT/HOOKS/pre-commit",
        "sub/.git/config",
        "git~1/hooks",
        ".git./hooks",
        ".ſsh/authorized_keys",  # a long s, which case folding makes an s
    ],
)
def test_a_protected_name_is_known_in_every_spelling(path: str) -> None:
    assert protection(path) is not None
    with pytest.raises(CohortError) as raised:
        check_writable(path, "to")
    assert (raised.value.code, raised.value.field) == ("PATH_PROTECTED", "to")


@pytest.mark.parametrize(
    "path", ["", "bashrc", "a.bashrc", ".bashrc2", ".git", ".git/HEAD", ".github/x", "hooks/x", "x/hooks", ".gitignore"]
)
def test_other_names_are_not_protected(path: str) -> None:
    assert protection(path) is None
    check_writable(path)


@pytest.mark.parametrize("path", [".git", "sub/.GIT", "git~1"])
def test_a_repository_is_not_moved_or_deleted_as_a_whole(path: str) -> None:
    with pytest.raises(CohortError) as raised:
        check_writable(path, whole=True)
    assert raised.value.code == "PATH_PROTECTED"


def test_what_is_shown_acts_on_no_terminal() -> None:
    assert shown("a\x1b[31m\u202e\udcff") == "a\\u001b[31m\\u202e\\udcff"
    assert len(shown("x" * 10_000)) < 100
    assert neutral("a\tb\n\r", keep="\t\n") == "a\tb\n\\u000d"
    assert listed("a") == ("a", True)
    assert listed("\udcff\x07") == ("\\xff\\u0007", False)
    assert listed("cafe\u0301") == ("cafe\u0301", False)
