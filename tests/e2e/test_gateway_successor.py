"""A worker that is told to stop lets its streams end; its successor accepts meanwhile, also where there is only one, and no record is lost or out of order."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.gateway.contract import Cursor
from support_gateway import SRC

sys.path.insert(0, str(SRC.parent / "bench"))

from handover import Scene

WITHIN_S = 20.0


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, 1)
    yield made
    made.close()


def stream(port: int) -> http.client.HTTPResponse:
    """A stream that never ends by itself, begun."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    body = json.dumps({"model": "s", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.read1()
    return answer


def ask(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_the_successor_of_a_single_worker_accepts_while_a_stream_ends(scene: Scene) -> None:
    scene.model = "stall-stream"
    scene.step_until(lambda: scene.pushed() and scene.supervisor.ready, "the first table")
    port, first = scene.settings.gateway.port, scene.supervisor.states()[0].pid
    assert first is not None
    held = stream(port)
    os.kill(first, signal.SIGTERM)
    begun_s = time.monotonic()
    scene.step_until(lambda: scene.supervisor.states()[0].pid not in (None, first) and scene.supervisor.ready, "a successor")
    assert Path(f"/proc/{first}").exists(), "the stream is still there"
    assert ask(port) == 200
    assert time.monotonic() - begun_s < WITHIN_S
    second = stream(port)
    second.close()
    plane = scene.planes[0]
    seen = plane.pull(Cursor(), records_max=100, wait_ms=0)
    assert (seen.records, seen.behind > 0) == ((), True), "what the first still has to say comes before what the second says"
    held.close()
    scene.step_until(lambda: not Path(f"/proc/{first}").exists(), "the end of the first")
    scene.step_until(lambda: scene.records() == 2, "both records")
    calls = [record for record in plane.pull(Cursor(), records_max=100, wait_ms=0).records if record.kind == "call"]
    assert [call.epoch for call in calls] == sorted(call.epoch for call in calls)
    assert len({call.epoch for call in calls}) == 2
