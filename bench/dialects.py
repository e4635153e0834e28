"""What does it cost to translate between dialects, beside passing bytes on?

    python bench/dialects.py [--events N] [--json]

CPU time in this process for each event of a stream and for each request of 800 bytes, the least of five rounds. The first line of each
kind is what a call costs whose two ends speak the same dialect; a gateway adds reading and writing to all of them alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

from cohort.gateway.dialects.chat_from_messages import ChunksFlow
from cohort.gateway.dialects.chat_to_messages import MessagesFlow
from cohort.gateway.dialects.face import Chat, Flow, Operation
from cohort.gateway.dialects.operations import CHAT, MESSAGES
from cohort.gateway.dialects.responses_answer import Turn
from cohort.gateway.dialects.responses_stream import ResponsesFlow
from cohort.gateway.openai import Tail
from cohort.gateway.rewriting import rewriting

ROUNDS = 5
WORDS = 700
CALL = Chat(b"", {}, "service", True, CHAT, {}, at_us=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {**_streams(options.events), **_requests(options.events // 4)}
    if options.json:
        print(json.dumps({"machine": platform.platform(), "python": platform.python_version(), "cpu_us": figures}))
        return
    print(f"{'CPU time, microseconds':44}{'':>8}")
    for name, cpu_us in figures.items():
        print(f"{name:44}{cpu_us:8.2f}")


def _streams(events: int) -> dict[str, float]:
    openai, anthropic = _openai_events(events), _anthropic_events(events)
    flows: dict[str, tuple[Callable[[], Flow], list[bytes]]] = {
        "event, same dialect": (Tail, openai),
        "event, chat completions to messages": (lambda: MessagesFlow("service"), openai),
        "event, messages to chat completions": (lambda: ChunksFlow(CALL), anthropic),
        "event, chat completions to Responses": (lambda: ResponsesFlow(CALL, Turn("resp", [], False), lambda *_: None), openai),
    }
    return {name: _least_us(lambda make=make, sent=sent: _fed(make(), sent), events) for name, (make, sent) in flows.items()}


def _fed(flow: Flow, events: list[bytes]) -> None:
    for event in events:
        flow.feed(event)
    if flow.problem:
        raise SystemExit(f"error: {flow.problem}")


def _requests(calls: int) -> dict[str, float]:
    ways = {
        "request, same dialect (chat completions)": (CHAT, "openai"),
        "request, same dialect (messages)": (MESSAGES, "anthropic"),
        "request, chat completions to messages": (CHAT, "anthropic"),
        "request, messages to chat completions": (MESSAGES, "openai"),
    }
    return {name: _least_us(lambda way=way: _asked(*way, calls), calls) for name, way in ways.items()}


def _asked(operation: Operation, provider: str, calls: int) -> None:
    body = json.dumps({"model": "service", "max_tokens": 100, "messages": [{"role": "user", "content": "x" * WORDS}]}).encode()
    release, passage = rewriting("big", None, {}), operation.passage(provider)
    for _ in range(calls):
        passage.request(operation.parse(operation, body), release)


def _least_us(work: Callable[[], None], count: int) -> float:
    least_s = float("inf")
    for _ in range(ROUNDS):
        began_s = time.process_time()
        work()
        least_s = min(least_s, time.process_time() - began_s)
    return round(least_s / count * 1e6, 2)


def _openai_events(count: int) -> list[bytes]:
    def event(delta: dict[str, str]) -> bytes:
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "big", "choices": [{"index": 0, "delta": delta}]}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    return [event({"role": "assistant", "content": ""})] + [event({"content": "hello "})] * count


def _anthropic_events(count: int) -> list[bytes]:
    def event(kind: str, **fields: object) -> bytes:
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())

    start = event("message_start", message={"id": "m", "model": "big", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}})
    block = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    return [start, block] + [event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hello "})] * count


if __name__ == "__main__":
    main()
