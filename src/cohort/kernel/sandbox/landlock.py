"""Landlock: what a process may do to files, TCP ports and other processes, said once and never taken back.

Imports nothing of Cohort, because it also runs inside a sandbox. Sources: kernel documentation, "Landlock: unprivileged access control";
`linux/landlock.h`. What it cannot stop on ABI 7: sockets with a path name, UDP, and reading the attributes of files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

CREATE_RULESET, ADD_RULE = 444, 445
ASK_VERSION = 1
RULE_PATH, RULE_PORT = 1, 2
ABI_KNOWN = 7
"""Newer ones are used as this one."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = 1 << 8, 1 << 9, 1 << 10, 1 << 11
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = 1 << 12, 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SCOPE_ABSTRACT_SOCKET, SCOPE_SIGNAL = 1 << 0, 1 << 1

READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
CHANGE = WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER
"""Everything but making device nodes."""
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What a rule on something that is no directory may carry."""

_FILES_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed; everything else of the same kind is not.

    `files`: path and access bits, for the path and all below. `connect_ports`, `bind_ports`: TCP; None means every port.
    `scoped`: whether signals and abstract sockets stay among the processes under these rules.
    """

    files: tuple[tuple[str, int], ...]
    connect_ports: tuple[int, ...] | None = None
    bind_ports: tuple[int, ...] | None = None
    scoped: bool = True


def abi() -> int:
    """The version of Landlock in force, at most `ABI_KNOWN`; 0 where there is none."""
    found = int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION))
    return max(0, min(found, ABI_KNOWN))


def handled_files(version: int) -> int:
    """The file accesses that this version knows."""
    return _FILES_BY_ABI.get(version, (1 << 16) - 1) if version else 0


def attributes(rules: Rules, version: int) -> bytes:
    """`struct landlock_ruleset_attr`, as long as this version knows it."""
    ports = (CONNECT_TCP if rules.connect_ports is not None else 0) | (BIND_TCP if rules.bind_ports is not None else 0)
    scopes = SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL if rules.scoped else 0
    words = [handled_files(version)] + ([ports] if version >= 4 else []) + ([scopes] if version >= 6 else [])
    return struct.pack(f"={len(words)}Q", *words)


def path_rule(access: int, fd: int) -> bytes:
    """`struct landlock_path_beneath_attr`, which is packed."""
    return struct.pack("=Qi", access, fd)


def port_rules(rules: Rules, version: int) -> list[bytes]:
    """`struct landlock_net_port_attr` of every allowed port."""
    if version < 4:
        return []
    wanted = ((CONNECT_TCP, rules.connect_ports), (BIND_TCP, rules.bind_ports))
    return [struct.pack("=QQ", access, port) for access, ports in wanted for port in ports or ()]


def ruleset(rules: Rules, version: int) -> int:
    """A descriptor of the rules, closed on exec. A path that does not exist is left out: nothing is allowed there.

    Raises:
        OSError: no Landlock here, or a path cannot be opened.
    """
    if version < 1:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock")
    header = attributes(rules, version)
    made = _call(CREATE_RULESET, header, len(header), 0)
    try:
        _fill(made, rules, version)
    except OSError:
        os.close(made)
        raise
    return made


def _fill(made: int, rules: Rules, version: int) -> None:
    for path, access in rules.files:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            mask = handled_files(version) & (access if _is_directory(fd) else access & ON_FILES)
            if mask:
                _call(ADD_RULE, made, RULE_PATH, path_rule(mask, fd), 0)
        finally:
            os.close(fd)
    for rule in port_rules(rules, version):
        _call(ADD_RULE, made, RULE_PORT, rule, 0)


def _is_directory(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o040000


def _call(number: int, *arguments: int | bytes) -> int:
    given: Sequence[object] = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    found = int(_libc.syscall(ctypes.c_long(number), *given))
    if found < 0:
        number_of_error = ctypes.get_errno()
        raise OSError(number_of_error, f"Landlock call {number}: {os.strerror(number_of_error)}")
    return found
