"""The machine code that stands before bubblewrap, executed as it is."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.kernel.sandbox import profile, stage_two, stage_zero
from cohort.kernel.sandbox.stage_two import FAILURE, TELL
from cohort.kernel.sandbox.stage_zero import Start

pytestmark = pytest.mark.skipif(not stage_two.HERE, reason="machine code of Linux on x86_64")
PYTHON = os.path.realpath(sys.executable)
LOOK = """import json, os, resource, sys
umask = os.umask(0)
limits = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)}
print(json.dumps([sys.argv[1:], dict(os.environ), os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd(), umask, limits, sorted(os.listdir("/proc/self/fd"))]))
"""


def start(program: str = PYTHON, **changes: object) -> Start:
    fields: dict[str, object] = {"program": program, "free": TELL + 1, "cgroups": (), "owner": None, "rlimits": ()}
    return Start(**(fields | changes))


def execute(tmp_path: Path, what: Start, *argv: str) -> tuple[bytes, bytes, bytes, int]:
    """Standard output, standard error, what was told, and the exit code."""
    made = stage_zero.image(what)
    file = tmp_path / "stage-zero"
    file.write_bytes(made.file)
    file.chmod(0o755)
    told_r, told_w = os.pipe()

    def arrange() -> None:
        os.dup2(told_w, TELL)
        os.closerange(TELL + 1, 4096)

    with subprocess.Popen(
        [file, what.program, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=arrange,
        close_fds=False,
        env={"SECRET": "x"},
        cwd=tmp_path,
    ) as process:
        os.close(told_w)
        out, err = process.communicate(timeout=20)
    told = os.read(told_r, 4096)
    os.close(told_r)
    return out, err, told, process.returncode


def test_the_program_finds_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    rlimits = ((resource.RLIMIT_NOFILE, 77), (resource.RLIMIT_CORE, 0))
    out, err, told, _ = execute(tmp_path, start(rlimits=rlimits), "-I", "-S", "-c", LOOK, "a b", "")
    argv, env, _, _, _, folder, umask, limits, descriptors = json.loads(out)
    assert (argv, folder, umask, told, err) == (["a b", ""], "/", 0o022, b"", b"")
    assert env.keys() <= {"LC_CTYPE"}, "which Python sets itself"
    assert limits == {str(resource.RLIMIT_NOFILE): [77, 77], str(resource.RLIMIT_CORE): [0, 0]}
    assert descriptors == ["0", "1", "2", "3", "4"], "3 is for stage two, 4 the listing itself"


def test_it_becomes_the_private_user_for_good(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    out, *_ = execute(tmp_path, start("/usr/bin/python3", owner=(200_001, 200_002)), "-I", "-S", "-c", LOOK)
    _, _, users, groups, supplementary, *_ = json.loads(out)
    assert (users, groups, supplementary) == ([200_001] * 3, [200_002] * 3, [])


def test_it_joins_its_groups_before_it_is_somebody_else(tmp_path: Path) -> None:
    """A file stands for `tasks`: what matters is who writes into it, and what."""
    joined = [tmp_path / name for name in ("memory", "pids")]
    for path in joined:
        path.write_text("")
        path.chmod(0o600)
    owner = (200_001, 200_001) if os.geteuid() == 0 else None
    *_, code = execute(tmp_path, start("/usr/bin/true", cgroups=tuple(map(str, joined)), owner=owner))
    assert (code, [path.read_text() for path in joined]) == (0, ["0", "0"])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"cgroups": ("/nowhere/tasks",)}, "control group"),
        ({"cgroups": ("/dev/null",), "free": 9}, "control group"),
        ({"rlimits": ((999, 1),)}, "limits"),
    ],
)
def test_a_call_that_fails_executes_nothing_and_is_named(tmp_path: Path, changes: dict[str, object], name: str) -> None:
    what = start("/bin/sh", **changes)
    out, _, told, code = execute(tmp_path, what, "-c", "echo began")
    assert (out, code, len(told)) == (b"", 125, FAILURE.size)
    stage = stage_two.image(stage_two.Plan(None, 0, (), "/", ("/bin/sh",), "sh", ()))
    ending = stage_two.ending(told, stage, stage_zero.image(what))
    assert (ending.started, ending.failed) == (False, name)
    assert stage_two.ending(told, stage).failed == "stage two", "its addresses are not those of stage two"


def test_a_program_that_is_gone_is_said_and_not_taken_for_a_start(tmp_path: Path) -> None:
    out, err, told, code = execute(tmp_path, start("/nowhere/bwrap"))
    assert (out, told, code) == (b"", b"", 127)
    assert err == b"cohort: /nowhere/bwrap: not found, or not executable\n"


def test_no_limit_is_set_beyond_what_the_spawner_has() -> None:
    hard = resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)[1]
    wanted = ((resource.RLIMIT_NOFILE, hard + 1), (resource.RLIMIT_NOFILE, 3))
    assert profile.within(wanted, os.getpid()) == ((resource.RLIMIT_NOFILE, hard), (resource.RLIMIT_NOFILE, 3))
