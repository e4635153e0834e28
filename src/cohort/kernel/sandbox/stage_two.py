"""The program between bubblewrap and a command in a cold sandbox: it limits, confines, executes, waits, and tells how it ended.

An interpreter takes longer to start than the whole sandbox, and a compiled program would have to be shipped. So the kernel writes this
one itself: a list of system calls, and 209 bytes of machine code that makes them one after the other. The list says, in this order:
not to be looked into; "set up"; to wait for one byte from the kernel, which looks at the sandbox meanwhile; to fork; and in the child,
processes, folder, Landlock, "started", execute. The parent stays outside of the child's Landlock domain, waits, and writes wait status
and resource usage to descriptor `TELL`. A call that fails ends everything before the command has begun, and its place in the list is
told instead. Only for x86_64; see docs/decisions/0073.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cohort.kernel.sandbox import landlock

MACHINE = "x86_64"
HERE = sys.platform == "linux" and platform.machine() == MACHINE
TELL, GO = 3, 4
"""The descriptors it tells and waits on; it leaves none but 0, 1 and 2 to the command."""
SET_UP, GO_AHEAD, STARTED = b"SET UP\0\0", b"G", b"STARTED\0"
REPORT = struct.Struct("=i12xqqqqq104x")
"""What Linux writes for wait4: the status, then `struct rusage` from the buffer's 16th byte: user and system time, the largest process in KiB."""
FAILURE = struct.Struct("=Qq")

IMAGES_KEPT = 64
"""An agent executes the same program in the same folder again and again; only its arguments are not part of the image."""
RESTRICT_SELF = 446
BASE = 0x400000
_HEADER, _PROGRAM_HEADER = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_CALL = struct.Struct("<q6qq")
"""Number, six arguments, the least that counts as success."""
_EXECUTE, _SPLIT = -1, -2
_PRCTL, _FCNTL, _CHDIR, _OPENAT, _CLOSE, _WRITE, _PRLIMIT, _SPLICE = 157, 72, 80, 257, 3, 1, 302, 275
_SET_DUMPABLE, _SET_NO_NEW_PRIVS, _F_SETFD, _FD_CLOEXEC, _AT_FDCWD = 4, 38, 2, 1, -100
_RULESET, _OPENED = TELL + 1, TELL + 2
"""The lowest free descriptors, which is what the system gives. Were they others, the next call would fail: nothing is open from here on."""

_CODE = bytes.fromhex(
    "4c8d6c2410"  # _start: lea r13, [rsp+16]          arguments from the second on
    "41be33221100"  #      mov  r14d, VARIABLES
    "bb44332211"  #        mov  ebx, LIST
    "488b03"  # next:      mov  rax, [rbx]             the call's number, or
    "4883f8ff"  #          cmp  rax, -1
    "7479"  #              je   execute
    "4883f8fe"  #          cmp  rax, -2
    "7426"  #              je   split
    "488b7b08"  #          mov  rdi, [rbx+8]           its six arguments
    "488b7310"  #          mov  rsi, [rbx+16]
    "488b5318"  #          mov  rdx, [rbx+24]
    "4c8b5320"  #          mov  r10, [rbx+32]
    "4c8b4328"  #          mov  r8, [rbx+40]
    "4c8b4b30"  #          mov  r9, [rbx+48]
    "0f05"  #              syscall
    "483b4338"  #          cmp  rax, [rbx+56]          the least it must answer
    "7c36"  #              jl   failed
    "4883c340"  # done:    add  rbx, 64
    "ebcb"  #              jmp  next
    "b839000000"  # split: mov  eax, 57                fork
    "0f05"  #              syscall
    "4885c0"  #            test rax, rax
    "7824"  #              js   failed
    "74ec"  #              je   done                   the child goes on with the list
    "4881eca0000000"  #    sub  rsp, 160
    "4889c7"  #            mov  rdi, rax
    "4889e6"  #            mov  rsi, rsp               status
    "31d2"  #              xor  edx, edx
    "4c8d542410"  #        lea  r10, [rsp+16]          usage
    "b83d000000"  #        mov  eax, 61                wait4
    "0f05"  #              syscall
    "baa0000000"  #        mov  edx, 160
    "eb07"  #              jmp  report
    "50"  # failed:        push rax
    "53"  #                push rbx
    "ba10000000"  #        mov  edx, 16
    "bf88776655"  # report: mov edi, TELL
    "4889e6"  #            mov  rsi, rsp
    "b801000000"  #        mov  eax, 1                 write
    "0f05"  #              syscall
    "bf7d000000"  #        mov  edi, 125
    "eb38"  #              jmp  exit
    "4883c308"  # execute: add  rbx, 8
    "488b3b"  # try:       mov  rdi, [rbx]             one path after the other
    "4885ff"  #            test rdi, rdi
    "7413"  #              je   missing
    "4c89ee"  #            mov  rsi, r13
    "4c89f2"  #            mov  rdx, r14
    "b83b000000"  #        mov  eax, 59                execve
    "0f05"  #              syscall
    "4883c308"  #          add  rbx, 8
    "ebe5"  #              jmp  try
    "bf02000000"  # missing: mov edi, 2
    "488b7308"  #          mov  rsi, [rbx+8]           words for standard error
    "488b5310"  #          mov  rdx, [rbx+16]
    "b801000000"  #        mov  eax, 1                 write
    "0f05"  #              syscall
    "bf7f000000"  #        mov  edi, 127
    "b8e7000000"  # exit:  mov  eax, 231               exit_group
    "0f05"  #              syscall
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do before the command. `rules`: Landlock's, None to go without; `cwd`: absolute; `rlimits`: pairs of resource and value.

    `paths`: where the program may be, tried in order. `variables`: all of the command's environment, as `NAME=value`. `alone`: it is
    the sandbox's own supervisor, as above; otherwise, in a warm sandbox, it goes straight on to what the child does.
    """

    rules: landlock.Rules | None
    abi: int
    rlimits: tuple[tuple[int, int], ...]
    cwd: str
    paths: tuple[str, ...]
    name: str
    variables: tuple[str, ...]
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """What was told. `started`: whether the command began; `status`: its wait status, None when it was never told."""

    started: bool
    status: int | None
    cpu_us: int
    memory_bytes: int
    failed: str | None
    error: int


@dataclass(frozen=True, slots=True)
class Image:
    """An executable file, with the names of its calls in order and the address of the first."""

    file: bytes
    names: tuple[str, ...]
    list_at: int

    def call_at(self, address: int) -> str | None:
        """The name of the call at `address` in its list; None where there is none."""
        place, rest = divmod(address - self.list_at, _CALL.size)
        return self.names[place] if 0 <= place < len(self.names) and rest == 0 else None


class Program:
    """Code, data and the list, as one segment that can be read and executed but not written. `base`: where it is in memory, below 2 GiB."""

    def __init__(self, base: int = BASE) -> None:
        self._base = base
        self._text = bytearray(_CODE)
        self._list = bytearray()
        self._variables = 0
        self.names: list[str] = []

    def data(self, content: bytes) -> int:
        """Put `content` into the image; its address."""
        self._text += bytes(-len(self._text) % 8)
        at = self._base + _HEADERS + len(self._text)
        self._text += content
        return at

    def text(self, content: str) -> int:
        return self.data(os.fsencode(content) + b"\0")

    def call(self, name: str, number: int, *arguments: int, least: int = 0) -> None:
        self.names.append(name)
        self._list += _CALL.pack(number, *arguments, *([0] * (6 - len(arguments))), least)

    def execute(self, paths: Sequence[int], variables: Sequence[int], words: int, length: int) -> None:
        self._variables = self.data(struct.pack(f"<{len(variables)}QQ", *variables, 0))
        self._list += struct.pack(f"<q{len(paths)}qqqq", _EXECUTE, *paths, 0, words, length)

    def finished(self) -> Image:
        body = bytes(self._text) + bytes(-len(self._text) % 8)
        at = self._base + _HEADERS + len(body)
        body = body.replace(bytes.fromhex("bb44332211"), b"\xbb" + struct.pack("<I", at), 1)
        body = body.replace(bytes.fromhex("41be33221100"), b"\x41\xbe" + struct.pack("<I", self._variables), 1)
        body = body.replace(bytes.fromhex("bf88776655"), b"\xbf" + struct.pack("<I", TELL), 1) + bytes(self._list)
        size = _HEADERS + len(body)
        identity = b"\x7fELF\x02\x01\x01" + bytes(9)
        header = _HEADER.pack(identity, 2, 62, 1, self._base + _HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        segment = _PROGRAM_HEADER.pack(1, 5, 0, self._base, self._base, size, size, 0x1000)
        stack = _PROGRAM_HEADER.pack(0x6474E551, 6, 0, 0, 0, 0, 0, 16)
        return Image(header + segment + stack + body, tuple(self.names), at)


_HEADERS = _HEADER.size + 2 * _PROGRAM_HEADER.size


@lru_cache(IMAGES_KEPT)
def image(plan: Plan) -> Image:
    """The executable for `plan`."""
    made = Program()
    if plan.alone:
        _supervise(made)
    made.call("no new privileges", _PRCTL, _SET_NO_NEW_PRIVS, 1)
    made.call("teller", _FCNTL, TELL, _F_SETFD, _FD_CLOEXEC)
    for kind, value in plan.rlimits:
        made.call("limits", _PRLIMIT, 0, kind, made.data(struct.pack("<QQ", value, value)), 0)
    made.call("folder", _CHDIR, made.text(plan.cwd))
    if plan.rules is not None and plan.abi:
        _confine(made, plan.rules, plan.abi)
    made.call("started", _WRITE, TELL, made.data(STARTED), len(STARTED))
    words = f"cohort: {plan.name}: not found, or not executable\n".encode(errors="replace")
    made.execute([made.text(path) for path in plan.paths], [made.text(one) for one in plan.variables], made.data(words), len(words))
    return made.finished()


def _supervise(made: Program) -> None:
    made.call("dumpable", _PRCTL, _SET_DUMPABLE, 0)
    made.call("set up", _WRITE, TELL, made.data(SET_UP), len(SET_UP))
    made.call("permission to begin", _SPLICE, GO, 0, TELL, 0, len(GO_AHEAD), 0, least=len(GO_AHEAD))
    made.call("permission to begin", _CLOSE, GO)
    made.call("fork", _SPLIT)


def _confine(made: Program, rules: landlock.Rules, abi: int) -> None:
    header = landlock.attributes(rules, abi)
    made.call("Landlock", landlock.CREATE_RULESET, made.data(header), len(header), 0)
    for path, access in rules.files:
        rule = landlock.path_rule(access & landlock.handled_files(abi), _OPENED)
        made.call(f"Landlock {path}", _OPENAT, _AT_FDCWD, made.text(path), os.O_PATH | os.O_CLOEXEC)
        made.call(f"Landlock {path}", landlock.ADD_RULE, _RULESET, landlock.RULE_PATH, made.data(rule), 0)
        made.call(f"Landlock {path}", _CLOSE, _OPENED)
    for rule in landlock.port_rules(rules, abi):
        made.call("Landlock ports", landlock.ADD_RULE, _RULESET, landlock.RULE_PORT, made.data(rule), 0)
    made.call("Landlock", RESTRICT_SELF, _RULESET, 0)
    made.call("Landlock", _CLOSE, _RULESET)


def ending(told: bytes, *images: Image) -> Ending:
    """What the bytes on descriptor `TELL` mean. Anything that is not as it should be means that it did not start, or has no status.

    `images`: of this program, and of others that write to the same descriptor when they fail.
    """
    told = told.removeprefix(SET_UP).removeprefix(GO_AHEAD)
    if not told.startswith(STARTED):
        if len(told) < FAILURE.size:
            return Ending(False, None, 0, 0, None, 0)
        at, result = FAILURE.unpack_from(told)
        names = [name for image in images if (name := image.call_at(at)) is not None]
        return Ending(False, None, 0, 0, names[0] if names else "stage two", -result)
    rest = told[len(STARTED) :]
    if len(rest) < REPORT.size:
        return Ending(True, None, 0, 0, None, 0)
    status, user_s, user_us, system_s, system_us, most_kib = REPORT.unpack_from(rest)
    return Ending(True, status, (user_s + system_s) * 1_000_000 + user_us + system_us, most_kib * 1024, None, 0)


def reason(ended: Ending) -> str:
    """Why it did not start, in words."""
    if ended.failed is None:
        return "the sandbox was not set up"
    return f"{ended.failed}: {errno.errorcode.get(ended.error, ended.error)}"
