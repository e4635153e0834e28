"""Answers of the action gate as results of tools: always structured, and as text for models that read nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import mcp_types as types

from cohort.base.errors import CohortError
from cohort.kernel.model import ActionResult, Outcome

MAIN = ("content", "stdout", "body")
"""Parts of results that are shown as they are, first, instead of inside JSON."""


def result(answer: ActionResult, approve_at: str | None = None) -> types.CallToolResult:
    """`approve_at`: where a person answers, when this waits for one."""
    body = {
        "action": answer.action_id,
        "outcome": answer.outcome.value,
        "result": dict(answer.result),
        "code": answer.code,
        "reason": answer.reason,
        "hint": answer.hint,
        "approval": answer.approval_id,
        "approve_at": approve_at,
        "level": int(answer.level),
    }
    texts = _said(answer, approve_at)
    if answer.result:
        texts += _shown(answer.result)
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=text) for text in texts]
    return types.CallToolResult(content=content, structured_content=body, is_error=answer.outcome is not Outcome.DONE)


def failure(error: CohortError) -> types.CallToolResult:
    """What was not even decided: nobody is asking any more, or it cannot be recorded."""
    outcome = Outcome.UNKNOWN if error.code == "OUTCOME_UNKNOWN" else Outcome.REFUSED
    body: dict[str, Any] = {
        "action": None,
        "outcome": outcome.value,
        "result": {},
        "code": error.code,
        "reason": error.message,
        "hint": error.hint,
    }
    text = _sentence(outcome.value, error.code, error.message, error.hint)
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], structured_content=body, is_error=True)


def _said(answer: ActionResult, approve_at: str | None) -> list[str]:
    if answer.outcome is Outcome.DONE:
        return []
    if answer.outcome is Outcome.WAITING:
        where = f" A person answers at {approve_at}." if approve_at else ""
        return [f"Waiting for a person's approval ({answer.approval_id}): {answer.reason}.{where} Nothing was executed. {answer.hint}"]
    return [_sentence(answer.outcome.value, answer.code or "", answer.reason, answer.hint)]


def _sentence(outcome: str, code: str, reason: str, hint: str) -> str:
    return f"{outcome.capitalize()} ({code}): {reason}.{f' {hint}' if hint else ''}"


def _shown(values: Mapping[str, Any]) -> list[str]:
    main = next((name for name in MAIN if isinstance(values.get(name), str) and values[name]), None)
    rest = {name: value for name, value in values.items() if name != main}
    texts = [str(values[main])] if main is not None else []
    return texts + ([json.dumps(rest, ensure_ascii=False)] if rest else [])
