"""A real gateway process for tests: started on a free port, spoken to over sockets, killed and started again."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from cohort.gateway.contract import Batch, Call, Cursor, GatewayState, decode_batch, decode_state, encode

TOKEN = "t" * 32
UNIT_KEY = "0b" * 32
WAIT_S = 10.0
SRC = Path(__file__).parents[1] / "src"


def until(found: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Poll a real condition; its value once it is true."""
    end_s = time.monotonic() + wait_s
    while time.monotonic() < end_s:
        value = found()
        if value:
            return value
        selectors.DefaultSelector().select(0.01)
    raise AssertionError(f"not within {wait_s} s: {what}")


def release(model: str, base_url: str, digest: str | None = None, **extra: Any) -> dict[str, Any]:
    """A release of a table; `model` chooses the upstream's behaviour."""
    route = {"name": "main", "provider": "openai", "base_url": base_url, "model": model}
    route.update(extra.pop("route", {}))
    return {"digest": digest or f"rel_{model}", "version": f"v-{model}", "routes": [route], **extra}


def table(version: int, releases: list[dict[str, Any]], services: dict[str, Any] | None = None) -> dict[str, Any]:
    """A routing table. Without `services` every release is the stable one of a service named like its model."""
    named = services or {r["routes"][0]["model"]: r["digest"] for r in releases}
    entries = {
        name: {"name": name, "stable": entry} if isinstance(entry, str) else {"name": name, **entry} for name, entry in named.items()
    }
    return {
        "version": version,
        "issued_us": 1_700_000_000_000_000,
        "contract": 1,
        "services": entries,
        "releases": {r["digest"]: r for r in releases},
    }


def split(candidate: str, share: float = 0.0, shadow_share: float = 0.0, **extra: Any) -> dict[str, Any]:
    body = {"rollout_id": "ro_1", "salt": "5a17", "stage_run": 3, "candidate": candidate, "share": share, "shadow_share": shadow_share}
    return {**body, **extra}


class GatewayProcess:
    """One gateway on `directory`. `started` is the log line it began with."""

    def __init__(self, directory: Path, *, environment: dict[str, str] | None = None, prefix: tuple[str, ...] = (), **config: Any) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.config_file = write_config(directory, **config)
        self._environment = {**os.environ, "PYTHONPATH": str(SRC), **(environment or {})}
        self._prefix = prefix
        self.log: list[dict[str, Any]] = []
        self.pushed: dict[str, Any] = {}
        self.start()

    def start(self) -> None:
        command = [*self._prefix, sys.executable, "-m", "cohort.gateway", "--config", str(self.config_file)]
        self._log_file = self.directory / "log"
        self._log_file.unlink(missing_ok=True)
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env=self._environment)
        self.started = until(lambda: self.logged("started"), "the gateway started")
        self.port = int(self.started["port"])

    def logged(self, event: str) -> dict[str, Any] | None:
        """The newest log line of an event."""
        assert self.process.poll() in (None, 0, -signal.SIGKILL), self._log_file.read_text()
        lines = [json.loads(line) for line in self._log_file.read_text().splitlines() if line.startswith("{")]
        return next((line for line in reversed(lines) if line["event"] == event), None)

    def log_text(self) -> str:
        return self._log_file.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()

    # --- speaking to it --------------------------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer: HTTPResponse = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def chat(self, service: str, *, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, dict[str, str], bytes]:
        body = {"model": service, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return self.request("POST", "/v1/chat/completions", json.dumps(body).encode(), Content_Type="application/json", **(headers or {}))

    def link(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) or body is None else encode(body)
        status, _, answer = self.request(method, path, data, Authorization=f"Bearer {TOKEN}")
        return status, answer

    def push(self, body: dict[str, Any]) -> GatewayState:
        status, answer = self.link("PUT", "/-/routing", body)
        assert status == 200, answer
        self.pushed = body
        return decode_state(answer)

    def pull(self, after: Cursor | None = None, records_max: int = 2000, wait_ms: int = 0) -> Batch:
        at = after or Cursor()
        status, answer = self.link("GET", f"/-/outcomes?segment={at.segment}&offset={at.offset}&max={records_max}&wait_ms={wait_ms}")
        assert status == 200, answer
        return decode_batch(answer)

    def records(self, count: int, kind: str = "call") -> list[Call]:
        """All records of a kind, once there are `count`."""
        return until(
            lambda: found if len(found := [r for r in self.all_records() if r.kind == kind]) >= count else None, f"{count} {kind} records"
        )

    def all_records(self) -> list[Call]:
        found: list[Call] = []
        cursor = Cursor()
        while (batch := self.pull(cursor)).records:
            found.extend(batch.records)
            cursor = batch.next
        return found

    def acknowledge(self, upto: Cursor) -> int:
        return self.link("POST", "/-/outcomes/ack", {"segment": upto.segment, "offset": upto.offset})[0]


def write_config(directory: Path, **config: Any) -> Path:
    """The files a supervisor writes before it starts a gateway."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("unit.key", UNIT_KEY), ("link.token", TOKEN)):
        path = directory / name
        path.write_text(text)
        path.chmod(0o600)
    body = {
        "gateway_id": "gw-test",
        "host": "127.0.0.1",
        "port": 0,
        "data_dir": str(directory / "data"),
        "unit_key_file": str(directory / "unit.key"),
        "link_token_file": str(directory / "link.token"),
        **config,
    }
    path = directory / "gateway.json"
    path.write_text(json.dumps(body))
    return path
