"""Whatever stands in front of a shell, it is counted as one; what names none is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.kernel.actions.shells import LAUNCHERS, SHELLS, TAKE_TEXT, is_shell

FOLDERS = st.sampled_from(["", "/bin/", "/usr/bin/", "../usr/bin/", "./", "/proc/1/root/bin/"])
VERSIONS = st.sampled_from(["", "5", "-5.2", "93", ".exe"])
PROGRAMS = st.builds(str.__add__, FOLDERS, st.sampled_from(sorted(LAUNCHERS)))
OPTIONS = st.sampled_from(["-n", "10", "-k", "5s", "-i", "A=1", "--", "--foreground", "-u", "x", "/tmp", "0x1", "-exec", "+5", ""])
SHELL = st.builds(lambda folder, name, version: folder + name + version, FOLDERS, st.sampled_from(sorted(SHELLS)), VERSIONS)
WORDS = st.lists(st.text(max_size=12), max_size=4)
WRAPPED = st.lists(st.one_of(PROGRAMS, OPTIONS, st.text(max_size=12)), max_size=8)
PLAIN = st.lists(st.text("xqvw/_.-=: 0123456789$", min_size=1, max_size=12), min_size=1, max_size=6)


@given(WRAPPED, SHELL, WORDS)
def test_a_shell_behind_anything_is_a_shell(front: list[str], shell: str, rest: list[str]) -> None:
    assert is_shell({"argv": [*front, shell, *rest]})


@given(
    SHELL,
    st.sampled_from(["{} -c id", "-S{} -c id", "--split-string={} -c id", "A={}", "!{} -c id", "-c'{} x'", "(exec {})", "a;{}", "`{}`"]),
)
def test_a_shell_inside_a_word_is_a_shell(shell: str, word: str) -> None:
    assert is_shell({"argv": ["x", word.format(shell)]})


@given(PLAIN)
def test_what_names_no_shell_is_none(argv: list[str]) -> None:
    assert not is_shell({"argv": argv})


@given(st.sampled_from(sorted(TAKE_TEXT)), st.lists(PROGRAMS, max_size=3))
def test_programs_that_execute_text_are_shells_also_behind_launchers(program: str, launchers: list[str]) -> None:
    assert is_shell({"argv": [*launchers, program, "id"]})


@pytest.mark.parametrize(
    ("argv", "shell"),
    [
        (["env", "sh", "-c", "id"], True),
        (["busybox", "sh", "-c", "id"], True),
        (["nice", "-n", "5", "sh", "-c", "id"], True),
        (["timeout", "5", "bash", "-c", "id"], True),
        (["/lib64/ld-linux-x86-64.so.2", "/bin/dash"], True),
        (["env", "-S", "${X} -c id"], True),
        (["env", "-iS", "${X} -c id"], True),
        (["env", "--split=${X} -c id"], True),
        (["find", ".", "-exec", "/bin/sh", "{}", ";"], True),
        (["git", "-c", "alias.x=!sh -c id", "x"], True),
        (["make", "SHELL=/bin/bash"], True),
        (["BASH"], True),
        (["ls", "-S"], False),
        (["git", "push"], False),
        (["python3", "build.sh.py"], False),
        (["cat", "run.sh"], False),
        (["npm", "run", "watch"], False),
        (["shellcheck", "x"], False),
        ([], False),
    ],
)
def test_what_people_write(argv: list[str], shell: bool) -> None:
    assert is_shell({"argv": argv}) is shell
    assert is_shell({"argv": argv, "shell": "ls"})
