"""Entries and verifications of the audit log, in text."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.approval_text import printable
from cohort.surfaces.cli.render import facts, moment
from cohort.surfaces.cli.session import Session

INTEGRITY_CODES = {"verified": Exit.DONE, "broken": Exit.NO, "no data": Exit.UNKNOWN}
LINE_CHARS_MAX = 160
TIME_US_MAX = 250_000_000_000_000_000
"""The year 9892; later ones have no date."""
SAID = ("event", "operation", "resource", "answer", "code", "outcome", "reason", "text")
"""What of a body is worth a place on the line, in this order."""


def entry_line(entry: Mapping[str, Any]) -> str:
    """One entry on one line: index, time, kind, agent, and what matters of its body. An edited entry can hold anything anywhere."""
    whole = entry["body"]
    body = whole.get("body") if isinstance(whole.get("body"), dict) else {"text": whole.get("unreadable", "")}
    said_us = whole.get("at_us")
    at_us = said_us if isinstance(said_us, int) and 0 <= said_us < TIME_US_MAX else None
    kind, agent = (printable(str(whole.get(name) or "-")) for name in ("kind", "agent"))
    said = SAID[:4] if body.get("answer") == "allow" else SAID  # why it had to be asked is told by the records before
    words = [printable(str(body[name])) for name in said if body.get(name) not in (None, "")]
    line = f"{entry['index']:>7}  {moment(at_us)}  {kind:<10}  {agent:<19}  {'  '.join(words)}"
    return line if len(line) <= LINE_CHARS_MAX else line[: LINE_CHARS_MAX - 1] + "…"


def time_us(text: str | None, name: str) -> int | None:
    """Local time as microseconds. Errors: FIELD_INVALID."""
    if text is None:
        return None
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * 1e6)
    except ValueError as error:
        raise CohortError("FIELD_INVALID", f"--{name}: {text!r} is no time", field=name, hint="Write it like 2026-11-01T12:00.") from error


def show_verification(session: Session, found: Mapping[str, Any]) -> None:
    """Three answers apart."""
    size, took_s = found["size"], found["duration_us"] / 1e6
    whole = {
        "verified": f"verified: all {size} entries hash to the signed root, in {took_s:.2f} s",
        "broken": f"BROKEN at entry {found['first_bad']}: {found['why']}" if found["first_bad"] is not None else f"BROKEN: {found['why']}",
        "no data": "no data: the log is empty, and an empty log is not a verified one",
    }[found["integrity"]]
    opened = found["open_intents"]
    complete = "every allowed action has an outcome" if found["complete"] else f"{len(opened)} without an outcome: {', '.join(opened[:5])}"
    anchored = f"{found['anchored_size']} of {size} entries, by {', '.join(found['anchors'])}" if found["anchors"] else "nowhere"
    rows = [("integrity", whole), ("completeness", complete), ("anchored", anchored)]
    if found["root"]:
        rows.append(("root", found["root"]))
    facts(session, rows)
