"""What a stand-in model says: made from the prompt, plainly labelled. Pure: values in, OpenAI-shaped values out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOPIC_WORDS_MAX = 6
FACTS_MAX = 4
QUOTE_CHARS_MAX = 120
CHOICES_MAX = 8
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]{3,}")
_FACT = re.compile(r"[A-Z]{1,4}-?\d{2,}|\d[\d.,:]*\d|\d")
_TOKEN = re.compile(r"\s*\S+")
DULL_WORDS = """
    about also been could does from have here into just like more most much need only other over please same should some such tell than
    that them then there these they this want were what when where which while will with would your yours
"""
_DULL = frozenset(re.findall(r"[a-z]+", DULL_WORDS))


class BadRequest(ValueError):
    """The request is not one of the protocol. `param` names the field."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request as far as it matters here. `words_max`: answer tokens the client allows."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool
    include_usage: bool
    tools: Sequence[Mapping[str, Any]]
    tool_choice: Any
    json_wanted: bool
    words_max: int
    choices: int


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice: text, or calls of tools. `tokens` are the pieces a stream sends."""

    text: str | None
    tool_calls: tuple[dict[str, Any], ...]
    finish: str
    tokens: tuple[str, ...]


def parse_question(body: Any) -> Question:
    """Raises BadRequest naming the wrong field."""
    if not isinstance(body, dict):
        raise BadRequest("We could not parse the JSON body of your request.")
    messages = body.get("messages")
    if not isinstance(body.get("model"), str):
        raise BadRequest("you must provide a model parameter", "model")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise BadRequest("'messages' must be a non-empty array of objects with a role.", "messages")
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 4096
    choices = body.get("n") or 1
    if not isinstance(limit, int) or limit < 1:
        raise BadRequest("the token limit must be a positive integer.", "max_tokens")
    if not isinstance(choices, int) or not 1 <= choices <= CHOICES_MAX:
        raise BadRequest(f"'n' must be from 1 to {CHOICES_MAX}.", "n")
    wanted = (body.get("response_format") or {}).get("type", "text")
    return Question(
        model=body["model"],
        messages=messages,
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        tools=body.get("tools") or (),
        tool_choice=body.get("tool_choice", "auto"),
        json_wanted=wanted in ("json_object", "json_schema"),
        words_max=limit,
        choices=choices,
    )


def text_of(message: Mapping[str, Any]) -> str:
    """A message's text, whether it is a string or parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if isinstance(part, dict))


def reply_to(question: Question, mark: str) -> Reply:
    """The answer. `mark`: hexadecimal digits that ids are made of."""
    call = _tool_call(question, mark)
    if call is not None:
        return Reply(None, (call,), "tool_calls", ())
    text = _json_answer(question) if question.json_wanted else _answer(question)
    tokens = tuple(_TOKEN.findall(text))
    if len(tokens) > question.words_max:
        kept = tokens[: question.words_max]
        return Reply("".join(kept), (), "length", kept)
    return Reply(text, (), "stop", tokens)


def count_tokens(text: str) -> int:
    """About four characters a token, as vendors' rules of thumb have it."""
    return (len(text) + 3) // 4


def usage_of(question: Question, reply: Reply) -> dict[str, Any]:
    """Token counts in OpenAI's shape."""
    asked = 3 + sum(4 + count_tokens(text_of(message)) for message in question.messages)
    answered = question.choices * max(1, count_tokens(reply.text) if reply.text is not None else count_tokens(json.dumps(reply.tool_calls)))
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _last(question: Question, role: str) -> str:
    return next((text_of(message) for message in reversed(question.messages) if message["role"] == role), "")


def _topic(text: str) -> list[str]:
    words = dict.fromkeys(word.lower() for word in _WORD.findall(text) if word.lower() not in _DULL)
    return list(words)[:TOPIC_WORDS_MAX]


def _facts(text: str) -> list[str]:
    return list(dict.fromkeys(_FACT.findall(text)))[:FACTS_MAX]


def _answer(question: Question) -> str:
    label = f"[stand-in {question.model}]"
    last = question.messages[-1]
    if last["role"] == "tool":
        return f"{label} The tool answered: {text_of(last)[:QUOTE_CHARS_MAX]}"
    asked = _last(question, "user")
    topic, facts = _topic(asked), _facts(asked)
    parts = [label, f"You asked about {', '.join(topic)}." if topic else f"You said: {asked[:QUOTE_CHARS_MAX]!r}."]
    if facts:
        parts.append(f"I noted {', '.join(facts)}.")
    turn = sum(1 for message in question.messages if message["role"] == "user")
    parts.append(f"This is turn {turn} of our conversation.")
    return " ".join(parts)


def _json_answer(question: Question) -> str:
    asked = _last(question, "user")
    return json.dumps({"stand_in": question.model, "topic": _topic(asked), "facts": _facts(asked)})


def _tool_call(question: Question, mark: str) -> dict[str, Any] | None:
    """A call of the tool that the last user message asks for; None when it asks for none."""
    if not question.tools or question.tool_choice == "none" or question.messages[-1]["role"] != "user":
        return None
    asked = _last(question, "user")
    function = _chosen(question, asked)
    if function is None:
        return None
    arguments = _arguments(function.get("parameters") or {}, asked)
    return {"id": f"call_{mark[:24]}", "type": "function", "function": {"name": function["name"], "arguments": json.dumps(arguments)}}


def _chosen(question: Question, asked: str) -> Mapping[str, Any] | None:
    tools = [tool["function"] for tool in question.tools if isinstance(tool, dict) and isinstance(tool.get("function"), dict)]
    functions: list[Mapping[str, Any]] = tools
    if isinstance(question.tool_choice, dict):
        name = (question.tool_choice.get("function") or {}).get("name")
        return next((function for function in functions if function.get("name") == name), None)
    words = set(re.findall(r"[a-z]+", asked.lower()))
    scored = [(len(words & set(re.findall(r"[a-z]+", str(function.get("name", "")).lower()))), function) for function in functions]
    best = max(scored, key=lambda pair: pair[0], default=None)
    if best is None or (best[0] == 0 and question.tool_choice != "required"):
        return None
    return best[1]


def _arguments(schema: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """One value per property, found in the prompt: numbers for numbers, quoted words or facts or the whole text for strings."""
    found: dict[str, Any] = {}
    numbers = re.findall(r"-?\d+(?:\.\d+)?", asked)
    texts = re.findall(r"[\"'“]([^\"'”]+)[\"'”]", asked) or _facts(asked)
    for name, rule in (schema.get("properties") or {}).items():
        kind = rule.get("type") if isinstance(rule, dict) else None
        if isinstance(rule, dict) and rule.get("enum"):
            found[name] = next((value for value in rule["enum"] if str(value).lower() in asked.lower()), rule["enum"][0])
        elif kind in ("number", "integer"):
            value = float(numbers.pop(0)) if numbers else 0.0
            found[name] = int(value) if kind == "integer" else value
        elif kind == "boolean":
            found[name] = True
        elif kind in ("string", None):
            found[name] = texts.pop(0) if texts else asked[:QUOTE_CHARS_MAX]
    return found
