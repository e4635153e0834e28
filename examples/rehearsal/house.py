"""Cohort as anybody uses it: the `cohort` command and the HTTP API. Nothing of its inside is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehearsal.processes import Child, Failed

COMMAND_S_MAX = 30.0
CALL_S_MAX = 5.0
ACTION_S_MAX = 60.0
UP_S_MAX = 30.0
ASK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered to a POST."""

    path: str
    status: int
    body: dict[str, Any]

    @property
    def refused(self) -> bool:
        return self.status in (400, 401, 403, 404, 409, 413, 422, 429)

    @property
    def waiting(self) -> bool:
        return self.status == 202

    @property
    def code(self) -> str:
        return str(self.body.get("code") or self.body.get("outcome"))

    def expect(self, status: int) -> dict[str, Any]:
        """The body. Raises: Failed: it answered otherwise."""
        if self.status != status:
            raise Failed(f"POST {self.path} answered {self.status}: {json.dumps(self.body)[:500]}")
        return self.body


@dataclass(slots=True)
class House:
    """An installation in a folder of its own."""

    folder: Path
    gateway_port: int
    control_port: int
    gateway_url: str = ""
    control_url: str = ""
    ready_ms: int = 0
    key_file: Path | None = None
    _key: str = ""
    _up: Child | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        for name in [name for name in self.environment if name.startswith("COHORT_")]:
            del self.environment[name]
        self.environment |= {"COHORT_GATEWAY_PORT": str(self.gateway_port), "COHORT_CONTROL_PORT": str(self.control_port)}

    def init(self) -> None:
        self.run("init")

    def up(self) -> dict[str, Any]:
        """`cohort up`, in the foreground of a process of its own; what it said when ready."""
        argv = [*cohort_command(), "up", "--json"]
        self._up = Child("cohort up", argv, environment=self.environment, folder=self.folder, listen=lambda _: None)
        said = self._up.wait_first(UP_S_MAX)
        if "gateway_url" not in said:
            raise Failed(f"cohort up: {said.get('detail', said)}")
        self.gateway_url, self.control_url, self.ready_ms = said["gateway_url"], said["control_url"], said["ready_ms"]
        self.key_file = Path(said["admin_key_file"])
        self._key = self.key_file.read_text().strip()
        return said

    def down(self) -> int | None:
        """End it; the exit code of `cohort up`, None when it never ran."""
        return self._up.stop(60.0) if self._up is not None else None

    @property
    def running(self) -> bool:
        return self._up is not None and self._up.alive

    @property
    def key(self) -> str:
        return self._key

    def run(self, *arguments: str) -> str:
        """One `cohort` command; its stdout.

        Raises:
            Failed: it did not exit with 0.
        """
        done = self._run(arguments)
        if done.returncode != 0:
            raise Failed(f"cohort {' '.join(arguments)} exited with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """One `cohort` command with --json; its answer."""
        return _parsed(self.run(*arguments, "--json"), arguments)

    def status(self) -> dict[str, Any]:
        """`cohort status --json`, whatever its exit code."""
        answer: dict[str, Any] = _parsed(self._run(("status", "--json")).stdout, ("status",))
        return answer

    def process_id(self, name: str) -> int | None:
        """The process id of `control` or `gateway`, as `cohort status` says."""
        return next((part["pid"] for part in self.status()["parts"] if part["name"] == name), None)

    def get(self, path: str, within_s: float = 20.0) -> Any:
        """One GET of the API, asked again while control does not answer.

        Raises:
            Failed: an error answer, or no answer within `within_s`.
        """
        deadline = time.monotonic() + within_s
        request = urllib.request.Request(f"{self.control_url}/api/v1{path}", headers={"authorization": f"Bearer {self._key}"})
        while True:
            try:
                with urllib.request.urlopen(request, timeout=CALL_S_MAX) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise Failed(f"GET {path} answered {error.code}: {error.read().decode(errors='replace')[:500]}") from error
            except (urllib.error.URLError, ConnectionError, TimeoutError, json.JSONDecodeError) as error:
                if time.monotonic() > deadline:
                    raise Failed(f"GET {path}: no answer within {within_s:g} s: {error}") from error
            time.sleep(ASK_AGAIN_S)

    def post(self, path: str, body: dict[str, Any], token: str | None = None, form: bool = False) -> Answer:
        """One POST of the API, whatever it answers; as the admin, or with an agent's `token`. `form`: as OAuth wants it."""
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        data = urllib.parse.urlencode(body).encode() if form else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {token or self._key}", "content-type": kind}
        request = urllib.request.Request(f"{self.control_url}/api/v1{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=ACTION_S_MAX) as answer:
                return Answer(path, answer.status, json.load(answer))
        except urllib.error.HTTPError as error:
            return Answer(path, error.code, json.load(error))
        except (OSError, ValueError) as error:
            raise Failed(f"POST {path}: {error}") from error

    def verify(self) -> dict[str, Any]:
        """`cohort audit verify --json`, whatever its exit code."""
        answer: dict[str, Any] = _parsed(self._run(("audit", "verify", "--json")).stdout, ("audit", "verify"))
        return answer

    def rollout(self, rollout: str) -> dict[str, Any]:
        view: dict[str, Any] = self.get(f"/rollouts/{rollout}")
        return view

    def service(self, name: str) -> dict[str, Any]:
        view: dict[str, Any] = self.get(f"/services/{name}")
        return view

    def _run(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        argv = [*cohort_command(), *arguments]
        try:
            return subprocess.run(  # the caller looks at the exit code
                argv, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"cohort {' '.join(arguments)} took longer than {COMMAND_S_MAX:g} s") from error


def _parsed(text: str, arguments: tuple[str, ...]) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failed(f"cohort {' '.join(arguments)} --json did not answer in JSON: {text[:200]!r}") from error


def cohort_command() -> list[str]:
    """The installed `cohort` beside this Python, or the same by its module."""
    script = Path(sys.executable).with_name("cohort")
    return [str(script)] if script.exists() else [sys.executable, "-m", "cohort.surfaces.cli"]
