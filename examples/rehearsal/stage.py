"""What the acts of the demo work with, and how they wait for a rollout."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rehearsal.house import House
from rehearsal.processes import Failed
from rehearsal.releases import SERVICE, Candidate, write_release
from rehearsal.report import Report
from rehearsal.upstreams import Upstreams

SPEED = 100_000
LOOK_EVERY_S = 0.25
ROLLOUT_S_MAX = 150.0
SETTLED_S_MAX = 20.0
ENDED = ("promoted", "rolled_back", "aborted")


class Teller(Protocol):
    """What shows the story."""

    def begin(self, title: str) -> None: ...
    def end(self, ok: bool, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def head(self, text: str) -> None: ...
    def view(self, rollout: dict[str, Any] | None) -> None: ...


@dataclass(slots=True)
class Stage:
    """Everything the acts work with."""

    folder: Path
    house: House
    upstreams: Upstreams
    report: Report
    teller: Teller
    rollouts: list[str] = field(default_factory=list)

    def release(self, candidate: Candidate) -> None:
        """Create the release in the registry."""
        manifest = write_release(self.folder, candidate, self.upstreams.base_url(candidate.vendor))
        self.house.run("release", "create", str(manifest))

    def start(self, candidate: Candidate, plan: str) -> str:
        """Create the release and start its rollout; the rollout's id."""
        self.release(candidate)
        started = self.house.ask("rollout", "start", SERVICE, "--to", candidate.version, "--plan", plan, "--speed", str(SPEED))
        self.rollouts.append(started["id"])
        return str(started["id"])

    def look(self, rollout: str) -> dict[str, Any]:
        view = self.house.rollout(rollout)
        self.teller.view(view)
        return view

    def until(self, rollout: str, reached: Callable[[dict[str, Any]], bool], within_s: float, what: str) -> dict[str, Any]:
        """Look until `reached`, or the rollout has ended, and return the view.

        Raises:
            Failed: neither within `within_s`; `what` was waited for.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            view = self.look(rollout)
            if reached(view) or view["state"] in ENDED:
                return view
            time.sleep(LOOK_EVERY_S)
        raise Failed(f"{what}: not within {within_s:g} s; stage {view['stage']}, waiting for {'; '.join(view['waiting_for'])}")

    def ended(self, rollout: str) -> dict[str, Any]:
        """The rollout once it has ended and its last calls have come in."""
        self.until(rollout, lambda view: view["state"] in ENDED, ROLLOUT_S_MAX, f"the end of {rollout}")
        deadline = time.monotonic() + SETTLED_S_MAX
        while not (view := self.look(rollout))["summary"].get("settled") and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        return view
