"""What the scripts of Python clients share: each case is tried against each service, and told in one line of JSON on standard output."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

BASE_URL = os.environ.get("COHORT_BASE_URL", "")
PLAIN = "Say hello."
WEATHER = "What is the weather in Bern?"
LONG = "How long will it last?"
STALL = "stall"
FAIL = "fail 429"
ANSWER = "Hello, world."
TOLD = "The tool said: rain"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PATIENCE_S = 1.0
"""How long a client waits before it gives up, where it is to give up."""

Case = Callable[[str], Any]


def run(packages: tuple[str, ...], cases: dict[str, Case], services: tuple[str, ...]) -> None:
    """Try every case. `services` are those of the gateway; a case that is not for one raises `NotThere`."""
    say({"versions": {name: metadata.version(name) for name in packages}})
    with asyncio.Runner() as runner:
        for name, case in cases.items():
            for service in services:
                say({"case": name, "service": service, **_tried(runner, case, service)})


class NotThere(Exception):
    """This client, or this kind of upstream, has no such thing."""


def _tried(runner: asyncio.Runner, case: Case, service: str) -> dict[str, Any]:
    try:
        done = case(service)
        if inspect.iscoroutine(done):
            runner.run(done)
    except NotThere:
        return {"ok": None}
    except Exception as error:  # whatever a client raises is its answer
        return {"ok": False, "why": f"{type(error).__name__}: {error}"[:300]}
    return {"ok": True}


def expect(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise ValueError(f"expected {wanted!r}, got {found!r}")


def fails(call: Callable[[], Any], kind: type[BaseException] | tuple[type[BaseException], ...], words: str = "") -> None:
    """The call must raise `kind`, and say `words`."""
    try:
        call()
    except kind as error:
        _says(error, words)
        return
    raise ValueError("no error was raised")


async def fails_later(waiting: Awaitable[Any], kind: type[BaseException] | tuple[type[BaseException], ...], words: str = "") -> None:
    """As `fails`, of what is awaited."""
    try:
        await waiting
    except kind as error:
        _says(error, words)
        return
    raise ValueError("no error was raised")


def _says(error: BaseException, words: str) -> None:
    if words not in str(error):
        raise ValueError(f"expected an error that says {words!r}, got {error}") from error


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
