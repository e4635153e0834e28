"""Keys from a real keyring: GNOME's, in a session of D-Bus of its own, with no desktop."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
WAIT_S = 60
PROGRAMS = ("dbus-run-session", "gnome-keyring-daemon")
READ = """
import sys
from cohort.gateway.keys import Keyring, KeyMissing, ask_keyring
known = Keyring(ask_keyring)
for name in sys.argv[1:]:
    known.read(name)
    try:
        print(known.known("keyring:" + name, name))
    except KeyMissing as missing:
        print(missing)
"""


def session(folder: Path, start: str, *names: str) -> list[str]:
    """What reading `names` says in a session that begins with `start`, a line of shell."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)} (packages dbus and gnome-keyring)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    # PYTHON_KEYRING_BACKEND and the like of whoever runs the tests have no say here.
    environment = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(SRC), "PATH": os.environ["PATH"]}
    read = f"{sys.executable} -c '{READ}' {' '.join(names)}"
    command = ["dbus-run-session", "--", "sh", "-c", f"{start}\n{read}\nkill ${{GNOME_KEYRING_PID:-}} 2> /dev/null; true"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=True)
    return done.stdout.splitlines()


def started(how: str) -> str:
    return f"eval $(printf 'walk\\n' | gnome-keyring-daemon {how} --components=secrets --daemonize 2> /dev/null | sed 's/^/export /')"


def stored(service: str, user: str, key: str) -> str:
    return f"printf {key} | {sys.executable} -m keyring set {service} {user}"


def test_a_key_is_read_from_the_keyring_and_a_locked_one_says_so(tmp_path: Path) -> None:
    unlocked = f"{started('--unlock')}\n{stored('openrouter', 'production', 'sk-1')}"
    assert session(tmp_path, unlocked, "openrouter/production", "openrouter/nobody") == [
        "sk-1",
        "keyring:openrouter/nobody is not in the keyring",
    ]
    assert session(tmp_path, started("--start"), "openrouter/production") == [
        "keyring:openrouter/production cannot be read: the keyring is locked; unlock it in its session"
    ]


def test_a_session_without_a_keyring_says_so(tmp_path: Path) -> None:
    (said,) = session(tmp_path, "unset DBUS_SESSION_BUS_ADDRESS", "openrouter/production")
    assert said == "keyring:openrouter/production cannot be read: this session has no keyring; a service has credential:NAME"
