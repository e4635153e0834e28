"""A small program that starts other programs: outside as the spawner of all sandboxes, inside a warm sandbox as its runner.

It is a process of its own for three reasons. Forking it is cheap, because it is small. It has one thread, so code may run between
fork and exec. And it is the parent of everything it starts, for as long as control lives: the death signal of bubblewrap follows the
thread that forked it. It imports nothing of Cohort, because inside a sandbox there is none.

Protocol: descriptor 0 is a SOCK_SEQPACKET socket. A message is a JSON object, with descriptors beside it; end of file ends the program
and everything it started. To start: `id`, `argv`, `env`, `cwd`, `fds` (the numbers the descriptors get, the first descriptor excepted:
that one is told how it goes), and what else `_prepare` reads. To signal: `kill` (the id), `signal`. Told are lines of JSON:
`{"pid": ..}`; at the end `{"status": .., "cpu_us": .., "memory_bytes": ..}`, the wait status; or `{"error": ..}`, when it was not started.

Modes: `spawner` adopts what bubblewrap leaves behind and ends it before the end is told; `runner` kills every process of its pid
namespace after each command, which is one system call and cannot be outrun.
"""

from __future__ import annotations

import array
import base64
import ctypes
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from typing import Any

MESSAGE_BYTES_MAX = 256 << 10
DESCRIPTORS_MAX = 32
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
SECCOMP_MODE_FILTER = 2
LANDLOCK_RESTRICT_SELF = 446
KILL_ROUNDS_MAX = 1000
PROGRAM = -1
"""In place of a descriptor's number: a program to execute as it is. See `ends.Ends.lend_program`."""
LOW = 16
"""Descriptors below are kept busy, so that none that comes in has a number that a program is to get."""
FIRST_FREE = 64
"""Descriptors are moved out of the way to here before they get their numbers."""

_libc = ctypes.CDLL(None, use_errno=True)


class FolderError(Exception):
    """The command's folder cannot be entered."""


class Child:
    """One program started. `waiting`: what it left behind and is not reaped yet."""

    def __init__(self, order: dict[str, Any], told: int) -> None:
        self.id = order["id"]
        self.told = told
        self.status: int | None = None
        self.cpu_us = 0
        self.memory_bytes = 0
        self.waiting: set[int] = set()

    def count(self, usage: resource.struct_rusage) -> None:
        self.cpu_us += int((usage.ru_utime + usage.ru_stime) * 1e6)
        self.memory_bytes = max(self.memory_bytes, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))

    def end(self) -> None:
        """Say how it ended, once."""
        tell(self.told, {"status": self.status, "cpu_us": self.cpu_us, "memory_bytes": self.memory_bytes})
        os.close(self.told)


class Forker:
    """The loop. `runner`: one command at a time, and everything else in the pid namespace dies with it.

    `landlock`: the rule set that every command enters, beside what its order says.
    """

    def __init__(self, control: socket.socket, runner: bool, landlock: int | None = None) -> None:
        self._control = control
        self._landlock = landlock
        self._runner = runner
        self._children: dict[int, Child] = {}
        self._adopted: dict[int, Child] = {}
        self._wake_r, wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(wake_w, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_r, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._wake_r in ready:
                drain(self._wake_r)
                self._reap()
            if self._control.fileno() in ready and not self._receive():
                self._end_all()
                return

    def _receive(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(MESSAGE_BYTES_MAX, socket.CMSG_SPACE(DESCRIPTORS_MAX * 4), CLOEXEC)
        fds = received(ancillary)
        if not data:
            return False
        order = json.loads(data)
        if self._landlock is not None:
            order["landlock"] = self._landlock
        if "kill" in order:
            self._signal(order)
            return True
        if not CLOEXEC:
            for fd in fds:
                os.set_inheritable(fd, False)
        self._start(order, fds)
        return True

    def _start(self, order: dict[str, Any], fds: list[int]) -> None:
        told = fds[0]
        try:
            pid = spawn(order, fds) if PROGRAM in order["fds"] else os.fork()
        except OSError as error:
            tell(told, {"error": f"not started: {error}"})
            for fd in fds:
                os.close(fd)
            return
        if pid == 0:
            become(order, fds, self._control.fileno())
        for fd in fds[1:]:
            os.close(fd)
        tell(told, {"pid": pid})
        self._children[pid] = Child(order, told)

    def _signal(self, order: dict[str, Any]) -> None:
        """Only to a child that is not reaped yet, so its number cannot belong to anybody else; with its session, once it has one."""
        for pid, child in self._children.items():
            if child.id == order["kill"]:
                kill(-pid, order["signal"])
                kill(pid, order["signal"])

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reaped(pid, status, usage)

    def _reaped(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        child = self._children.pop(pid, None)
        if child is not None:
            child.status = status
            if sys.platform != "linux":
                kill(-pid, signal.SIGKILL)  # where nothing can be adopted, its session is all that can be found
        else:
            child = self._adopted.pop(pid, None)
            if child is None:
                return
            child.waiting.discard(pid)
        child.count(usage)
        if self._runner:
            self._clear(child)
        else:
            self._adopt(child)
        if not child.waiting:
            child.end()

    def _adopt(self, child: Child) -> None:
        """Kill what it left behind: children of this process that this process did not start."""
        for pid in own_children() - self._children.keys() - self._adopted.keys():
            self._adopted[pid] = child
            child.waiting.add(pid)
            kill(pid, signal.SIGKILL)

    def _clear(self, child: Child) -> None:
        """Kill every other process of the pid namespace, but for its first, and wait until none is left."""
        while True:
            kill(-1, signal.SIGKILL)
            try:
                child.count(os.wait4(-1, 0)[2])
            except ChildProcessError:
                return

    def _end_all(self) -> None:
        for pid in self._children:
            kill(pid, signal.SIGKILL)
        for _ in range(KILL_ROUNDS_MAX):
            try:
                os.wait4(-1, 0)
            except ChildProcessError:
                return
            for pid in own_children() - self._children.keys():
                kill(pid, signal.SIGKILL)


CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""All are as they were at first for a program; naming all spares the C library to ask about each."""


def received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came beside a message."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def spawn(order: dict[str, Any], fds: list[int]) -> int:
    """Execute the program that came along: it prepares itself. Not forking this process saves most of the time."""
    pairs = list(zip(order["fds"], fds[1:], strict=True))
    moves = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in pairs if number != PROGRAM]
    program = next(fd for number, fd in pairs if number == PROGRAM)
    argv = ["stage-two", *order["argv"]]
    return os.posix_spawn(f"/proc/self/fd/{program}", argv, {}, file_actions=moves, setsid=True, setsigmask=(), setsigdef=SIGNALS)


def become(order: dict[str, Any], fds: list[int], control: int) -> None:
    """In the new process: turn into the program, or say why not. Never comes back."""
    told = fds[0]
    try:
        os.close(control)
        if order.get("nanny"):
            _mind()
        _prepare(order, fds)
    except BaseException as error:
        tell(told, {"error": f"{type(error).__name__}: {error}", "folder": isinstance(error, FolderError)})
    finally:
        os._exit(125)


def _mind() -> None:
    """Fork once more, and stay as the parent that ends all the program leaves behind; the program goes on, in the child."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = os.getppid()
    pid = os.fork()
    if pid == 0:
        return

    def end(*_: object) -> None:
        kill(-pid, signal.SIGKILL)
        kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)  # when the forker itself was killed, which sends this
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        end()
    os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # also those that tell of others: their end must be seen
    _, status, _ = os.wait4(pid, 0)
    kill(-pid, signal.SIGKILL)
    for _ in range(KILL_ROUNDS_MAX):
        for left in own_children():
            kill(left, signal.SIGKILL)
        try:
            os.wait4(-1, 0)
        except ChildProcessError:
            break
    end_as(status)


def end_as(status: int) -> None:
    """End the way a child ended, so that the parent sees the same wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 125)


def _prepare(order: dict[str, Any], fds: list[int]) -> None:
    """Everything between fork and exec, in the order in which each step is still allowed."""
    for path in order.get("cgroups", ()):
        write_file(path, b"0")
    if order.get("session", True):
        os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    _arrange(order, fds)
    if "uid" in order:
        os.setgroups([])
        os.setresgid(order["gid"], order["gid"], order["gid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])
    try:
        os.chdir(order.get("cwd") or "/")
    except OSError as error:
        raise FolderError(error.strerror) from error
    for kind, value in order.get("rlimits", ()):
        _limit(kind, value)
    _confine(order)
    _execute(order)


def _arrange(order: dict[str, Any], fds: list[int]) -> None:
    """Give the descriptors their numbers; whatever else is open closes by itself at exec. The teller stays, to tell of a failure."""
    moved = [_duplicate(fd, FIRST_FREE + place) for place, fd in enumerate(fds)]
    fds[0] = moved[0]
    for source, number in zip(moved[1:], order["fds"], strict=True):
        os.dup2(source, number, inheritable=True)


def _duplicate(fd: int, at_least: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, at_least)


def _limit(kind: int, value: int) -> None:
    """Both limits at `value`, or at what the hard limit already is when that is lower."""
    _, hard = resource.getrlimit(kind)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))


def _confine(order: dict[str, Any]) -> None:
    """Landlock by a rule set that was made before, then the filter; both last, and neither can be taken back."""
    ruleset, program = order.get("landlock"), order.get("seccomp")
    if ruleset is None and program is None:
        return
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if ruleset is not None:
        restrict(ruleset)
        os.close(ruleset)
    if program is not None:
        load_filter(base64.b64decode(program))


def _execute(order: dict[str, Any]) -> None:
    argv, env = order["argv"], order.get("env", {})
    for number in order.get("tell", ()):
        os.write(number, b"STARTED\0")
        os.set_inheritable(number, False)
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606
    except FileNotFoundError:
        if not order.get("forgive"):
            raise
        os.write(2, f"cohort: {argv[0]}: not found\n".encode(errors="replace"))
        os._exit(127)
    except PermissionError:
        if not order.get("forgive"):
            raise
        os.write(2, f"cohort: {argv[0]}: cannot be executed\n".encode(errors="replace"))
        os._exit(126)


def restrict(ruleset: int) -> None:
    """Enter a Landlock rule set, for good."""
    if _libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")


def load_filter(program: bytes) -> None:
    """Install a system-call filter, for good."""
    text = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    holder = ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(holder))


def prctl(option: int, one: int, two: int = 0) -> None:
    if sys.platform != "linux":
        return
    if _libc.prctl(option, ctypes.c_ulong(one), ctypes.c_ulong(two), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def own_children() -> set[int]:
    """Children of this process, which has one thread. Empty where the system does not list them."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return {int(one) for one in file.read().split()}
    except FileNotFoundError:
        return set()


def kill(pid: int, number: int) -> None:
    """A process that is gone already needs no signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def write_file(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def drain(fd: int) -> None:
    while True:
        try:
            if len(os.read(fd, 4096)) < 4096:
                return
        except BlockingIOError:
            return


def tell(fd: int, what: dict[str, Any]) -> None:
    """A line for whoever waits; when nobody does any more, the end is not held up."""
    try:
        os.write(fd, json.dumps(what).encode() + b"\n")
    except (BrokenPipeError, BlockingIOError):
        return


def take_control(runner: bool) -> socket.socket:
    """The socket from descriptor 0, where no command finds it. A runner cannot be looked into by what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if runner:
        prctl(PR_SET_DUMPABLE, 0)
    fd = _duplicate(0, FIRST_FREE - 1)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    while null < LOW:
        null = os.dup(null)
    return socket.socket(fileno=fd)


def main() -> None:
    """The spawner; for the runner see `runner.py`."""
    Forker(take_control(runner=False), runner=False).run()


if __name__ == "__main__":
    main()
