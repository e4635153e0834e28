"""What an agent did lately, from its entries in the audit log: one row for each action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cohort.kernel.face import Entry
from cohort.surfaces.dashboard.wording_kernel import time_of

ROWS_MAX = 12
TONES = {"done": "safe", "failed": "harm", "refused": "harm", "unknown": "wait", "waits": "wait", "runs": "accent"}


@dataclass(frozen=True, slots=True)
class ActionRow:
    """`word` says how it stands: done, failed, refused, waits, runs, unknown. `code` says why, when it is not done."""

    action: str
    index: int
    at_us: int
    operation: str
    resource: str
    word: str
    code: str

    @property
    def tone(self) -> str:
        return TONES.get(self.word, "plain")


def recent_actions(entries: Iterable[Entry], rows_max: int = ROWS_MAX) -> list[ActionRow]:
    """Of entries newest first; what is said last of an action decides its word."""
    outcomes: dict[str, Mapping[str, Any]] = {}
    rows: dict[str, ActionRow] = {}
    for entry in entries:
        action, kind, body = entry.body.get("action"), entry.body.get("kind"), entry.body.get("body")
        if not isinstance(action, str) or not isinstance(body, Mapping):
            continue
        if kind == "outcome":
            outcomes.setdefault(action, body)
        elif kind in ("intent", "decision") and action not in rows:
            rows[action] = _row(entry, action, body, outcomes.get(action))
            if len(rows) == rows_max:
                break
    return list(rows.values())


def _row(entry: Entry, action: str, body: Mapping[str, Any], outcome: Mapping[str, Any] | None) -> ActionRow:
    if entry.body.get("kind") == "decision":
        word, code = ("waits", "") if body.get("answer") == "ask" else ("refused", str(body.get("code") or ""))
    elif outcome is None:
        word, code = "runs", ""
    else:
        word, code = str(outcome.get("outcome", "unknown")), str(outcome.get("code") or "")
    return ActionRow(
        action, entry.index, time_of(entry.body) or 0, str(body.get("operation", "")), str(body.get("resource", "")), word, code
    )
