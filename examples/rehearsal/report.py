"""What happened, as named checks with their figures: the one JSON object of `--json`."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from typing import Any

LIMIT_S = 180.0


@dataclass(frozen=True, slots=True)
class Check:
    """One required thing: whether it happened, and the figures that say so."""

    name: str
    ok: bool
    text: str
    figures: dict[str, Any]


@dataclass(slots=True)
class Report:
    """Every check, in the order of the story. A required check that was never reached counts as not happened."""

    required: tuple[str, ...]
    began: float = field(default_factory=time.monotonic)
    checks: dict[str, Check] = field(default_factory=dict)
    trouble: str | None = None

    def add(self, name: str, ok: bool, text: str, **figures: Any) -> Check:
        if name not in self.required:
            raise KeyError(f"{name} is not among the required checks")
        check = self.checks[name] = Check(name, ok, text, figures)
        return check

    @property
    def took_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def ok(self) -> bool:
        return self.trouble is None and all(name in self.checks and self.checks[name].ok for name in self.required)

    @property
    def missing(self) -> list[str]:
        return [name for name in self.required if name not in self.checks or not self.checks[name].ok]

    def to_json(self) -> dict[str, Any]:
        """Plain values. `ok` is true only when every check is."""
        unreached = Check("", False, "was not reached", {})
        checks = {name: self.checks.get(name, unreached) for name in self.required}
        return {
            "ok": self.ok,
            "took_s": round(self.took_s, 1),
            "not_happened": self.missing,
            "trouble": self.trouble,
            "machine": {"cores": os.cpu_count(), "usable_cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
            "checks": {name: {"ok": check.ok, "text": check.text, **check.figures} for name, check in checks.items()},
        }
