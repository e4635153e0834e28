"""Running a piece of Python as an ordinary user, from tests that run as root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

UID = 64321
"""Nobody's: no process and no file of this machine has it."""
WAIT_S = 60
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
_FIRST = """
import json, os, sys
told = json.loads(sys.argv[1])
sys.path[:0] = told["path"]
"""


@cache
def python() -> str:
    """An interpreter of this version that an ordinary user may start and that can import Cohort. Skips when there is none."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        version = f"import sys, cohort; assert sys.version_info[:2] == {sys.version_info[:2]!r}"
        if Path(candidate).exists() and _run(candidate, version, {}).returncode == 0:
            return candidate
    pytest.skip("no Python of this version that an ordinary user may start")


def as_ordinary_user(program: str, **values: Any) -> str:
    """What `program` prints, run by an ordinary user (by ourselves, unless we are root). It finds `values` in `told`."""
    done = _run(python(), program, values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def started_as(
    uid: int | None, program: str, environment: dict[str, str], descriptors: Sequence[int], **values: Any
) -> subprocess.Popen[str]:
    """A process that runs `program` and goes on, as `uid` or as we are; its standard input and output are ours."""
    interpreter = sys.executable if uid is None else python()
    user = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    return subprocess.Popen(
        _argv(interpreter, program, values),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=ENVIRONMENT | environment,
        pass_fds=descriptors,
        **user,
    )


def _argv(interpreter: str, program: str, values: dict[str, Any]) -> list[str]:
    found = [path for path in sys.path if path and not path.startswith(sys.base_prefix)]
    return [interpreter, "-c", _FIRST + program, json.dumps({**values, "path": found})]


def _run(interpreter: str, program: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    argv = _argv(interpreter, program, values)
    user = {"user": UID, "group": UID, "extra_groups": []} if is_root() else {}
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S, cwd="/", env=ENVIRONMENT, **user)
    except PermissionError as error:
        return subprocess.CompletedProcess(argv, 126, "", str(error))


def is_root() -> bool:
    return os.getuid() == 0
