"""Conversations with a service through the gateway, by the official `openai` client, and an honest count of what the clients met.

    python examples/traffic.py --base-url http://127.0.0.1:8700/v1 --service support --conversations-per-s 40

Conversations arrive at random (Poisson) whether or not earlier ones have ended; each has several turns, some streamed. The unit is
`metadata.conversation_id`. The client never retries, so that every failure is counted once. Reports are lines of JSON on stdout,
cumulative. With --stdin, commands are lines of JSON: {"conversations_per_s": 10} changes the rate, {"stop": true} or the end ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
import uvloop
from openai.types.chat import ChatCompletionChunk

CLIENTS = 4  # the client's pool grows dearer with its connections: a few clients with a few connections each
CONVERSATIONS_OPEN_MAX = 400
LATENCIES_KEPT_MAX = 4000
REPORT_EVERY_S = 0.5
TIMEOUT_S = 30.0
DRAWN = "drawn by this stand-in"

OPENINGS = (
    "My order {order} has not arrived after {days} days.",
    "Please cancel order {order}, I ordered {days} by mistake.",
    "I was charged {days} times for order {order}.",
    "Where can I change the address of order {order}?",
    "The item from order {order} broke after {days} days.",
)
FOLLOW_UPS = (
    "Thanks. Can you also check whether {order} has insurance?",
    "And how long will that take, {days} days or longer?",
    "I would rather have a refund for {order} then.",
    "Could you send the confirmation to my other address?",
)


@dataclass(slots=True)
class Tally:
    """What the clients of one release met. Times in ms."""

    requests: int = 0
    failures: int = 0
    units: set[int] = field(default_factory=set)
    units_failed: set[int] = field(default_factory=set)
    latencies_ms: list[float] = field(default_factory=list)
    last_answer_at: float = 0.0

    def seen(self, unit: int, failed: bool, took_ms: float, now: float) -> None:
        self.requests += 1
        self.failures += failed
        self.units.add(unit)
        self.last_answer_at = now
        if failed:
            self.units_failed.add(unit)
        else:
            self.latencies_ms.append(took_ms)
            del self.latencies_ms[:-LATENCIES_KEPT_MAX]

    def report(self) -> dict[str, Any]:
        ordered = sorted(self.latencies_ms)
        return {
            "requests": self.requests,
            "failures": self.failures,
            "units": len(self.units),
            "units_failed": len(self.units_failed),
            "p50_ms": quantile(ordered, 0.5),
            "p95_ms": quantile(ordered, 0.95),
            "last_answer_at": self.last_answer_at,
        }


@dataclass(slots=True)
class Counts:
    """Everything the clients met. `releases`: by the X-Cohort-Release header; '' where there was none."""

    conversations: int = 0
    turned_away: int = 0  # arrivals not started because too many conversations were open
    requests: int = 0
    streamed: int = 0
    failures: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    releases: dict[str, Tally] = field(default_factory=dict)

    def report(self, open_now: int, rate: float) -> dict[str, Any]:
        drawn = sum(count for kind, count in self.errors.items() if kind.startswith("drawn"))
        return {
            "at": time.time(),
            "conversations": self.conversations,
            "open": open_now,
            "turned_away": self.turned_away,
            "conversations_per_s": rate,
            "requests": self.requests,
            "streamed": self.streamed,
            "failures": self.failures,
            "failures_drawn": drawn,
            "failures_other": self.failures - drawn,
            "connection_errors": self.errors["connection"],
            "errors": dict(self.errors),
            "cpu_s": time.process_time(),
            "releases": {name: tally.report() for name, tally in self.releases.items()},
        }


def quantile(ordered: list[float], share: float) -> float | None:
    """Nearest-rank quantile; None of nothing."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None


def kind_of(error: openai.APIError) -> str:
    """What a failure was. `drawn ...`: the stand-in upstream says itself that it failed on purpose."""
    if isinstance(error, openai.APITimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection"
    drawn = "drawn" if DRAWN in str(error) else "other"
    return f"{drawn} {error.status_code}" if isinstance(error, openai.APIStatusError) else f"{drawn} in stream"


@dataclass(slots=True)
class Traffic:
    """Conversations at a rate, until stopped."""

    base_url: str
    api_key: str
    service: str
    conversations_per_s: float
    stream_share: float
    turns_min: int
    turns_max: int
    think_s: float
    seed: int
    counts: Counts = field(default_factory=Counts)
    open_now: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    async def run(self) -> None:
        """Until `stop`; conversations under way are let finish their present turn."""
        for _ in range(CLIENTS):
            self._clients.append(openai.AsyncOpenAI(base_url=self.base_url, api_key=self.api_key, max_retries=0, timeout=TIMEOUT_S))
        try:
            async with asyncio.TaskGroup() as group:
                await self._arrivals(group)
        finally:
            for client in self._clients:
                await client.close()

    async def _arrivals(self, group: asyncio.TaskGroup) -> None:
        chance, due, number = random.Random(self.seed), time.monotonic(), 0
        while not self.stop.is_set():
            due += chance.expovariate(max(self.conversations_per_s, 0.01))
            due = max(due, time.monotonic() - 1.0)  # what could not be started for a second is given up
            await self._pause(due - time.monotonic())
            number += 1
            if self.open_now >= CONVERSATIONS_OPEN_MAX:
                self.counts.turned_away += 1
            elif not self.stop.is_set():
                self.open_now += 1
                group.create_task(self._conversation(number))

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return

    async def _conversation(self, number: int) -> None:
        chance = random.Random(self.seed * 1_000_003 + number)
        client, messages = self._clients[number % CLIENTS], []
        self.counts.conversations += 1
        try:
            for text in self._turns(chance):
                messages.append({"role": "user", "content": text})
                answer = await self._ask(client, number, messages, chance.random() < self.stream_share)
                messages.append({"role": "assistant", "content": answer or "(no answer)"})
                await self._pause(chance.expovariate(1 / self.think_s))
                if self.stop.is_set():
                    return
        finally:
            self.open_now -= 1

    def _turns(self, chance: random.Random) -> Iterator[str]:
        facts = {"order": f"{chance.choice('ABCDEFGH')}-{chance.randint(1000, 9999)}", "days": chance.randint(2, 30)}
        for turn in range(chance.randint(self.turns_min, self.turns_max)):
            yield chance.choice(FOLLOW_UPS if turn else OPENINGS).format(**facts)

    async def _ask(self, client: openai.AsyncOpenAI, number: int, messages: list[Any], stream: bool) -> str | None:
        """One turn; None when it failed."""
        began = time.monotonic()
        headers: Any = {}
        answer: str | None = None
        try:
            create, unit = client.chat.completions.with_raw_response.create, {"conversation_id": f"{self.seed}-{number}"}
            if stream:
                streamed = await create(model=self.service, messages=messages, metadata=unit, stream=True)
                headers, answer = streamed.headers, await _joined(streamed.parse())
            else:
                whole = await create(model=self.service, messages=messages, metadata=unit)
                headers, answer = whole.headers, whole.parse().choices[0].message.content
        except openai.APIError as error:
            headers = error.response.headers if isinstance(error, openai.APIStatusError) else headers
            self.counts.errors[kind_of(error)] += 1
            self.counts.failures += 1
        self.counts.requests += 1
        self.counts.streamed += stream
        tally = self.counts.releases.setdefault(headers.get("x-cohort-release", ""), Tally())
        tally.seen(number, answer is None, (time.monotonic() - began) * 1000, time.time())
        return answer


async def _joined(chunks: openai.AsyncStream[ChatCompletionChunk]) -> str:
    parts = [chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]
    return "".join(parts)


def obey(traffic: Traffic, line: bytes) -> None:
    """One command; what it does not understand goes to stderr."""
    try:
        command = json.loads(line)
        if command.get("stop"):
            traffic.stop.set()
        if "conversations_per_s" in command:
            traffic.conversations_per_s = float(command["conversations_per_s"])
    except (ValueError, TypeError, AttributeError) as error:
        print(f"traffic.py: not a command: {line!r}: {error}", file=sys.stderr)


async def commands(traffic: Traffic) -> None:
    """Obey lines from stdin until it ends, which stops the traffic."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while not traffic.stop.is_set() and (line := await reader.readline()):
            obey(traffic, line)
        traffic.stop.set()
    finally:
        transport.close()


async def reports(traffic: Traffic) -> None:
    """A line now and every half second, and a last one."""
    while not traffic.stop.is_set():
        print(json.dumps(traffic.counts.report(traffic.open_now, traffic.conversations_per_s)), flush=True)
        try:
            await asyncio.wait_for(traffic.stop.wait(), REPORT_EVERY_S)
        except TimeoutError:
            continue


async def run(traffic: Traffic, obey_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, traffic.stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(reports(traffic))
        listening = group.create_task(commands(traffic)) if obey_stdin else None
        await traffic.run()
        if listening is not None:
            listening.cancel()
    print(json.dumps(traffic.counts.report(traffic.open_now, traffic.conversations_per_s) | {"ended": True}), flush=True)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="traffic.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--service", required=True, help="what clients call by name: the `model` of their requests")
    parser.add_argument("--api-key-env", default="OPENAI_API_KEY", help="the environment variable with the key, if the gateway wants one")
    parser.add_argument("--conversations-per-s", type=float, default=20.0)
    parser.add_argument("--stream-share", type=float, default=0.2)
    parser.add_argument("--turns-min", type=int, default=2)
    parser.add_argument("--turns-max", type=int, default=4)
    parser.add_argument("--think-s", type=float, default=0.3, help="mean pause of a user between turns")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stdin", action="store_true", help="obey commands on stdin, and stop when it ends")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = parse_arguments(argv)
    traffic = Traffic(
        base_url=options.base_url,
        api_key=os.environ.get(options.api_key_env, "none-needed"),
        service=options.service,
        conversations_per_s=options.conversations_per_s,
        stream_share=options.stream_share,
        turns_min=options.turns_min,
        turns_max=options.turns_max,
        think_s=options.think_s,
        seed=options.seed,
    )
    uvloop.run(run(traffic, options.stdin))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
