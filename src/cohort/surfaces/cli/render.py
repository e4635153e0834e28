"""Values as text: tables that are ruled on a terminal and aligned elsewhere, numbers and times as people read them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from cohort.surfaces.cli.session import Session

NOTHING = "-"
STYLES = {
    "harmful": "bold red",
    "rolled back": "red",
    "safe": "green",
    "promoted": "green",
    "aborted": "yellow",
    "paused": "yellow",
    "awaiting approval": "yellow",
    "active": "green",
    "suspended": "yellow",
    "revoked": "red",
    "pending": "yellow",
    "approved": "green",
    "denied": "red",
    "critical": "bold red",
    "high": "red",
    "removed": "red",
    "added": "green",
}
"""How words stand out on a terminal; they mean the same without."""


def table(session: Session, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if session.on_terminal:
        _ruled(headings, rows)
        return
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        session.text("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _ruled(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    Console(highlight=False).print(ruled(headings, rows))


def ruled(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(*headings, box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return grid


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    if value is None:
        return NOTHING
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return f"{text} {unit}".rstrip()


def percent(value: float | None) -> str:
    """A value that is a percentage already."""
    return NOTHING if value is None else f"{value:g} %"


def rate(value: float | None) -> str:
    """A share from 0 to 1."""
    return NOTHING if value is None else f"{value * 100:.3g} %"


def size(value: float | None) -> str:
    """Bytes in their natural unit, powers of 1000."""
    if value is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def seconds(value: float | None) -> str:
    """A length of time in its natural unit."""
    if value is None:
        return NOTHING
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def moment(value_us: int | None) -> str:
    """Local time of day, with the date."""
    if value_us is None:
        return NOTHING
    return datetime.datetime.fromtimestamp(value_us / 1e6).strftime("%Y-%m-%d %H:%M:%S")


def release(ref: dict[str, Any] | None) -> str:
    """`2.0.0 (rel_0123456789ab)`."""
    if ref is None:
        return NOTHING
    from cohort.base.ids import short

    return f"{ref['version']} ({short(ref['digest'])})"


def bar(part: float, width: int = 20) -> str:
    full = round(max(0.0, min(1.0, part)) * width)
    return "█" * full + "░" * (width - full)


def facts(session: Session, rows: Sequence[tuple[str, str]]) -> None:
    """Names and values below each other."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        session.text(f"{name.ljust(width)}  {value}")


def risk_word(risk: float) -> str:
    return "low" if risk <= 0.3 else "medium" if risk <= 0.6 else "high" if risk <= 0.8 else "critical"
