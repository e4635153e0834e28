"""What an agent did lately, from its entries in the audit log: one row for each action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cohort.kernel.face import Entry
from cohort.surfaces.dashboard.wording_kernel import time_of

ROWS_MAX = 12
TONES = {"done": "safe", "failed": "harm", "refused": "harm", "unknown": "wait", "waits": "wait", "approved": "plain", "runs": "accent"}

ENDED = {"denied": "APPROVAL_DENIED", "expired": "APPROVAL_EXPIRED", "withdrawn": "WITHDRAWN"}
"""States of an approval after which its action does not happen, and what is said of it."""


@dataclass(frozen=True, slots=True)
class ActionRow:
    """`word` says how it stands: done, failed, refused, waits, approved, runs, unknown. `code` says why, when it is not done."""

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
    states: dict[str, str] = {}
    rows: dict[str, ActionRow] = {}
    for entry in entries:
        action, kind, body = entry.body.get("action"), entry.body.get("kind"), entry.body.get("body")
        if not isinstance(action, str) or not isinstance(body, Mapping):
            continue
        if kind == "outcome":
            outcomes.setdefault(action, body)
        elif kind == "approval":
            states.setdefault(action, str(body.get("state", "")))
        elif kind in ("intent", "decision") and action not in rows:
            rows[action] = _row(entry, action, body, outcomes.get(action), states.get(action, ""))
            if len(rows) == rows_max:
                break
    return list(rows.values())


def _of_question(state: str) -> tuple[str, str]:
    """What became of a question: a yes is used by the agent's next request, which is an action with a row of its own."""
    if state in ENDED:
        return "refused", ENDED[state]
    return ("approved", "") if state in ("approved", "consumed") else ("waits", "")


def _row(entry: Entry, action: str, body: Mapping[str, Any], outcome: Mapping[str, Any] | None, state: str) -> ActionRow:
    if entry.body.get("kind") == "decision" and body.get("answer") == "ask":
        word, code = _of_question(state)
    elif entry.body.get("kind") == "decision":
        word, code = "refused", str(body.get("code") or "")
    elif outcome is None:
        word, code = "runs", ""
    else:
        word, code = str(outcome.get("outcome", "unknown")), str(outcome.get("code") or "")
    return ActionRow(
        action, entry.index, time_of(entry.body) or 0, str(body.get("operation", "")), str(body.get("resource", "")), word, code
    )
