"""A request in Anthropic's dialect as an OpenAI chat completion request.

What only Anthropic's models know (tools that run at Anthropic, files kept there) cannot be said in it: `translate` names the first such
thing, and keeps what else there is. Cache marks and earlier thinking are hints for the model that made them, and left out.
"""

from __future__ import annotations

from typing import Any

import orjson

from cohort.gateway.dialects.events import MISSHAPEN
from cohort.gateway.dialects.face import Unsaid, shown

_SAID_OTHERWISE = frozenset(
    {
        "cache_control", "diagnostics", "inference_geo", "max_tokens", "messages", "metadata", "output_config", "service_tier", "speed",
        "stop_sequences", "stream", "system", "thinking", "tool_choice", "tools",
    }
)  # fmt: skip
_NOT_SAYABLE = ("container", "context_management", "mcp_servers")
_OBJECTS = ("metadata", "thinking", "output_config")
EFFORT_BUDGETS = ((4096, "low"), (16384, "medium"))
"""Thinking tokens below which a budget is this effort; from the last on it is `high`."""


class Unsayable(Exception):
    """Something that OpenAI's dialect has no words for; names it and the field in which it stands."""

    def __init__(self, words: str, field: str) -> None:
        super().__init__(words)
        self.said = Unsaid(words, field)


def translate(native: dict[str, Any]) -> tuple[dict[str, Any], Unsaid | None]:
    """The fields of a chat completion request, and what cannot be said in one (None: everything can). Unknown fields stay as they are."""
    fields: dict[str, Any] = {name: value for name, value in native.items() if name not in _SAID_OTHERWISE}
    place = "system"
    try:
        named = next((name for name in _NOT_SAYABLE if native.get(name)), None)
        if named is not None:
            raise Unsayable(f"`{named}`", named)
        system = _system(native)
        place = "messages"
        fields["messages"] = [*system, *_messages(native["messages"])]
        place = "tools"
        fields.update(_tools(native))
        place = next((name for name in _OBJECTS if not isinstance(native.get(name) or {}, dict)), "output_config")
        fields.update(_settings(native))
        return fields, None
    except Unsayable as error:
        problem = error.said
    except MISSHAPEN:
        problem = Unsaid(f"the shape of `{place}`", place)
    fields.setdefault("messages", [])
    return fields, problem


def _settings(native: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "max_tokens" in native:
        fields["max_completion_tokens"] = native["max_tokens"]
    if native.get("stop_sequences"):
        fields["stop"] = native["stop_sequences"]
    if native.get("stream"):
        fields["stream"], fields["stream_options"] = True, {"include_usage": True}
    user = (native.get("metadata") or {}).get("user_id")
    if isinstance(user, str):
        fields["user"] = user
    output = native.get("output_config") or {}
    if (effort := output.get("effort") or _effort(native.get("thinking") or {})) is not None:
        fields["reasoning_effort"] = effort
    if (form := output.get("format")) is not None:
        if form["type"] != "json_schema":
            raise Unsayable(f"an output format of type {shown(form['type'])}", "output_config")
        fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": form["schema"]}}
    return fields


def _effort(thinking: dict[str, Any]) -> str | None:
    if thinking.get("type") != "enabled":
        return None
    return next((effort for budget, effort in EFFORT_BUDGETS if thinking["budget_tokens"] < budget), "high")


def _tools(native: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if native.get("tools"):
        fields["tools"] = [_tool(tool) for tool in native["tools"]]
    choice = native.get("tool_choice")
    if choice is not None:
        kind = choice["type"]
        named = {"type": "function", "function": {"name": choice["name"]}} if kind == "tool" else None
        fields["tool_choice"] = named or {"auto": "auto", "any": "required", "none": "none"}[kind]
        if choice.get("disable_parallel_tool_use"):
            fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise Unsayable(f"the tool {shown(tool['type'])}, which runs at Anthropic", "tools")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function.update({name: tool[name] for name in ("description", "strict") if name in tool})
    return {"type": "function", "function": function}


def _system(native: dict[str, Any]) -> list[dict[str, Any]]:
    system = native.get("system")
    return [{"role": "system", "content": _plain(system)}] if system else []


def _messages(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for message in given:
        role, content = message["role"], message["content"]
        if isinstance(content, str):
            messages.append({"role": role, "content": content})
        elif role == "assistant":
            messages.append(_assistant(content))
        elif role == "system":
            messages.append({"role": role, "content": _plain(content)})
        else:
            messages.extend(_user(content))
    return messages


def _plain(content: str | list[dict[str, Any]]) -> Any:
    """Text as text where it is one block, which every server takes."""
    if isinstance(content, str):
        return content
    parts = [{"type": "text", "text": block["text"]} for block in content]
    return parts[0]["text"] if len(parts) == 1 else parts


def _assistant(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        match block["type"]:
            case "text":
                parts.append({"type": "text", "text": block["text"]})
            case "tool_use":
                function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
                calls.append({"id": block["id"], "type": "function", "function": function})
            case "thinking" | "redacted_thinking":
                pass
            case other:
                raise Unsayable(f"a block of type {shown(other)}", "messages")
    message: dict[str, Any] = {"role": "assistant", "content": _plain(parts) if parts else None}
    if calls:
        message["tool_calls"] = calls
    return message


def _user(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of tools are messages of their own; the images in them follow as the user's, where every model may look at them."""
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] == "tool_result":
            shown = _result(block)
            results.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": _plain_parts(shown, "text")})
            parts.extend(part for part in shown if part["type"] != "text")
        else:
            parts.append(_part(block))
    return [*results, {"role": "user", "content": _plain_parts(parts)}] if parts else results


def _result(block: dict[str, Any]) -> list[dict[str, Any]]:
    content = block.get("content") or ""
    return [{"type": "text", "text": content}] if isinstance(content, str) else [_part(part) for part in content]


def _plain_parts(parts: list[dict[str, Any]], kind: str | None = None) -> Any:
    wanted = [part for part in parts if kind is None or part["type"] == kind]
    if not wanted:
        return ""
    return wanted[0]["text"] if len(wanted) == 1 and wanted[0]["type"] == "text" else wanted


def _part(block: dict[str, Any]) -> dict[str, Any]:
    source = block.get("source") or {}
    match block["type"], source.get("type"):
        case "text", _:
            return {"type": "text", "text": block["text"]}
        case "image", "url":
            return {"type": "image_url", "image_url": {"url": source["url"]}}
        case "image", "base64":
            return {"type": "image_url", "image_url": {"url": _data_url(source)}}
        case "document", "base64":
            return {"type": "file", "file": {"filename": block.get("title") or "document.pdf", "file_data": _data_url(source)}}
        case "document", "text":
            return {"type": "text", "text": source["data"]}
        case kind, None:
            raise Unsayable(f"a block of type {shown(kind)}", "messages")
        case kind, origin:
            raise Unsayable(f"a block of type {shown(kind)} whose source is {shown(origin)}", "messages")


def _data_url(source: dict[str, Any]) -> str:
    return f"data:{source['media_type']};base64,{source['data']}"
