"""An OpenAI chat completion request in Anthropic's dialect."""

from __future__ import annotations

from typing import Any

from cohort.gateway.dialects.chat_to_messages import arguments_of
from cohort.gateway.dialects.events import MISSHAPEN
from cohort.gateway.dialects.face import Refused, shown

OUTPUT_TOKENS_DEFAULT = 4096
"""Anthropic demands a limit. This one holds where neither the caller nor the release sets one."""
_UNHEARD = frozenset(
    {
        "conversation", "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages", "metadata",
        "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention",
        "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream_options",
        "temperature", "tool_choice", "tools", "top_logprobs", "user", "verbosity",
    }
)  # fmt: skip
"""OpenAI's own: said in another way, or without an equivalent that an answer would show. Everything else passes unchanged."""
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_EFFORTS = {"minimal": "low"}


def translate(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request to Anthropic.

    Raises:
        Refused 400: `not_translatable` for what Anthropic has no words for, `messages_invalid` for what is not a chat request.
    """
    _check(fields)
    try:
        system, messages = _messages(fields["messages"])
        said: dict[str, Any] = {name: value for name, value in fields.items() if name not in _UNHEARD}
        said["max_tokens"] = fields.get("max_completion_tokens") or fields.get("max_tokens") or OUTPUT_TOKENS_DEFAULT
        said["messages"] = messages
        if system:
            said["system"] = system[0]["text"] if len(system) == 1 else system
        said.update(_settings(fields))
        said.update(_tools(fields))
        return said
    except MISSHAPEN as error:
        raise Refused(
            400, "`messages` or `tools` are not of the shape of a chat completion request", "messages_invalid", "messages"
        ) from error


def _unsaid(what: str, param: str) -> Refused:
    words = f"the upstream of this service speaks Anthropic's dialect, which cannot say {what}"
    return Refused(400, words, "not_translatable", param)


def _check(fields: dict[str, Any]) -> None:
    if fields.get("n") not in (None, 1):
        raise _unsaid("`n` above 1", "n")
    for name in ("logprobs", "functions", "audio", "web_search_options"):
        if fields.get(name):
            raise _unsaid(f"`{name}`", name)


def _settings(fields: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    temperature = fields.get("temperature")
    if temperature is not None:
        number = isinstance(temperature, (int, float))  # what is none is the upstream's to refuse, by its name
        said["temperature"] = min(temperature, 1) if number else temperature  # OpenAI's goes to 2
    if stop := fields.get("stop"):
        said["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    user = fields.get("user") or fields.get("safety_identifier")
    if isinstance(user, str):
        said["metadata"] = {"user_id": user}
    output: dict[str, Any] = {}
    if (effort := fields.get("reasoning_effort")) not in (None, "none"):
        output["effort"] = _EFFORTS.get(effort, effort)
    form = fields.get("response_format") or {}
    if form.get("type") == "json_schema":
        output["format"] = {"type": "json_schema", "schema": form["json_schema"]["schema"]}
    return {**said, "output_config": output} if output else said


def _tools(fields: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if tools := fields.get("tools"):
        said["tools"] = [_tool(tool) for tool in tools]
    choice = fields.get("tool_choice")
    if isinstance(choice, dict):
        said["tool_choice"] = {"type": "tool", "name": choice["function"]["name"]}
    elif choice is not None:
        said["tool_choice"] = {"type": _CHOICES[choice]}
    if tools and fields.get("parallel_tool_calls") is False:
        said["tool_choice"] = {**said.get("tool_choice", {"type": "auto"}), "disable_parallel_tool_use": True}
    return said


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        raise _unsaid(f"a tool of type {shown(tool['type'])}", "tools")
    function = tool["function"]
    said = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}
    said.update({name: function[name] for name in ("description", "strict") if function.get(name) is not None})
    return said


def _messages(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """System texts, which Anthropic takes beside the messages, and the messages: those of one side in a row are one."""
    system: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for message in messages:
        role = message["role"]
        if role in ("system", "developer"):
            system.extend(_texts(message["content"]))
            continue
        speaker = "assistant" if role == "assistant" else "user"
        blocks = _blocks(role, message)
        if not blocks:
            continue
        if said and said[-1]["role"] == speaker:
            said[-1]["content"].extend(blocks)
        else:
            said.append({"role": speaker, "content": blocks})
    return system, [_short(message) for message in said]


def _short(message: dict[str, Any]) -> dict[str, Any]:
    blocks = message["content"]
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return {**message, "content": blocks[0]["text"]}
    return message


def _blocks(role: str, message: dict[str, Any]) -> list[dict[str, Any]]:
    match role:
        case "user":
            return _parts(message["content"])
        case "assistant":
            calls = [_tool_use(call) for call in message.get("tool_calls") or ()]
            return [*_parts(message.get("content") or message.get("refusal") or []), *calls]
        case "tool":
            result = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
            parts = _parts(message["content"])
            return [{**result, "content": _short({"content": parts})["content"]} if parts else result]
        case other:
            raise _unsaid(f"a message of role {shown(other)}", "messages")


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    if call.get("type", "function") != "function":
        raise _unsaid(f"a tool call of type {shown(call['type'])}", "messages")
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments_of(function.get("arguments") or "{}")}


def _texts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [{"type": "text", "text": part["text"]} for part in content if part["text"]]


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Blocks of a content; empty texts, which Anthropic refuses, are left out."""
    if isinstance(content, str):
        return _texts(content)
    return [block for part in content if (block := _block(part)) is not None]


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    match part["type"]:
        case "text":
            return {"type": "text", "text": part["text"]} if part["text"] else None
        case "refusal":
            return {"type": "text", "text": part["refusal"]}
        case "image_url":
            return {"type": "image", "source": _source(part["image_url"]["url"])}
        case "file" if "file_data" in part["file"]:
            file = part["file"]
            title = {"title": file["filename"]} if file.get("filename") else {}
            return {"type": "document", "source": _source(file["file_data"]), **title}
        case other:
            raise _unsaid(f"a part of type {shown(other)}", "messages")


def _source(url: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    media_type, comma, data = url.removeprefix("data:").partition(";base64,")
    if not comma:
        raise _unsaid("a data address that is not base64", "messages")
    return {"type": "base64", "media_type": media_type, "data": data}
