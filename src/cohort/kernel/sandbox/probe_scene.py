"""What the start-up probe's attackers go for: a secret file, a process, three listeners. Harmless, ours, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.kernel.model import Place
from cohort.kernel.sandbox.attacks import Attack, Oracle

TARGET_END_WAIT_S = 5.0
TARGET_GONE_WAIT_S = 0.05
FORKS, FORKS_ALLOWED, FORKS_SPARE = 100, 32, 8
MEMORY_BYTES, MEMORY_ALLOWED_BYTES = 160 << 20, 96 << 20


@dataclass(frozen=True, slots=True)
class Scene:
    """`token`: in everything this probe leaves. `told`: what the programs are given."""

    token: str
    place: Place
    secrets: dict[str, str]
    told: dict[str, Any]
    target: subprocess.Popen[bytes]
    listeners: dict[str, socket.socket]

    def succeeded(self, attack: Attack, said: tuple[str, ...]) -> bool:
        """Whether the attack did what it tries, as seen from here."""
        match attack.oracle:
            case Oracle.SECRET:
                secret = self.secrets.get(attack.name, self.secrets["home-secret"])
                return any(secret in one for one in said)
            case Oracle.REPORT:
                return _reported(attack.name, said)
            case Oracle.STATE:
                return self._changed(attack.name)

    def _changed(self, name: str) -> bool:
        checks: dict[str, Callable[[], bool]] = {
            "hard-link": lambda: os.stat(self.told["home_secret"]).st_nlink > 1,
            "signals": lambda: _gone(self.target),
            "memory-bomb": lambda: (
                sum(_number(path) for path in Path(self.place.root).glob(f"eaten-{self.token}-*")) > MEMORY_ALLOWED_BYTES
            ),
        }
        check = checks.get(name)
        return _heard(self.listeners[name]) if check is None else check()


@contextlib.contextmanager
def scene(place: Place, folder: Path, token: str) -> Iterator[Scene]:
    """`folder`: exists, is not in the workspace, and may be written to. Errors: OSError when the scene cannot be set."""
    root = os.geteuid() == 0
    top = folder / f"probe-{token}"
    with contextlib.ExitStack() as after:
        top.mkdir(mode=0o755)
        after.callback(shutil.rmtree, top, ignore_errors=True)
        after.callback(_tidy, Path(place.root), token)
        secrets = {name: f"{name}-{token}" for name in ("home-secret", "shadow-file", "process-listing")}
        home, shadow = _file(top / "home", secrets["home-secret"]), _file(top / "shadow", secrets["shadow-file"])
        if root:
            os.chown(home, place.uid, place.gid)
        target = after.enter_context(_target(place if root else None, f"process={secrets['process-listing']}"))
        names = ("tcp-loopback", "udp", *(("abstract-socket",) if sys.platform == "linux" else ()))
        listeners = {name: after.enter_context(_listener(name, token)) for name in names}
        told = {
            "token": token,
            "home_secret": str(home),
            "shadow": str(shadow),
            "target": target.pid,
            "victim": target.pid,
            "process_mark": "process=",
            "remount": ["/usr", "/", "/proc"],
            "abstract": f"cohort-probe-{token}",
            "tcp_port": listeners["tcp-loopback"].getsockname()[1],
            "udp_port": listeners["udp"].getsockname()[1],
            "forks": FORKS,
            "memory_bytes": MEMORY_BYTES,
        }
        yield Scene(token, place, secrets, told, target, listeners)


def _file(path: Path, secret: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret)
    return path


@contextlib.contextmanager
def _target(owner: Place | None, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user that waits to be attacked, with a secret on its command line."""
    argv = ["/bin/sh", "-c", "read _", mark]
    if owner is None:
        target = subprocess.Popen(argv, stdin=subprocess.PIPE, cwd="/", env={})
    else:
        target = subprocess.Popen(argv, stdin=subprocess.PIPE, cwd="/", env={}, user=owner.uid, group=owner.gid, extra_groups=[])
    try:
        yield target
    finally:
        target.kill()
        target.communicate(timeout=TARGET_END_WAIT_S)


def _listener(name: str, token: str) -> socket.socket:
    match name:
        case "tcp-loopback":
            made = socket.create_server(("127.0.0.1", 0))
        case "udp":
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(("127.0.0.1", 0))
        case _:
            made = socket.socket(socket.AF_UNIX)
            made.bind(f"\0cohort-probe-{token}")
            made.listen()
    made.setblocking(False)
    return made


def _heard(listener: socket.socket) -> bool:
    """Whether anybody came: on this machine's own interfaces it is there as soon as it was sent."""
    try:
        if listener.type == socket.SOCK_DGRAM:
            listener.recv(1)
        else:
            listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _reported(name: str, said: tuple[str, ...]) -> bool:
    if name == "fork-bomb":
        numbers = [int(one.strip("'")) for one in said if one.strip("'").isdigit()]
        return not numbers or max(numbers) > FORKS_ALLOWED + FORKS_SPARE
    return bool(said)


def _gone(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(TARGET_GONE_WAIT_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _number(path: Path) -> int:
    text = path.read_text(encoding="ascii", errors="replace") if path.is_file() and not path.is_symlink() else ""
    return int(text) if text.isdigit() else 0


def _tidy(root: Path, token: str) -> None:
    """What the attackers left in the workspace that the probe was given."""
    for path in root.glob(f"*{token}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
