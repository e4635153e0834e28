"""The program that runs attacks inside a sandbox (or without one, for control), each in a process of its own, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.kernel.sandbox.attacks_row import Attack

ROW_WAIT_S = 4.0
PREFIX = "GOT "

PRELUDE = '''
import ctypes, errno, os, socket, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
MACHINE = os.uname().machine
NUMBERS = {
    "x86_64": {"clone": 56, "clone3": 435, "unshare": 272, "setns": 308, "add_key": 248, "keyctl": 250, "request_key": 249, "bpf": 321,
               "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "fspick": 433,
               "name_to_handle_at": 303, "open_by_handle_at": 304, "kcmp": 312, "quotactl": 179, "acct": 163, "swapon": 167,
               "init_module": 175, "delete_module": 176, "kexec_load": 246, "pivot_root": 155, "move_mount": 429, "reboot": 169,
               "process_vm_readv": 310, "memfd_create": 319, "pidfd_getfd": 438, "syslog": 103},
    "aarch64": {"clone": 220, "clone3": 435, "unshare": 97, "setns": 268, "add_key": 217, "keyctl": 219, "request_key": 218, "bpf": 280,
                "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "fspick": 433,
                "name_to_handle_at": 264, "open_by_handle_at": 265, "kcmp": 272, "quotactl": 60, "acct": 89, "swapon": 224,
                "init_module": 105, "delete_module": 106, "kexec_load": 104, "pivot_root": 41, "move_mount": 429, "reboot": 142,
                "process_vm_readv": 270, "memfd_create": 279, "pidfd_getfd": 438, "syslog": 116},
}.get(MACHINE, {})
def got(text):
    print("GOT " + repr(str(text)[:400]), flush=True)
def call(name, *arguments):
    """The result and the error number of a system call, by name or number."""
    number = NUMBERS[name] if isinstance(name, str) else name
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])
    return result, ctypes.get_errno()
def read(path, size=4096):
    with open(path, "rb", buffering=0) as file:
        return file.read(size).decode(errors="replace")
'''

DRIVER = """
import json, select, signal, traceback
asked = json.load(sys.stdin)
def one(row):
    ours, theirs = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.dup2(theirs, 1); os.close(theirs); os.close(ours)
        try:
            exec(row["program"], {**globals(), "told": row["told"]})
        except BaseException as error:
            print("FAILED " + repr(f"{type(error).__name__}: {error}"[:300]), flush=True)
        sys.stdout.flush(); os._exit(0)
    os.close(theirs)
    text, until = b"", time.monotonic() + asked["wait_s"]
    while len(text) < 65536 and select.select([ours], [], [], max(0, until - time.monotonic()))[0]:
        more = os.read(ours, 65536)
        if not more:
            break
        text += more
    os.close(ours)
    try:
        os.kill(child, signal.SIGKILL)
    except OSError:
        pass
    os.waitpid(child, 0)
    return text.decode(errors="replace").splitlines()
for row in asked["rows"]:
    print(json.dumps({"name": row["name"], "lines": one(row)}), flush=True)
"""

ARGV = ("python3", "-I", "-c", PRELUDE + DRIVER)
"""To be run with the system's own Python in a sandbox, with `request` on its standard input."""


def request(attacks: Sequence[Attack], told: Mapping[str, Any], wait_s: float = ROW_WAIT_S) -> bytes:
    """What the driver reads: programs and their parameters."""
    rows = [{"name": attack.name, "program": attack.program, "told": dict(told)} for attack in attacks]
    return json.dumps({"rows": rows, "wait_s": wait_s}).encode()


def evidence(output: bytes) -> dict[str, tuple[str, ...]]:
    """What each attack that was tried handed in. Lines an attacker garbles are nobody's evidence."""
    found: dict[str, tuple[str, ...]] = {}
    for line in output.splitlines():
        try:
            said = json.loads(line)
            found[str(said["name"])] = tuple(str(one)[len(PREFIX) :] for one in said["lines"] if str(one).startswith(PREFIX))
        except (ValueError, KeyError, TypeError):
            continue
    return found
