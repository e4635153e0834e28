"""The stand-in vendor against the official OpenAI client, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "upstreams" / "standin_model.py"
REFUND = {
    "type": "function",
    "function": {
        "name": "refund_order",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}, "amount": {"type": "number"}}, "required": ["order"]},
    },
}


@dataclass(frozen=True)
class Standin:
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none-needed", max_retries=0)

    def post(self, path: str, body: bytes) -> tuple[int, dict]:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body), timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def process() -> Iterator[Standin]:
    models = ["--model", "standin-good:latency_ms=2", "--model", "standin-bad:latency_ms=1,failure_rate=1"]
    with subprocess.Popen([sys.executable, str(PROGRAM), "--name", "test", *models], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Standin(json.loads(process.stdout.readline())["port"], process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture
def standin(process: Standin) -> Standin:
    """One process for all of them; each finds it as it was started."""
    assert process.post("/control", b'{"incident_failure_rate": 0}')[0] == 200
    assert process.post("/control", b'{"model": "standin-good", "latency_ms": 2}')[0] == 200
    assert process.post("/control", b'{"model": "standin-bad", "failure_rate": 1}')[0] == 200
    return process


def ask(text: str, **more):
    return {"model": "standin-good", "messages": [{"role": "user", "content": text}], **more}


def test_it_says_that_it_is_a_stand_in_wherever_it_can(standin: Standin):
    assert {(model.id, model.owned_by) for model in standin.client().models.list()} == {
        ("standin-good", "standin-test"),
        ("standin-bad", "standin-test"),
    }
    answer = standin.client().chat.completions.create(**ask("Where is order A-4471?"))
    assert answer.choices[0].message.content.startswith("[stand-in standin-good]")
    assert answer.system_fingerprint == "fp_standin"


def test_a_model_name_that_hides_it_is_refused():
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--name", "x", "--model", "gpt-9"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert "names begin with 'standin-'" in done.stderr


def test_the_answer_is_made_from_the_prompt_and_counts_its_tokens(standin: Standin):
    answer = standin.client().chat.completions.create(**ask("Order A-4471 arrived 12 days late"))
    text = answer.choices[0].message.content
    assert "A-4471" in text
    assert "12" in text
    assert "arrived" in text
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_joins_to_an_answer_and_ends_with_usage_only_when_asked(standin: Standin):
    chunks = list(standin.client().chat.completions.create(**ask("Order A-4471"), stream=True, stream_options={"include_usage": True}))
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert joined.startswith("[stand-in standin-good]")
    assert "A-4471" in joined
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1
    without = list(standin.client().chat.completions.create(**ask("Order A-4471"), stream=True))
    assert all(chunk.usage is None for chunk in without)


def test_it_calls_the_tool_that_the_prompt_asks_for_with_arguments_from_the_prompt(standin: Standin):
    answer = standin.client().chat.completions.create(**ask("Please refund order A-4471, 25.5 dollars", tools=[REFUND]))
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)["order"]) == ("refund_order", "A-4471")
    assert answer.choices[0].finish_reason == "tool_calls"
    silent = standin.client().chat.completions.create(**ask("Hello there", tools=[REFUND]))
    assert silent.choices[0].message.tool_calls is None


def test_a_streamed_tool_call_joins_to_the_same_call(standin: Standin):
    chunks = list(standin.client().chat.completions.create(**ask("Please refund order A-4471", tools=[REFUND]), stream=True))
    parts = [part for chunk in chunks if chunk.choices for part in chunk.choices[0].delta.tool_calls or []]
    assert parts[0].function.name == "refund_order"
    assert json.loads("".join(part.function.arguments or "" for part in parts))["order"] == "A-4471"


def test_json_is_answered_when_json_is_asked_for(standin: Standin):
    answer = standin.client().chat.completions.create(**ask("Order A-4471", response_format={"type": "json_object"}))
    assert json.loads(answer.choices[0].message.content)["facts"] == ["A-4471"]


def test_a_token_limit_cuts_the_answer_and_says_so(standin: Standin):
    answer = standin.client().chat.completions.create(**ask("Order A-4471", max_tokens=3))
    assert answer.choices[0].finish_reason == "length"


def test_drawn_failures_have_the_shape_that_the_client_understands(standin: Standin):
    seen = set()
    for _ in range(40):
        with pytest.raises(openai.APIStatusError) as caught:
            standin.client().chat.completions.create(model="standin-bad", messages=[{"role": "user", "content": "hi"}])
        seen.add(type(caught.value))
        assert "drawn by this stand-in" in caught.value.message
    assert seen == {openai.RateLimitError, openai.InternalServerError}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "could not parse"),
        (b'{"model": "standin-good", "messages": []}', 400, "messages"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', 400, "model"),
        (b'{"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}', 404, "does not exist here"),
    ],
)
def test_a_bad_request_is_refused_in_the_protocols_shape(standin: Standin, body: bytes, status: int, said: str):
    code, answer = standin.post("/v1/chat/completions", body)
    assert code == status
    assert said in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


def test_control_changes_one_model_or_begins_an_incident_for_all(standin: Standin):
    assert standin.post("/control", b'{"model": "standin-bad", "failure_rate": 0}')[0] == 200
    assert standin.client().chat.completions.create(**ask("hi") | {"model": "standin-bad"}).choices
    assert standin.post("/control", b'{"incident_failure_rate": 1}')[1]["incident_failure_rate"] == 1
    with pytest.raises(openai.APIStatusError):
        standin.client().chat.completions.create(**ask("hi"))
    code, answer = standin.post("/control", b'{"failure_rate": 7}')
    assert (code, "failure_rate is a share" in answer["error"]["message"]) == (400, True)


def test_a_client_that_leaves_early_leaves_the_server_well(standin: Standin):
    body = json.dumps(ask("hello", stream=True)).encode()
    standin.post("/control", b'{"model": "standin-good", "latency_ms": 5000}')
    with socket.create_connection(("127.0.0.1", standin.port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
    standin.post("/control", b'{"model": "standin-good", "latency_ms": 1}')
    assert standin.client().chat.completions.create(**ask("still there?")).choices


def test_two_requests_sent_at_once_on_a_connection_are_answered_in_order(standin: Standin):
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", standin.port), timeout=10) as connection:
        connection.sendall(request + request.replace(b"/health", b"/nowhere").replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.index(b"200 OK") < said.index(b"404 Not Found")


def test_a_port_in_use_is_said_with_the_way_out(standin: Standin):
    argv = [sys.executable, str(PROGRAM), "--name", "second", "--port", str(standin.port)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, env=dict(os.environ))
    assert done.returncode == 1
    assert "Choose another --port" in done.stderr
