"""Operations as MCP tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types

from cohort.kernel.face import Operation

WHY = "why"
WHY_CHARS_MAX = 500
OUTWARD = ("http.", "network.", "browser.", "mobile.")
ASKS = {
    "never": "",
    "elsewhere": " Outside the agent's own workspace a person has to approve.",
    "policy": " A person may have to approve.",
    "new": " A person has to approve a destination that is not on the agent's list.",
    "critical": " A person has to approve what is critical.",
    "always": " A person has to approve.",
}
ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"type": ["string", "null"], "description": "The action's id, as in the audit log."},
        "outcome": {"type": "string", "enum": ["done", "failed", "refused", "waiting", "unknown"]},
        "result": {"type": "object", "description": "What came of it, by operation."},
        "code": {"type": ["string", "null"], "description": "Why not, as a stable code; null when it is done."},
        "reason": {"type": "string"},
        "hint": {"type": "string", "description": "What to do next."},
        "approval": {"type": ["string", "null"], "description": "The approval that was used, or is waited for."},
        "approve_at": {"type": ["string", "null"], "description": "Where a person answers, while it waits."},
        "level": {"type": "integer", "description": "The isolation level it ran at, 0 to 5."},
    },
    "required": ["action", "outcome", "result", "code", "reason", "hint"],
}


@dataclass(frozen=True, slots=True)
class Named:
    """`why`: whether the tool has that argument besides the operation's own."""

    operation: Operation
    why: bool


def table(operations: Iterable[Operation]) -> dict[str, Named]:
    """By the tool's name: operations that something here can execute. A dot is not in every client's idea of a name."""
    return {one.name.replace(".", "_"): Named(one, WHY not in one.arguments.get("properties", {})) for one in operations if one.available}


def tool(name: str, named: Named) -> types.Tool:
    one = named.operation
    return types.Tool(
        name=name,
        title=one.summary.removesuffix("."),
        description=f"{one.summary.removesuffix('.')}. Scope {one.scope}, {one.risk.value} risk.{ASKS.get(one.asks, '')}",
        input_schema=input_schema(named),
        output_schema=ANSWER_SCHEMA,
        annotations=types.ToolAnnotations(
            title=one.name,
            read_only_hint=one.read_only,
            destructive_hint=one.destructive,
            open_world_hint=one.name.startswith(OUTWARD),
        ),
    )


def input_schema(named: Named) -> dict[str, Any]:
    """The operation's arguments, and `why` for whoever has to approve."""
    schema = dict(named.operation.arguments)
    if named.why:
        text = {
            "type": "string",
            "maxLength": WHY_CHARS_MAX,
            "description": "Why you want this. Shown to the person who has to approve it.",
        }
        schema["properties"] = {**schema.get("properties", {}), WHY: text}
    return {"type": "object", **schema}


def split(named: Named, arguments: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """The operation's own arguments, and the agent's reason; one that is not text is left for the gate to refuse."""
    said = dict(arguments or {})
    if named.why and isinstance(said.get(WHY), str):
        return said, said.pop(WHY)[:WHY_CHARS_MAX]
    return said, ""
