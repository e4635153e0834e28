"""What one run of a command knows: where it reads its environment from, how it answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cohort.base.errors import CohortError

if TYPE_CHECKING:
    from cohort.base.settings import Settings


@dataclass(slots=True)
class Session:
    """`environment` is the process's; `json` says that stdout is for a program. Filled in by the options of the command that runs."""

    environment: Mapping[str, str]
    json: bool = False
    config: Path | None = None
    data_dir: Path | None = None
    url: str | None = None

    def settings(self) -> Settings:
        from cohort.base.settings import load_settings

        config = self.config
        if config is None and self.environment.get("COHORT_CONFIG"):
            config = Path(self.environment["COHORT_CONFIG"])
        return load_settings(self.environment, config=config, data_dir=self.data_dir)

    def data(self, value: Any) -> None:
        """One JSON document on stdout."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def row(self, value: Any) -> None:
        """One JSON document on a line of its own."""
        sys.stdout.write(json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def text(self, line: str = "") -> None:
        """One line of the answer, for people."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def say(self, line: str) -> None:
        """One line of talk, on stderr."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    @property
    def on_terminal(self) -> bool:
        return not self.json and sys.stdout.isatty()

    def fail(self, error: CohortError) -> int:
        """Show an error; returns the exit code."""
        if self.json:
            self.data(error.problem())
        self.say(f"error: {error.message}")
        if error.hint:
            self.say(f"hint: {error.hint}")
        return error.exit_code
