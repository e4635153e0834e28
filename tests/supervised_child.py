"""A process for the supervisor to look after: writes its id to a file and waits for SIGTERM.

Behaviour by its configuration: `exit` ends at once with that status, after a line of complaint; `deaf` ignores SIGTERM.
"""

import json
import os
import signal
import sys

config = json.load(open(sys.argv[2]))  # noqa: SIM115
if "exit" in config:
    print("the database is away", flush=True)
    sys.exit(config["exit"])
if config.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open(config["ready"], "w") as file:
    file.write(f"{os.getpid()}\n")
while True:
    signal.pause()
