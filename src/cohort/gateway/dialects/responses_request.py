"""A request of OpenAI's Responses as one of chat completions.

Tools that run at OpenAI, and files and prompts kept there, cannot be said in it; `translate` names the first such thing. Earlier reasoning
is a hint for the model that made it, and left out.
"""

from __future__ import annotations

from typing import Any

from cohort.gateway.dialects.events import MISSHAPEN
from cohort.gateway.dialects.face import Unsaid, shown
from cohort.gateway.dialects.messages_to_chat import Unsayable

_SAID_OTHERWISE = frozenset(
    {
        "background", "context_management", "conversation", "include", "input", "instructions", "max_output_tokens", "max_tool_calls",
        "metadata", "moderation", "previous_response_id", "prompt", "reasoning", "store", "stream", "stream_options", "text",
        "tool_choice", "tools", "truncation",
    }
)  # fmt: skip
_NOT_SAYABLE = ("background", "conversation", "prompt", "context_management", "moderation", "top_logprobs")


def translate(native: dict[str, Any], earlier: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]], Unsaid | None]:
    """The fields of a chat completion request, the messages of its conversation without the instructions, and what cannot be said.

    `earlier` are the messages of the response that this one goes on from.
    """
    fields: dict[str, Any] = {name: value for name, value in native.items() if name not in _SAID_OTHERWISE}
    messages: list[dict[str, Any]] = []
    place = "input"
    try:
        named = next((name for name in _NOT_SAYABLE if native.get(name)), None)
        if named is not None:
            raise Unsayable(f"`{named}`", named)
        messages = [*earlier, *_input(native["input"])]
        if not messages:
            raise Unsayable("an empty `input`", place)
        instructions = native.get("instructions")
        fields["messages"] = [{"role": "system", "content": instructions}, *messages] if instructions else messages
        place = "tools"
        fields.update(_tools(native))
        place = "text"
        fields.update(_settings(native))
        return fields, messages, None
    except Unsayable as error:
        problem = error.said
    except MISSHAPEN:
        problem = Unsaid(f"the shape of `{place}`", place)
    fields.setdefault("messages", [])
    return fields, messages, problem


def _settings(native: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if native.get("max_output_tokens") is not None:
        fields["max_completion_tokens"] = native["max_output_tokens"]
    if native.get("stream"):
        fields["stream"], fields["stream_options"] = True, {"include_usage": True}
    if (effort := (native.get("reasoning") or {}).get("effort")) is not None:
        fields["reasoning_effort"] = effort
    text = native.get("text") or {}
    if text.get("verbosity") is not None:
        fields["verbosity"] = text["verbosity"]
    form = text.get("format") or {"type": "text"}
    if form["type"] == "json_schema":
        fields["response_format"] = {"type": "json_schema", "json_schema": {name: form[name] for name in form if name != "type"}}
    elif form["type"] != "text":
        fields["response_format"] = form
    return fields


def _tools(native: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if native.get("tools"):
        fields["tools"] = [_tool(tool) for tool in native["tools"]]
    choice = native.get("tool_choice")
    if isinstance(choice, dict):
        if choice["type"] != "function":
            raise Unsayable(f"a tool choice of type {shown(choice['type'])}", "tool_choice")
        fields["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif choice is not None:
        fields["tool_choice"] = choice
    if not fields.get("tools"):
        fields.pop("tool_choice", None)  # chat completions refuse a choice between no tools
    return fields


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        raise Unsayable(f"the tool {shown(tool['type'])}, which runs at OpenAI", "tools")
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _input(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[dict[str, Any]] = []
    for item in given:
        match item.get("type", "message"):
            case "message":
                messages.append({"role": item["role"], "content": _content(item["content"])})
            case "function_call":
                _assistant(messages).setdefault("tool_calls", []).append(_call(item))
            case "function_call_output":
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
            case "reasoning":
                pass
            case other:
                raise Unsayable(f"an item of type {shown(other)}", "input")
    return messages


def _assistant(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's turn that a call belongs to: the one begun last, or a new one."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    else:
        messages[-1] = dict(messages[-1])
        if "tool_calls" in messages[-1]:
            messages[-1]["tool_calls"] = list(messages[-1]["tool_calls"])
    return messages[-1]


def _call(item: dict[str, Any]) -> dict[str, Any]:
    return {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}


def _content(content: str | list[dict[str, Any]]) -> Any:
    if isinstance(content, str):
        return content
    parts = [_part(part) for part in content]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part["type"]:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part["text"]}
        case "refusal":
            return {"type": "refusal", "refusal": part["refusal"]}
        case "input_image" if part.get("image_url"):
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
        case "input_file" if part.get("file_data"):
            return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if part.get(name)}}
        case other:
            raise Unsayable(f"a part of type {shown(other)}, or one kept at OpenAI", "input")
