"""A real embeddings process for tests, on a port of its own that it keeps when it is started again."""

from __future__ import annotations

import json
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from support_processes import environment, free_ports, until

WAIT_S = 20.0


class EmbeddingsProcess:
    """Serves the model in `folder` until it is killed or told to stop."""

    def __init__(self, directory: Path, folder: Path | str, **said: Any) -> None:
        (self.port,) = free_ports(1)
        self._config = directory / "embeddings.json"
        self._said = {"port": self.port, **said}
        self._log = directory / "embeddings.log"
        self.start(folder)

    def start(self, folder: Path | str) -> None:
        self._config.write_text(json.dumps({"model": str(folder), "name": "local", **self._said}))
        argv = [sys.executable, "-m", "cohort.gateway.embeddings", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(argv, stderr=log, env=environment())
        until(self._ready)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(answer.read())
        finally:
            connection.close()

    def embed(self, **fields: Any) -> tuple[int, dict[str, str], Any]:
        body = json.dumps({"model": "local", **fields}).encode()
        return self.request("POST", "/v1/embeddings", body, Content_Type="application/json")

    def health(self) -> Any:
        return self.request("GET", "/healthz")[2]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(WAIT_S)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            return self.request("GET", "/ready")[0] == 200
        except OSError:
            return False
