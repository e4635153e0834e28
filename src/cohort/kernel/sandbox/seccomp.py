"""The system-call filter of every sandbox: classic BPF, assembled here, for x86_64 and aarch64.

The filter is a list of refusals in front of a general permission, with these bounds around it: another architecture's entry (`int 0x80`)
kills the process, x32 and calls newer than this table do not exist (ENOSYS), and calls whose arguments decide (clone, socket, ioctl,
mknod, chmod, open, memfd_create, personality) are judged by them. clone3 does not exist, because its flags are behind a pointer that a filter
cannot follow; the C library falls back to clone.

Arguments are compared by their lower 32 bits where the kernel itself reads 32 bits of them, which is the case for all of the above.
Sources: kernel documentation, "Seccomp BPF"; `linux/filter.h`, `linux/seccomp.h`.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from cohort.base.errors import CohortError

LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
AT_NUMBER, AT_ARCHITECTURE, AT_ARGUMENTS = 0, 4, 16
X32_BIT = 0x40000000

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_SEQPACKET, SOCK_TYPE_MASK = 1, 5, 0xF
NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. CLONE_NEWTIME lies in clone's signal bits and means nothing there."""
TERMINAL_REQUESTS = (0x5412, 0x541C, 0x541D, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD
FILE_KIND_MASK, KIND_CHARACTER, KIND_BLOCK = 0o170000, 0o020000, 0o060000
MFD_NOEXEC_SEAL = 0x8
SET_ID_BITS = 0o6000
MAKES_A_FILE = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE: without them an open has no mode, and that argument is anything
OPENAT2 = 437
"""On every architecture. Its flags are behind a pointer, so it does not exist; programs fall back to openat."""
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF)
"""The usual ones, uname26, no address randomisation, and the question which one it is; others make memory executable or fake other systems."""

# name: (x86_64, aarch64); None where the architecture never had it.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # keys, and doors with a history
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "nfsservctl": (180, 42),
    "memfd_secret": (447, 447),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "lsm_set_self_attr": (460, 460),
    # the machine itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "query_module": (178, None),
    "get_kernel_syms": (177, None),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture: its audit number and the calls that are judged by their arguments. `newest`: the last call in this table's kernels.

    `modes`: calls that set a file's mode, with the place of that argument; `opens`: calls that may make a file, with the place of their
    flags, which the mode follows.
    """

    index: int
    audit: int
    x32: bool
    clone: int
    clone3: int
    socket: int
    socketpair: int
    ioctl: int
    mknod: int | None
    mknodat: int
    memfd_create: int
    personality: int
    modes: tuple[tuple[int, int], ...]
    opens: tuple[tuple[int, int], ...]
    newest: int = 469


MACHINES = {
    "x86_64": Machine(
        *(0, 0xC000003E, True, 56, 435, 41, 53, 16, 133, 259, 319, 135),
        modes=((90, 1), (91, 1), (268, 2), (452, 2), (85, 1)),  # chmod, fchmod, fchmodat, fchmodat2, creat
        opens=((2, 1), (257, 2)),  # open, openat
    ),
    "aarch64": Machine(
        *(1, 0xC00000B7, False, 220, 435, 198, 199, 29, None, 33, 279, 92),
        modes=((52, 1), (53, 2), (452, 2)),
        opens=((56, 2),),
    ),
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """`then`, `otherwise`: how many instructions to skip when the comparison holds, or does not."""

    code: int
    value: int
    then: int = 0
    otherwise: int = 0

    def packed(self) -> bytes:
        return struct.pack("<HBBI", self.code, self.then, self.otherwise, self.value)


@cache
def program(machine: str, families: tuple[int, ...] = (AF_INET, AF_INET6), stream_only: bool = False) -> bytes:
    """The filter as the kernel reads it: an array of `struct sock_filter`.

    `families`: the socket families allowed; `stream_only`: of them only TCP. AF_UNIX exists as connected pairs of streams only: a
    datagram pair could be pointed at a socket with a name.

    Raises:
        CohortError SANDBOX_UNAVAILABLE: no table for this architecture.
    """
    known = MACHINES.get(machine)
    if known is None:
        raise CohortError(
            "SANDBOX_UNAVAILABLE", f"no system-call filter for {machine}", hint="Use an x86_64 or aarch64 machine, or a lower level."
        )
    return b"".join(one.packed() for one in _instructions(known, families, stream_only))


def _instructions(machine: Machine, families: Sequence[int], stream_only: bool) -> list[Instruction]:
    found = [
        Instruction(LOAD_WORD, AT_ARCHITECTURE),
        Instruction(JUMP_EQUAL, machine.audit, then=1),
        Instruction(RETURN, KILL_PROCESS),
        Instruction(LOAD_WORD, AT_NUMBER),
        Instruction(JUMP_AT_LEAST, machine.newest + 1, otherwise=1),  # x32 numbers are above it
        _refusal(errno.ENOSYS),
        *_when(machine.clone3, [_refusal(errno.ENOSYS)]),
        *_when(OPENAT2, [_refusal(errno.ENOSYS)]),
    ]
    for numbers in REFUSED.values():
        number = numbers[machine.index]
        if number is not None:
            found += _when(number, [_refusal(errno.EPERM)])
    for number, body in _judged(machine, families, stream_only):
        found += _when(number, body)
    return [*found, Instruction(RETURN, ALLOW)]


def _judged(machine: Machine, families: Sequence[int], stream_only: bool) -> list[tuple[int, list[Instruction]]]:
    """Calls with the block that decides by their arguments; every block ends in a return."""
    mknods = [(machine.mknodat, 2)] + ([(machine.mknod, 1)] if machine.mknod is not None else [])
    return [
        (machine.clone, [_argument(0), Instruction(JUMP_BITS, NAMESPACE_FLAGS, otherwise=1), _refusal(errno.EPERM), _allowed()]),
        (machine.socket, _socket(families, stream_only)),
        (machine.socketpair, _pair()),
        (machine.ioctl, [_argument(1), *_among(TERMINAL_REQUESTS, [_refusal(errno.EPERM)]), _allowed()]),
        (machine.memfd_create, [_argument(1), Instruction(JUMP_BITS, MFD_NOEXEC_SEAL, then=1), _refusal(errno.EACCES), _allowed()]),
        (machine.personality, [_argument(0), *_among(PERSONALITIES, [_allowed()]), _refusal(errno.EPERM)]),
        *((number, _device(place)) for number, place in mknods),
        *((number, [_argument(place), *_no_set_id()]) for number, place in machine.modes),
        *((number, _opening(place)) for number, place in machine.opens),
    ]


def _socket(families: Sequence[int], stream_only: bool) -> list[Instruction]:
    kind = [_argument(1), Instruction(AND, SOCK_TYPE_MASK), *_among((SOCK_STREAM,), [_allowed()]), _refusal(errno.EPERM)]
    found = kind if stream_only else [_allowed()]
    return [_argument(0), *_among(families, found), _refusal(errno.EAFNOSUPPORT)]


def _pair() -> list[Instruction]:
    kind = [_argument(1), Instruction(AND, SOCK_TYPE_MASK), *_among((SOCK_STREAM, SOCK_SEQPACKET), [_allowed()]), _refusal(errno.EPERM)]
    return [_argument(0), *_among((AF_UNIX,), kind), _refusal(errno.EAFNOSUPPORT)]


def _device(place: int) -> list[Instruction]:
    kinds = _among((KIND_CHARACTER, KIND_BLOCK), [_refusal(errno.EPERM)])
    return [_argument(place), Instruction(AND, FILE_KIND_MASK), *kinds, _argument(place), *_no_set_id()]


def _no_set_id() -> list[Instruction]:
    """Refuses a mode by which others would run a file with the agent's rights, which may be those of whoever runs Cohort."""
    return [Instruction(JUMP_BITS, SET_ID_BITS, otherwise=1), _refusal(errno.EPERM), _allowed()]


def _opening(flags: int) -> list[Instruction]:
    return [_argument(flags), Instruction(JUMP_BITS, MAKES_A_FILE, then=1), _allowed(), _argument(flags + 1), *_no_set_id()]


def _when(number: int, body: Sequence[Instruction]) -> list[Instruction]:
    return [Instruction(JUMP_EQUAL, number, otherwise=len(body)), *body]


def _among(values: Iterable[int], body: Sequence[Instruction]) -> list[Instruction]:
    """`body` when the loaded word is one of `values`; it has to end in a return, because the word may be another afterwards."""
    return [one for value in values for one in _when(value, body)]


def _argument(place: int) -> Instruction:
    return Instruction(LOAD_WORD, AT_ARGUMENTS + 8 * place)


def _refusal(number: int) -> Instruction:
    return Instruction(RETURN, ERRNO | number)


def _allowed() -> Instruction:
    return Instruction(RETURN, ALLOW)
