"""Any JSON in any field of any request, to a real gateway with every feature on: an answer in the caller's dialect, and never a failure of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support_gateway import WAIT_S, GatewayProcess, release, split, table
from support_upstream import Upstream

EXAMPLES = 250
TEXTS = [
    "",
    "x",
    "4111 1111 1111 1111",
    "jane@example.com",
    "１２３-45-6789",
    "\x00",
    "\ud7ff",
    "data:image/png;base64,AAAA",
    "[card]",
    "\\n4111",
    "a" * 3000,
]
SHARED = [
    "type",
    "role",
    "content",
    "text",
    "id",
    "name",
    "input",
    "arguments",
    "function",
    "tool_calls",
    "image_url",
    "url",
    "source",
    "data",
    "model",
]
TOP = [
    "messages", "model", "input", "stream", "system", "instructions", "tools", "tool_choice", "metadata", "user", "temperature", "max_tokens",
    "max_completion_tokens", "n", "stop", "response_format", "text", "reasoning", "thinking", "output_config", "previous_response_id",
    "conversation", "prompt", "store", "stream_options", "service", "unit", "score", "negative", "pseudonym", "max_output_tokens", "best_of",
    "stop_sequences", "prompt_cache_key", "safety_identifier", "logprobs", "parallel_tool_calls",
]  # fmt: skip
PATHS = [
    "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/messages/count_tokens", "/v1/embeddings", "/v1/completions",
    "/v1/moderations", "/v1/feedback",
]  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "https://a.b/c"}}]}
        ]
    },
    "tools": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    },
    "anthropic": {
        "max_tokens": 5,
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"id": "123-45-6789"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Hi"}]}]},
        ],
    },
    "responses": {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "function_call_output", "call_id": "c", "output": "x"},
        ]
    },
    "feedback": {"service": "all", "unit": "u", "score": 1},
}
SERVICES = ["all", "translated", "passed", "split"]

scalars = (
    st.none() | st.booleans() | st.sampled_from(TEXTS) | st.text(max_size=6) | st.integers(-(10**20), 10**20)
    | st.sampled_from([0, -1, 1.5, 1e308, 10**40, 4111111111111111, -0.0])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SHARED, "jane@example.com", ""]) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A request of some dialect with a few places exchanged, and now and then a few bytes."""
    body = json.loads(json.dumps(BASES[draw(st.sampled_from(sorted(BASES)))]))
    body["model"] = draw(st.sampled_from(SERVICES))
    for _ in range(draw(st.integers(0, 3))):
        _exchange(draw, body)
    data = json.dumps(body, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")]))).encode(
        "utf-8", "replace"
    )
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.sampled_from([b"", b"\xff", b"\\ud800", b'"', b"{", b'"model":1,', b"1e999", b"NaN"])) + data[at + 1 :]
    return data


def _exchange(draw: st.DrawFn, body: dict[str, Any]) -> None:
    if draw(st.booleans()):
        body[draw(st.sampled_from(TOP))] = draw(values)
        return
    holder: Any = body
    while True:
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not places:
            return
        place = draw(st.sampled_from(places))
        inner = holder[place]
        if not isinstance(inner, dict | list) or draw(st.integers(0, 3)) == 0:
            holder[place] = draw(values)
            return
        holder = inner


header_values = st.binary(max_size=40).map(lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F)) | st.sampled_from(
    [
        b"u" * 20_000,
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"no-store",
        b"max-age=99999999999999999999",
        b"max-age=-1, only-if-cached",
        b'\\"\\n{"event":1}',
    ]
)
headers = st.dictionaries(
    st.sampled_from(
        ["X-Cohort-Unit", "X-Cohort-Run", "X-Cohort-Agent", "X-Cohort-Team", "Cache-Control", "Idempotency-Key", "traceparent", "User-Agent", "X-Request-Id",
         "anthropic-version", "anthropic-beta", "OpenAI-Beta", "Authorization", "X-Api-Key"]
    ),
    header_values,
    max_size=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), access_log=True)
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    looked = {
        "personal": {"upstream": "redact"},
        "cache": {"ttl_s": 60, "disk": True},
        "prompt": "Be kind.",
        "parameters": {"temperature": 0.5},
    }
    weak = {"name": "weak", "provider": "openai", "base_url": upstream.base_url, "model": "well", "price": price}
    both = {"routing": {"strong": "main", "weak": "weak", "strong_share_range": [0.1, 0.9]}, **looked}
    everything = release("well", upstream.base_url, "rel_all", route={"price": price}, **both)
    everything["routes"].append(weak)
    releases = [
        everything,
        release("well", upstream.base_url, "rel_translated", route={"provider": "anthropic", "price": price}, **looked),
        release("well", upstream.base_url, "rel_passed", route={"provider": "openai-responses", "price": price}),
    ]
    names = {"all": "rel_all", "translated": "rel_translated", "passed": "rel_passed"}
    services = {**names, "split": {"stable": "rel_passed", "split": split("rel_all", share=0.5, shadow_share=1.0)}}
    budgets = [{"scope": scope, "name": "*" if scope != "all" else "", "usd_micro": 10**14} for scope in ("all", "service", "agent", "run")]
    process.push({**table(1, releases, services), "budgets": budgets})
    yield process
    process.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sampled_from(PATHS), bodies(), headers)
def test_whatever_is_asked_is_answered_and_nothing_of_the_gateway_fails(
    gateway: GatewayProcess, path: str, body: bytes, said: dict[str, bytes]
) -> None:
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=WAIT_S)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **said})
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    assert answer.status != 500, (data, gateway.log_text()[-3000:])
    if answer.status >= 400:
        error = json.loads(data)["error"]
        assert error["message"]
        assert len(data) < 4000
        assert error.get("code")
    assert '"event":"request_failed"' not in gateway.log_text()
    assert '"event":"shadow_failed"' not in gateway.log_text()


def test_nothing_of_it_is_in_the_log_or_breaks_a_line_of_what_is_written(gateway: GatewayProcess) -> None:
    for line in gateway.log_text().splitlines():
        assert json.loads(line)["gateway"] == "gw-test"
    gateway.terminate()
    lines = (gateway.data_dir / "access.ndjson").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert not any(word in line for line in lines for word in (b"jane@example.com", b"4111 1111", b"123-45-6789"))
