"""A real Redis for the tests: a server of its own on a free port, in memory only, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support_processes import free_ports, until

MISSING = "redis-server is not installed; install the Debian package `redis-server`"
PASSWORD = "a-long-password-for-tests"


class RedisServer:
    """One server. `run` speaks to it with its own client."""

    def __init__(self, folder: str, port: int) -> None:
        self.port = port
        self.address = f"redis://127.0.0.1:{port}/1"
        self._folder = folder
        self.password = PASSWORD
        self.start()

    def start(self) -> None:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": self._folder,
            "requirepass": self.password,
        }
        command = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def run(self, *words: str) -> str:
        command = ["redis-cli", "-p", str(self.port), "-n", "1", "--no-auth-warning", "-a", self.password, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A server for as long as the context lasts; a skip where there is none, a failure with CI=true."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with tempfile.TemporaryDirectory(prefix="redis", dir="/tmp") as folder:
        server = RedisServer(folder, free_ports(1)[0])
        try:
            yield server
        finally:
            server.kill()
