"""An installation in a folder of its own, driven by command lines in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support_processes import environment, free_ports

COMMAND_S = 90.0


@dataclass(frozen=True, slots=True)
class Home:
    """An installation on two free ports."""

    folder: Path
    environment: dict[str, str]

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cohort.surfaces.cli", *arguments]

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*arguments), capture_output=True, text=True, cwd=self.folder, env=self.environment, timeout=COMMAND_S
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def ask(self, *arguments: str, code: int | None = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def pids(self) -> dict[str, int]:
        return {part["name"]: part["pid"] for part in self.ask("status", code=None)["parts"]}


def home_in(folder: Path) -> Home:
    """An installation on two free ports; nothing runs yet."""
    gateway, control = free_ports(2)
    return Home(folder, environment(COHORT_GATEWAY_PORT=str(gateway), COHORT_CONTROL_PORT=str(control)))
