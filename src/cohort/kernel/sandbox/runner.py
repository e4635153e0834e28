"""The first program of a warm sandbox: makes the Landlock rules once, then runs one command after the other as `forker.py` does.

Executed inside, where of Cohort there are this module, `forker.py` and `landlock.py`, and nothing else. Descriptor 0 is the kernel's socket and 3 a
pipe on which it says that it is ready. Neither is there for a command, nor can a command look into this process, trace it or, from
Landlock ABI 6 on, send it a signal: every command enters the rules, this process stays outside of them.
"""

from __future__ import annotations

import json
import os
import sys

from cohort.kernel.sandbox import forker, landlock

READY = 3


def main() -> None:
    """`runner.py RULES ABI`, the rules as JSON: files, connect_ports, bind_ports, scoped."""
    said, abi = json.loads(sys.argv[1]), int(sys.argv[2])
    ruleset = None
    if abi:
        files = tuple((path, access) for path, access in said["files"])
        ruleset = landlock.ruleset(landlock.Rules(files, said["connect_ports"], said["bind_ports"], said["scoped"]), abi)
    control = forker.take_control(runner=True)
    os.write(READY, b"SET UP\0\0")
    os.dup2(0, READY, inheritable=False)
    forker.Forker(control, runner=True, landlock=ruleset).run()
