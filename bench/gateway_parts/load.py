"""Who asks: wrk or a loop of our own, closed (as fast as answers come) or open (at a fixed rate)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_parts.cases import ANSWER, CHAT, NUMBER, PROMPT, STREAM, STREAMED, request_body
from gateway_parts.processes import WAIT_S, Target

OPEN_CONNECTIONS = 64
CONTENT, WORD = b"x" * 200, b"word "

LUA = """
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
%s
%s
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%f %%f %%d\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""

FIXED = "wrk.body = %s"
NUMBERED = """
local before, after, count = %s, %s, 0
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, before .. string.format("%%09d", (%d + count) %% 1000000000) .. after)
end
"""


def load_wrk(folder: Path, core: int, target: Target, case: str, connections: int, seconds: float) -> tuple[float, float, float, int, int]:
    """Requests per second, p50 and p99 in ms, errors, requests."""
    script = folder / "chat.lua"
    more = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in target.headers.items())
    body = request_body(case).decode()
    before, _, after = body.rpartition(NUMBER)
    first = random.randrange(10 ** len(NUMBER))
    script.write_text(
        LUA % (more, NUMBERED % (json.dumps(before), json.dumps(after), first) if target.numbered else FIXED % json.dumps(body))
    )
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{target.ports[case]}"], capture_output=True, text=True, check=True)
    words = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
    requests, duration_us = int(words[1]), int(words[2])
    return requests / (duration_us / 1e6), float(words[3]) / 1e3, float(words[4]) / 1e3, int(words[5]), requests


class _Client(asyncio.Protocol):
    def __init__(self, messages: Callable[[], bytes], latencies: list[float]) -> None:
        self._messages, self._latencies = messages, latencies
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.ask()

    def ask(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._messages())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if data.endswith((ANSWER, b"0\r\n\r\n")):
            self._latencies.append(time.perf_counter() - self._sent_s)
            self.ask()


def load_own(_folder: Path, core: int, target: Target, case: str, connections: int, seconds: float) -> tuple[float, float, float, int, int]:
    """As `load_wrk`, in this process."""
    messages = messages_of(target, case)
    latencies: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: _Client(messages, latencies), "127.0.0.1", target.ports[case]) for _ in range(connections)
        ]
        await asyncio.sleep(seconds)
        for transport, _ in made:
            transport.abort()

    os.sched_setaffinity(0, {core})
    asyncio.run(run())
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies) / seconds, cuts[49] * 1e3, cuts[98] * 1e3, 0, len(latencies)


def messages_of(target: Target, case: str) -> Callable[[], bytes]:
    """Gives whole requests as bytes."""
    body = request_body(case)
    more = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    message = head.encode() + body
    if not target.numbered:
        return lambda: message
    before, _, after = message.rpartition(NUMBER.encode())
    numbers = itertools.count(random.randrange(10 ** len(NUMBER)))
    return lambda: b"%s%09d%s" % (before, next(numbers) % 10 ** len(NUMBER), after)


class _Once(asyncio.Protocol):
    """One connection of an open loop: answers are waited for by whoever sent."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def ask(self, message: bytes) -> asyncio.Future[None]:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return self._answered

    def data_received(self, _data: bytes) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)


def open_loop(core: int, target: Target, per_s: float, seconds: float) -> tuple[float, float]:
    """p50 and p99 in ms at a fixed rate of Poisson arrivals, from the moment a request was due (waiting for a free connection included)."""
    draws, latencies = random.Random(1), list[float]()
    messages = messages_of(target, CHAT)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        free: asyncio.Queue[_Once] = asyncio.Queue()
        for _ in range(OPEN_CONNECTIONS):
            free.put_nowait((await loop.create_connection(_Once, "127.0.0.1", target.ports[CHAT]))[1])

        async def one(due_s: float) -> None:
            connection = await free.get()
            await connection.ask(messages())
            latencies.append(time.perf_counter() - due_s)
            free.put_nowait(connection)

        due_s = begun_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            while due_s < begun_s + seconds:
                due_s += draws.expovariate(per_s)
                await asyncio.sleep(max(due_s - time.perf_counter(), 0))
                group.create_task(one(due_s))

    os.sched_setaffinity(0, {core})
    asyncio.run(run())
    cuts = statistics.quantiles(latencies, n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3


def check_answers(target: Target) -> None:
    """Every target really answers, and the gateway adds what only it can. What a peer does not answer is left out for it, and said."""
    for case, expected in ((CHAT, ANSWER), (STREAM, STREAMED), (PROMPT, ANSWER)):
        fault = _fault(target, case, expected)
        if fault is None:
            continue
        if not target.rewrites:
            raise SystemExit(f"{target.name}: {fault} ({case})")
        sys.stderr.write(f"{target.name}: {fault}: {case} left out for it\n")
        del target.ports[case]


def _fault(target: Target, case: str, expected: bytes) -> str | None:
    url = f"http://127.0.0.1:{target.ports[case]}/v1/chat/completions"
    headers = {"Content-Type": "application/json", **target.headers}
    request = urllib.request.Request(url, request_body(case), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            found = answer.read()
            if target.name.startswith("gateway") and not answer.headers["X-Cohort-Release"]:
                return "no release header: this would measure a pass-through"
    except urllib.error.HTTPError as error:
        return f"answers with {error.code}: {error.read()[:200]!r}"
    if target.rewrites:
        return None if (WORD if case == STREAM else CONTENT) in found else "not the upstream's words"
    return None if found == expected else "not the bytes of the upstream"
