"""`cohort up` with small children in place of control and the gateway: everything but what they serve is the real thing."""

import sys
from pathlib import Path

from cohort.base.clock import SystemClock
from cohort.base.settings import Settings
from cohort.ops import house
from cohort.ops.configurations import Listener
from cohort.ops.installation import open_folder
from support_processes import child_spec

folder, generation, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
settings = Settings(folder)
open_folder(settings.data)
chosen = [Listener(child_spec(folder, name, generation=generation), "127.0.0.1", 1, f"{name}.port") for name in names]
talk = house.Talk(lambda line: print(line, file=sys.stderr, flush=True), lambda _: None, lambda _: print("ready", flush=True))
lock = house.locked(settings.data)
house.supervise(settings, chosen, SystemClock(), talk)
