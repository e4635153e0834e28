"""The host that attacks are tried on: harmless stand-ins for what they want, on a file system of its own, and eyes to see whether they got it.

Needs root, who can give files to users and mount. Everything is made below one new directory, but for two directories of a random name:
one under /usr/local/share, and nothing else. Floods write to the stage's own file system, which is small; it is looked at before it is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Limits, Place
from cohort.kernel.sandbox import attacks_driver
from cohort.kernel.sandbox.attacks import Attack, Oracle
from cohort.kernel.workspaces.backend import Size
from cohort.kernel.workspaces.backend_image import ImageBackend
from support_ordinary import python, started_as

PRIVATE_UID = 200_007
MEBIBYTE = 1 << 20
STAGE_BYTES, STAGE_FILES = 160 * MEBIBYTE, 8_000
QUOTA_BYTES, QUOTA_FILES = 16 * MEBIBYTE, 1_000
LIMITS = Limits(disk_bytes=QUOTA_BYTES, files=QUOTA_FILES, memory_bytes=128 * MEBIBYTE, processes=32, command_s=20.0)
FORKS, FLOOD_FILES, MEMORY_BYTES, WORKSPACE_BYTES, TMP_BYTES = 200, 1_500, 320 * MEBIBYTE, 24 * MEBIBYTE, 72 * MEBIBYTE
FORKS_SPARE = 8
"""Supervisors of a sandbox count against its limit of processes."""
USR = Path("/usr/local/share")
ANSWER_BYTES_MAX = 8 << 20
VICTIM = """
import ctypes, sys
kept = ctypes.create_string_buffer(sys.argv[1].encode(), 64)
libc = ctypes.CDLL(None)
libc.prctl(0x59616d61, -1, 0, 0, 0)  # where Yama is: let anybody trace this one
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(int(sys.argv[2]), 4096, 0o1600)
ctypes.memmove(libc.shmat(segment, None, 0), sys.argv[1].encode() + b"\\0", len(sys.argv[1]) + 1)
print(ctypes.addressof(kept), segment, flush=True)
sys.stdin.read()
libc.shmctl(segment, 0, None)
"""


class Ear:
    """Listens where attackers may want to be heard, and remembers what was said."""

    def __init__(self, path: Path, uid: int, address: str) -> None:
        self.heard = b""
        self.abstract = f"cohort-{secrets.token_hex(8)}"
        self._sockets = [
            socket.create_server(("127.0.0.1", 0)),
            socket.create_server((address, 0)),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            socket.socket(socket.AF_UNIX),
            socket.socket(socket.AF_UNIX),
        ]
        self._sockets[2].bind(("127.0.0.1", 0))
        self._sockets[3].bind("\0" + self.abstract)
        self._sockets[4].bind(str(path))
        os.chown(path, uid, uid)
        for one in self._sockets[3:]:
            one.listen()
        self.ports = [one.getsockname()[1] for one in self._sockets[:3]]
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        waiting: list[socket.socket] = [*self._sockets, self._wake[0]]
        while True:
            for ready in select.select(waiting, [], [])[0]:
                if ready is self._wake[0]:
                    return
                if ready in self._sockets and ready is not self._sockets[2]:
                    waiting.append(ready.accept()[0])
                    continue
                data = ready.recv(1000)
                self.heard += data + b"\n" if data else b""
                if not data and ready not in self._sockets:
                    waiting.remove(ready)
                    ready.close()

    def knows(self, words: str) -> bool:
        """Whether it was said; waits for a moment if not, because what was sent may still be on its way."""
        for _ in range(20):
            if words.encode() in self.heard:
                return True
            select.select([], [], [], 0.005)
        return False

    def close(self) -> None:
        self._wake[1].send(b"x")
        self._thread.join()
        for one in [*self._sockets, *self._wake]:
            one.close()


@dataclass
class Stage:
    """`uid`: whom the attackers run as. `root`: where everything is. `workspace`: theirs; its quota is hard if `hard`.

    `image`: a workspace as it is in production; None for a plain directory or a tmpfs.
    """

    uid: int
    hard: bool
    root: Path
    folder: Path
    usr: Path
    image: Path | None = None
    mounts: list[Path] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    close: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    told: dict[str, Any] = field(default_factory=dict)
    ear: Ear = field(init=False)

    @property
    def workspace(self) -> Path:
        return self.image or self.folder / "workspaces" / "w1"

    def place(self) -> Place:
        return Place(WorkspaceId(f"ws_{self.root.name[-8:]}"), str(self.workspace), self.uid, self.uid, self.hard, (".git/hooks",))

    def mount(self, path: Path, options: str) -> None:
        """A tmpfs of its own; refuses to go on when it is not what was asked for."""
        path.mkdir(exist_ok=True)
        before = path.stat().st_dev
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "cohort-test", str(path)], check=True)
        self.mounts.append(path)
        about = os.statvfs(path)
        if path.stat().st_dev == before or about.f_blocks * about.f_frsize > STAGE_BYTES or about.f_files > STAGE_FILES:
            raise RuntimeError(f"{path} is not the small file system it should be")

    def write(self, name: str, text: str, uid: int, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, uid, uid)
        return path


@contextlib.contextmanager
def stage(uid: int, hard: bool, image: bool = False) -> Iterator[Stage]:
    """`image`: the workspace is an image with a file system, as `ImageBackend` makes them; it has to be available."""
    root = Path(tempfile.mkdtemp(prefix="cohort-attacks-"))
    root.chmod(0o755)
    made = Stage(uid, hard, root, root / "fs", Path(tempfile.mkdtemp(prefix="cohort-attacks-", dir=USR)))
    try:
        with made.close:
            _build(made, image)
            yield made
    finally:
        for path in reversed(made.mounts):
            if subprocess.run(["umount", str(path)], capture_output=True).returncode != 0:
                subprocess.run(["umount", "-l", str(path)], check=True)
        shutil.rmtree(root)
        shutil.rmtree(made.usr)


def _build(made: Stage, image: bool) -> None:
    made.mount(made.folder, f"size={STAGE_BYTES},nr_inodes={STAGE_FILES},mode=755")
    (made.folder / "workspaces").mkdir()
    if image:
        _attach_image(made)
    else:
        _make_workspace(made)
    os.chown(made.usr, made.uid, made.uid)
    made.usr.chmod(0o755)
    _secrets(made)
    _victims(made)
    _network(made)


def _make_workspace(made: Stage) -> None:
    made.workspace.mkdir()
    if made.hard:
        made.mount(made.workspace, f"size={QUOTA_BYTES},nr_inodes={QUOTA_FILES},mode=755")
    for name in (".git/hooks", "control"):
        (made.workspace / name).mkdir(parents=True)
    for path in (made.workspace, made.workspace / ".git", made.workspace / ".git/hooks", made.workspace / "control"):
        os.chown(path, made.uid, made.uid)


def _attach_image(made: Stage) -> None:
    backend, size = ImageBackend(str(made.root / "images"), str(made.root / "mounts")), Size(QUOTA_BYTES, QUOTA_FILES)
    backend.make("w1", size)
    made.close.callback(backend.remove, "w1")
    backend.assign("w1", made.uid)
    made.image = Path(backend.attach("w1", size))


def _secrets(made: Stage) -> None:
    new = secrets.token_hex
    tenant = f"tenant-{new(6)}"
    made.secrets = {name: f"{name}={new(12)}" for name in ("home", "shadow", "plan", "environ", "descriptor", "memory", "process", "data")}
    home = made.write("home/key", made.secrets["home"], made.uid)
    os.chown(home.parent, made.uid, made.uid)
    shadow = made.write("shadow", made.secrets["shadow"], 0)
    made.mount(made.folder / "workspaces" / tenant, "size=65536,nr_inodes=10,mode=755")
    made.write(f"workspaces/{tenant}/plan", made.secrets["plan"], made.uid)
    made.secrets["tenant"] = tenant
    made.write("descriptor", made.secrets["descriptor"], 0)
    key, log = made.write("data/secrets/operator.key", made.secrets["data"], made.uid), made.write("data/audit.db", "log", made.uid)
    for path in (key.parent, log.parent):
        path.chmod(0o700)
        os.chown(path, made.uid, made.uid)
    suid = made.usr / "id"
    shutil.copy("/usr/bin/id", suid)
    suid.chmod(0o4755)
    made.told |= {
        "home_secret": str(home),
        "shadow": str(shadow),
        "data_secrets": str(key.parent),
        "audit_log": str(log),
        "tenants": str(made.folder / "workspaces"),
        "tenant_mark": "tenant-",
        "usr": str(made.usr),
        "environ_mark": "environ=",
        "process_mark": "process=",
        "setuid_program": str(suid),
        "handle": handle(shadow),
        "ours": [os.stat(made.folder).st_dev],
        "forks": FORKS,
        "files": FLOOD_FILES,
        "memory_bytes": MEMORY_BYTES,
        "workspace_bytes": WORKSPACE_BYTES,
        "tmp_bytes": TMP_BYTES,
    }


def handle(path: Path) -> tuple[int, str] | None:
    """The file handle of `path`, by which root could open it without a name; None where the file system has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    record, mount = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)), ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), record, ctypes.byref(mount), 0) != 0:
        return None
    size, kind = struct.unpack_from("Ii", record.raw)
    return kind, record.raw[8 : 8 + size].hex()


def _victims(made: Stage) -> None:
    key = secrets.randbelow(1 << 30) + 1
    argv = [python(), "-I", "-c", VICTIM, made.secrets["memory"], str(key), made.secrets["process"]]
    user = {"user": made.uid, "group": made.uid, "extra_groups": []}
    victim = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", **user)
    made.close.callback(_end, victim)
    assert victim.stdout is not None
    address = int(victim.stdout.readline().split()[0])
    made.told |= {"victim": victim.pid, "victim_address": address, "shm_key": key}


def _end(victim: subprocess.Popen[bytes]) -> None:
    assert victim.stdin is not None
    victim.stdin.close()
    victim.wait(5)
    assert victim.stdout is not None
    victim.stdout.close()


def _network(made: Stage) -> None:
    found = [
        one.address
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET and one.address[:4] != "127."
    ]
    address = found[0] if found else "127.1.2.3"
    path = made.workspace / "daemon"
    made.ear = Ear(path, made.uid, address)
    made.close.callback(made.ear.close)
    made.told |= {"abstract": made.ear.abstract, "socket_name": "daemon", "tcp_port": made.ear.ports[0]}
    made.told |= {"address": address, "address_port": made.ear.ports[1], "udp_port": made.ear.ports[2]}


@dataclass
class Trial:
    """One round of attacks on a stage. `token`: this round's, in everything it leaves behind."""

    stage: Stage
    token: str
    target: subprocess.Popen[bytes]
    evidence: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def succeeded(self, attack: Attack) -> bool | None:
        """What the host saw; None when the attack was not tried at all."""
        if attack.name not in self.evidence:
            return None
        said = self.evidence[attack.name]
        if attack.oracle is Oracle.SECRET:
            return any(self._secret(attack.name) in one for one in said)
        if attack.oracle is Oracle.REPORT:
            return self._reported(attack.name, said)
        return self._changed(attack.name)

    def _secret(self, name: str) -> str:
        kept = self.stage.secrets
        by_name = {
            "shadow-file": kept["shadow"],
            "open-by-handle": kept["shadow"],
            "tenant-listing": kept["plan"],
            "data-directory-keys": kept["data"],
            "environ": kept["environ"],
            "descriptors": kept["descriptor"],
            "setuid": "'0'",
            "mountinfo": kept["tenant"],
            "ptrace": kept["memory"],
            "sysv-memory": kept["memory"],
            "process-listing": kept["process"],
        }
        return by_name.get(name, kept["home"])

    def _reported(self, name: str, said: Sequence[str]) -> bool:
        numbers = [int(one.strip("'")) for one in said if one.strip("'").isdigit()]
        if name == "fork-bomb":
            return any(number > LIMITS.processes + FORKS_SPARE for number in numbers)
        if name in ("tmp-fill", "dev-fill"):
            return any(number >= TMP_BYTES for number in numbers)
        if name == "memfd-exec":
            return any(self.token in one for one in said)
        return bool(said)

    def _changed(self, name: str) -> bool:
        folder, token = self.stage.workspace, self.token
        checks: dict[str, Callable[[], bool]] = {
            "write-usr": lambda: (self.stage.usr / token).exists(),
            "hard-link": lambda: os.stat(self.stage.told["home_secret"]).st_nlink > 1,
            "audit-log-file": lambda: token in Path(self.stage.told["audit_log"]).read_text(),
            "protected-name": lambda: any(token in path.read_text() for path in folder.glob("**/.git/hooks/pre-commit")),
            "set-id-file": lambda: any(path.stat().st_mode & 0o6000 for path in folder.glob(f"**/set-id-{token}*")),
            "signals": lambda: _gone(self.target),
            "orphan-daemon": lambda: bool(_running(f"orphan-{token}")),
            "abstract-socket": lambda: self.stage.ear.knows(f"abstract {token}"),
            "pathname-socket": lambda: self.stage.ear.knows(f"pathname {token}"),
            "tcp-loopback": lambda: self.stage.ear.knows(f"loopback {token}"),
            "metadata-internet": lambda: self.stage.ear.knows(f"address {token}"),
            "udp": lambda: self.stage.ear.knows(f"udp {token}"),
            "memory-bomb": lambda: sum(int(path.read_text() or 0) for path in folder.glob(f"**/eaten-{token}-*")) > LIMITS.memory_bytes,
            "workspace-fill": lambda: sum(path.stat().st_size for path in folder.glob(f"**/full-{token}-*")) > QUOTA_BYTES,
            "inode-flood": lambda: sum(len(list(path.iterdir())) for path in folder.glob(f"**/flood-{token}")) > QUOTA_FILES,
        }
        return checks[name]()

    def tidy(self) -> None:
        """Take away what floods left, so that the next attack finds room."""
        for path in self.stage.workspace.glob(f"**/*{self.token}*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for pid in _running(f"orphan-{self.token}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _gone(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return False
    return True


def _running(mark: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if mark.encode() in Path(f"/proc/{int(name)}/cmdline").read_bytes():
                found.append(int(name))
    return found


@contextlib.contextmanager
def trial(made: Stage) -> Iterator[Trial]:
    user = {"user": made.uid, "group": made.uid, "extra_groups": []}
    target = subprocess.Popen(["sleep", "60"], cwd="/", **user)
    try:
        yield Trial(made, secrets.token_hex(8), target)
    finally:
        target.kill()
        target.wait()


class Attacker:
    """A process (root's, or the agent's own uid's when `ordinary`) that starts sandboxes of one kind, one after the other.

    It holds a secret in its environment and one in an open descriptor, as the process that starts sandboxes may.
    """

    def __init__(self, made: Stage, backend: str, *, ordinary: bool) -> None:
        self._stage = made
        self._descriptor = os.open(made.folder / "descriptor", os.O_RDONLY)
        os.set_inheritable(self._descriptor, True)
        environment = {"COHORT_TEST_SECRET": made.secrets["environ"]}
        self._process = started_as(
            made.uid if ordinary else None, "import support_attacks_child", environment, (self._descriptor,), backend=backend
        )

    def run(self, attacks: Sequence[Attack], told: dict[str, Any], *, as_root: bool = False) -> dict[str, tuple[str, ...]]:
        """What the attacks handed in. A sandbox that ended early gives the evidence up to there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        place = self._stage.place()
        request = {
            "place": [place.workspace, place.root, place.uid, place.gid, place.hard_quota, list(place.read_only)],
            "request": attacks_driver.request(attacks, told).decode(),
            "as_root": as_root,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline(ANSWER_BYTES_MAX) or '{"error": "the process that starts sandboxes is gone"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        found = attacks_driver.evidence(answer["stdout"].encode())
        if answer.get("stopped_by"):
            found = {attack.name: () for attack in attacks if attack.alone} | found  # the attack brought its own sandbox down
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        os.close(self._descriptor)


def attempt(made: Stage, attacker: Attacker, attacks: Sequence[Attack], told: dict[str, Any]) -> dict[str, bool | None]:
    """For each attack, whether it succeeded. Those that harm nobody share a sandbox."""
    together = [attack for attack in attacks if not attack.alone]
    groups = [[attack for attack in together if not attack.as_root], [attack for attack in together if attack.as_root]]
    groups += [[attack] for attack in attacks if attack.alone]
    found: dict[str, bool | None] = {}
    for group in groups:
        with trial(made) as one:
            words = {"token": one.token, "target": one.target.pid, "orphan_mark": f"orphan-{one.token}"}
            one.evidence = attacker.run(group, made.told | told | words, as_root=bool(group) and group[0].as_root)
            found |= {attack.name: one.succeeded(attack) for attack in group}
            one.tidy()
    return found


def in_sandbox(made: Stage, backend: str, attacks: Sequence[Attack], *, ordinary: bool) -> dict[str, bool | None]:
    attacker = Attacker(made, backend, ordinary=ordinary)
    try:
        told = {"remount": ["/usr", "/", "/proc", "/dev"], "tmp": "/tmp", "dev": ["/dev", "/dev/shm"]}
        return attempt(made, attacker, attacks, told)
    finally:
        attacker.close()


def without_sandbox(made: Stage, attacks: Sequence[Attack]) -> dict[str, bool | None]:
    """The control. Rows that need root's rights are tried as root, with mounts and a machine name of their own."""
    attacker = Attacker(made, "none", ordinary=False)
    try:
        flood = str(made.workspace / "control")
        return attempt(made, attacker, attacks, {"remount": [flood], "tmp": flood, "dev": [flood]})
    finally:
        attacker.close()
