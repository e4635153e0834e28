"""The story on a terminal: live with rich, or line by line where nobody watches. Always on stderr; stdout is for the report."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

REFRESH_PER_S = 4
BAR_CELLS = 24
NOTES_SHOWN = 3
MARKS = {None: ("•", "cyan"), True: ("✓", "green"), False: ("✗", "red")}


@dataclass(slots=True)
class Step:
    """One line of the story; `ok` is None while it goes on."""

    title: str
    began: float = field(default_factory=time.monotonic)
    took_s: float = 0.0
    ok: bool | None = None
    text: str = ""


class Plain:
    """A line when a step begins, ends, or notes something."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._title = ""

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def begin(self, title: str) -> None:
        self._title = title
        self._line(f"... {title}")

    def end(self, ok: bool, text: str) -> None:
        self._line(f"{'ok ' if ok else 'NOT'} {self._title}: {text}")

    def note(self, text: str) -> None:
        self._line(f"    {text}")

    def view(self, _: dict[str, Any] | None) -> None:
        return None

    def head(self, text: str) -> None:
        self._line(text)

    def _line(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", file=sys.stderr, flush=True)


class Screen:
    """The same, redrawn four times a second. Safe to call from any thread."""

    def __init__(self, traffic: Callable[[], dict[str, Any]]) -> None:
        self._traffic = traffic
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._notes: list[str] = []
        self._head: list[str] = []
        self._rollout: dict[str, Any] | None = None
        self._live = Live(console=Console(stderr=True), get_renderable=self._render, refresh_per_second=REFRESH_PER_S, transient=False)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def begin(self, title: str) -> None:
        with self._lock:
            self._steps.append(Step(title))

    def end(self, ok: bool, text: str) -> None:
        with self._lock:
            step = self._steps[-1]
            step.ok, step.text, step.took_s = ok, text, time.monotonic() - step.began

    def note(self, text: str) -> None:
        with self._lock:
            self._notes.append(text)

    def head(self, text: str) -> None:
        """Stays at the top."""
        with self._lock:
            self._head.append(text)

    def view(self, rollout: dict[str, Any] | None) -> None:
        """Show a rollout, or none. Raises KeyboardInterrupt when the terminal is gone: whoever watched has closed it."""
        if _hung_up():
            raise KeyboardInterrupt
        with self._lock:
            self._rollout = rollout

    def _render(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = [*(Text(line, style="bold") for line in self._head), self._story()]
            if self._rollout is not None:
                parts.append(Padding(Group(_ladder(self._rollout), _evidence(self._rollout), _waiting(self._rollout)), (1, 2, 0, 4)))
            parts.extend(Text(f"    {note}", style="dim") for note in self._notes[-NOTES_SHOWN:])
        report = self._traffic()
        if report:
            parts.append(Padding(_traffic(report), (1, 0, 0, 2)))
        return Group(*parts)

    def _story(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2)
        table.add_column(ratio=1)
        table.add_column(justify="right")
        for step in self._steps:
            mark, colour = MARKS[step.ok]
            took_s = step.took_s if step.ok is not None else time.monotonic() - step.began
            words = Text(step.title, style="bold" if step.ok is None else "")
            if step.text:
                words.append(f"\n{step.text}", style="dim" if step.ok else "red")
            table.add_row(Text(mark, style=colour), words, Text(f"{took_s:.1f} s", style="dim"))
        return table


def _ladder(view: dict[str, Any]) -> Text:
    styles = {"done": "green", "present": "bold cyan", "ahead": "dim", "skipped": "dim"}
    line = Text(f"{view['stable']['version']} → {view['candidate']['version']}   ")
    for index, rung in enumerate(view["stages"]):
        line.append(" ── " if index else "", style="dim")
        line.append(rung["name"], style=styles.get(rung["status"], ""))
        line.append(" ✓" if rung["certified"] else "", style="green")
    line.append(f"   {view['state']}", style="bold")
    return line


def _evidence(view: dict[str, Any]) -> Table:
    """One row per gate: how far towards "harmful", how far towards "safe", and what each arm has met."""
    table = Table.grid(padding=(0, 2))
    for gate in view["gates"]:
        if gate["harmful"] is None and gate["safe"] is None:
            continue
        met = f"stable {gate['events_stable']}/{gate['units_stable']}  candidate {gate['events_candidate']}/{gate['units_candidate']}"
        bars = _bar("harmful", gate["harmful"], "red"), _bar("safe", gate["safe"], "green")
        table.add_row(Text(gate["name"]), *bars, Text(met, style="dim"))
    return table


def _bar(label: str, scale: dict[str, Any] | None, colour: str) -> Text:
    if scale is None:
        return Text(" " * (BAR_CELLS + len(label) + 1))
    full = round(BAR_CELLS * scale["part"])
    return Text.assemble((f"{label} ", "dim"), ("█" * full, colour), ("░" * (BAR_CELLS - full), "dim"))


def _waiting(view: dict[str, Any]) -> Text:
    needs = view["waiting_for"]
    return Text(f"waiting for {needs[0]}" if needs else "", style="dim", overflow="ellipsis", no_wrap=True)


def _traffic(report: dict[str, Any]) -> Text:
    line = Text.assemble(
        ("clients  ", "dim"),
        f"{report['conversations']} conversations  {report['requests']} requests ({report['streamed']} streamed)  ",
        (f"{report['failures_drawn']} failures drawn by the upstreams  ", "yellow"),
        (f"{report['failures_other']} other", "red" if report["failures_other"] else "green"),
    )
    for version, tally in sorted(report["releases"].items()):
        name = version or "(no release)"
        latency = f"{tally['p50_ms']:.0f}/{tally['p95_ms']:.0f} ms" if tally["p50_ms"] is not None else "-"
        line.append(f"\n         {name}: {tally['units']} users, {tally['units_failed']} met a failure, p50/p95 {latency}", style="dim")
    return line


def _hung_up() -> bool:
    """The terminal of stderr was closed; the signal for it may have gone to another process (`make`, a shell)."""
    try:
        os.tcgetpgrp(sys.stderr.fileno())
    except OSError as error:
        return error.errno == errno.EIO  # ENOTTY: a terminal, but not this session's
    return False
