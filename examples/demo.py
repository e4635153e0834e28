"""`make demo`: the whole product on this machine, no key needed.

Two stand-in vendors, conversations by the official OpenAI client, and four rollouts: a better release, a harmful one, one that is slow at the
tail, and one in the middle of an incident during which control is killed. It uses what anybody has: the `cohort` command and the HTTP API.

    make demo                          # watch here and in the dashboard; Ctrl-C ends it
    make demo ARGS="--exit --json"     # run through, print one JSON object, exit non-zero if anything did not happen
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rehearsal import acts
from rehearsal.acts import Stage
from rehearsal.clients import Clients
from rehearsal.house import House
from rehearsal.processes import Failed, free_port, gone
from rehearsal.releases import FIRST, SERVICE
from rehearsal.report import LIMIT_S, Report
from rehearsal.screen import Plain, Screen
from rehearsal.upstreams import Upstreams

GATEWAY_PORT = 8700
CONTROL_PORT = 8710
CONVERSATIONS_PER_S = 45.0
CONVERSATIONS_PER_S_AFTER = 6.0
WARM_CONVERSATIONS = 250
WARM_S_MAX = 40.0
IDLE_LOOK_S = 1.0
REQUIRED = (
    "up",
    "upstreams",
    "traffic",
    "better_promoted",
    "harmful_rolled_back",
    "slow_tail_rolled_back",
    "incident_not_rolled_back",
    "control_killed_no_request_failed",
    "control_restarted_and_went_on",
    "replay_identical",
    "no_failure_but_drawn_ones",
    "within_three_minutes",
    "left_no_process",
)


class Demo:
    """Everything that has to be ended again, and the story that uses it."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self.folder = folder
        self.report = Report(REQUIRED)
        self._upstreams: Upstreams | None = None
        self._house: House | None = None
        self._clients: Clients | None = None
        self._pids: list[int] = []
        watched = sys.stderr.isatty()
        self.teller: Any = Screen(lambda: self._clients.latest if self._clients else {}) if watched else Plain()

    def run(self) -> None:
        """The story. Raises Failed where it cannot go on."""
        upstreams, house = self._start_upstreams(), self._start_house(free_port(self._options.port), free_port(CONTROL_PORT))
        stage = Stage(self.folder, house, upstreams, Any, self.report, self.teller, [])  # type: ignore[arg-type]
        stage.release(FIRST)
        stage.clients = self._start_clients(house)
        for part in (acts.better, acts.harmful, acts.slow_tail, acts.incident, acts.replay):
            part(stage)
        self._sum_up(stage)
