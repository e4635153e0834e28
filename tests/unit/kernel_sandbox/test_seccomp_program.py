"""The system-call filter, executed by an interpreter of classic BPF on a table of calls."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.sandbox import seccomp
from cohort.kernel.sandbox.seccomp import ALLOW, ERRNO, KILL_PROCESS, MACHINES, REFUSED, program

X86, ARM = MACHINES["x86_64"], MACHINES["aarch64"]
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
GENERIC = Path("/usr/include/asm-generic/unistd.h")
I386 = 0x40000003


def verdict(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel would answer. Every jump goes forward, so this ends."""
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(one & (2**64 - 1) for one in padded))
    steps = list(struct.iter_unpack("<HBBI", code))
    word, at = 0, 0
    while True:
        operation, then, otherwise, value = steps[at]
        at += 1
        if operation == 0x20:
            (word,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:
            word &= value
        elif operation == 0x06:
            return int(value)
        else:
            holds = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[operation]
            at += then if holds else otherwise


def refused(number: int) -> int:
    return ERRNO | number


CALLS = [
    ("read", 0, (0, 0, 0), ALLOW),
    ("execve", 59, (), ALLOW),
    ("seccomp", 317, (), ALLOW),
    ("landlock_restrict_self", 446, (), ALLOW),
    ("clone as fork does", 56, (0x01200011,), ALLOW),
    ("clone of a thread", 56, (0x3D0F00,), ALLOW),
    ("clone with a user namespace", 56, (0x10000011,), refused(errno.EPERM)),
    ("clone with a mount namespace", 56, (0x00020011,), refused(errno.EPERM)),
    ("clone with a network namespace", 56, (0x40000011,), refused(errno.EPERM)),
    ("clone3", 435, (), refused(errno.ENOSYS)),
    ("a call of the future", 470, (), refused(errno.ENOSYS)),
    ("socket of AF_INET", 41, (2, 1), ALLOW),
    ("socket of AF_INET6", 41, (10, 2), ALLOW),
    ("socket of AF_UNIX", 41, (1, 1), refused(errno.EAFNOSUPPORT)),
    ("socket of AF_NETLINK", 41, (16, 3), refused(errno.EAFNOSUPPORT)),
    ("socket of AF_VSOCK", 41, (40, 1), refused(errno.EAFNOSUPPORT)),
    ("socket of AF_ALG", 41, (38, 5), refused(errno.EAFNOSUPPORT)),
    ("a pair of streams, closed on exec", 53, (1, 0x80001), ALLOW),
    ("a pair of datagram sockets", 53, (1, 2), refused(errno.EPERM)),
    ("a pair of another family", 53, (2, 1), refused(errno.EAFNOSUPPORT)),
    ("ioctl TCGETS", 16, (0, 0x5401), ALLOW),
    ("ioctl TIOCSTI", 16, (0, 0x5412), refused(errno.EPERM)),
    ("ioctl TIOCSTI with bits the kernel does not read", 16, (0, 0xFFFFFFFF00005412), refused(errno.EPERM)),
    ("ioctl TIOCLINUX", 16, (0, 0x541C), refused(errno.EPERM)),
    ("mknod of a pipe", 133, (0, 0o010644), ALLOW),
    ("mknod of a character device", 133, (0, 0o020666), refused(errno.EPERM)),
    ("mknodat of a block device", 259, (0, 0, 0o060666), refused(errno.EPERM)),
    ("memfd_create of what cannot be executed", 319, (0, 0x9), ALLOW),
    ("memfd_create of what can", 319, (0, 0x1), refused(errno.EACCES)),
    ("personality, asked", 135, (0xFFFFFFFF,), ALLOW),
    ("personality that makes memory executable", 135, (0x0400000,), refused(errno.EPERM)),
]


@pytest.mark.parametrize(("number", "arguments", "wanted"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS])
def test_a_call_gets_its_verdict(number: int, arguments: tuple[int, ...], wanted: int) -> None:
    assert verdict(program("x86_64"), X86.audit, number, *arguments) == wanted


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_of_the_table_is_refused(machine: str, name: str) -> None:
    known = MACHINES[machine]
    number = REFUSED[name][known.index]
    if number is not None:
        assert verdict(program(machine), known.audit, number) == refused(errno.EPERM)


def test_the_entry_of_another_architecture_kills() -> None:
    assert verdict(program("x86_64"), I386, 20) == KILL_PROCESS
    assert verdict(program("aarch64"), X86.audit, 0) == KILL_PROCESS


def test_no_x32_call_exists() -> None:
    code = program("x86_64")
    assert {verdict(code, X86.audit, seccomp.X32_BIT | number) for number in range(600)} == {refused(errno.ENOSYS)}


def test_aarch64_is_judged_by_arguments_too() -> None:
    code = program("aarch64")
    assert verdict(code, ARM.audit, 220, 0x10000011) == refused(errno.EPERM)
    assert verdict(code, ARM.audit, 220, 0x01200011) == ALLOW
    assert verdict(code, ARM.audit, 198, 1) == refused(errno.EAFNOSUPPORT)
    assert verdict(code, ARM.audit, 29, 0, 0x5412) == refused(errno.EPERM)
    assert verdict(code, ARM.audit, 33, 0, 0, 0o020000) == refused(errno.EPERM)


def test_without_a_network_no_socket_is_made_but_pairs() -> None:
    code = program("x86_64", families=())
    assert {verdict(code, X86.audit, 41, family, 1) for family in range(50)} == {refused(errno.EAFNOSUPPORT)}
    assert verdict(code, X86.audit, 53, 1, 1) == ALLOW


def test_stream_only_leaves_tcp() -> None:
    code = program("x86_64", stream_only=True)
    assert verdict(code, X86.audit, 41, 2, 0x80801) == ALLOW
    assert verdict(code, X86.audit, 41, 2, 2) == refused(errno.EPERM)
    assert verdict(code, X86.audit, 41, 10, 3) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_way_through_the_program_ends(machine: str) -> None:
    """Jumps stay inside, and the last instruction returns: the kernel would refuse anything else."""
    steps = list(struct.iter_unpack("<HBBI", program(machine)))
    assert steps[-1][0] == 0x06
    assert len(steps) <= 4096
    for at, (operation, then, otherwise, _) in enumerate(steps):
        if operation in (0x15, 0x35, 0x45):
            assert at + 1 + max(then, otherwise) < len(steps)


def test_an_unknown_machine_gets_no_filter() -> None:
    with pytest.raises(CohortError, match="no system-call filter") as caught:
        program("mips")
    assert caught.value.code == "SANDBOX_UNAVAILABLE"


@pytest.mark.parametrize(("header", "index"), [(HEADER, 0), (GENERIC, 1)])
def test_numbers_are_those_of_the_kernels_own_headers(header: Path, index: int) -> None:
    """Where the headers are installed. Calls newer than the headers cannot be compared; the renamed umount2 of the generic table is known."""
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    found = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())}
    compared = [name for name in REFUSED if name in found]
    assert len(compared) > 50
    assert {name: found[name] for name in compared} == {name: REFUSED[name][index] for name in compared}
    machine = list(MACHINES.values())[index]
    judged = ("clone", "clone3", "socket", "socketpair", "ioctl", "mknodat", "memfd_create", "personality")
    assert {name: found[name] for name in judged} == {name: getattr(machine, name) for name in judged}
