"""The two stand-in vendors: started, asked, and told to have an incident."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from rehearsal.processes import Child, Failed, free_port
from rehearsal.releases import EXAMPLES, RELEASES

READY_S_MAX = 15.0
CALL_S_MAX = 5.0
PORTS = {"a": 9101, "b": 9102}


class Upstreams:
    """Vendors `a` and `b`, a process each."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.children: dict[str, Child] = {}
        self._seed = seed
        self._ports: dict[str, int] = {}
        for vendor, preferred in PORTS.items():
            self.children[vendor] = self._start(vendor, free_port(preferred), folder)

    def wait_ready(self) -> dict[str, dict[str, Any]]:
        """What each said when it was ready."""
        said = {vendor: child.wait_first(READY_S_MAX) for vendor, child in self.children.items()}
        self._ports = {vendor: int(ready["port"]) for vendor, ready in said.items()}
        return said

    def base_url(self, vendor: str) -> str:
        return f"http://127.0.0.1:{self._ports[vendor]}/v1"

    def incident(self, failure_rate: float) -> None:
        """Both vendors fail this share of all calls, whatever the model; 0 ends it."""
        for vendor in self.children:
            self._control(vendor, {"incident_failure_rate": failure_rate})

    def states(self) -> dict[str, dict[str, Any]]:
        return {vendor: self._control(vendor, {}) for vendor in self.children}

    def stop(self) -> None:
        for child in self.children.values():
            child.stop()

    def _start(self, vendor: str, port: int, folder: Path) -> Child:
        models = [option for release in RELEASES if release.vendor == vendor for option in ("--model", release.model_option)]
        argv = [
            sys.executable,
            str(EXAMPLES / "upstreams" / "standin_model.py"),
            "--port",
            str(port),
            "--name",
            f"vendor-{vendor}",
            *models,
        ]
        return Child(f"upstream {vendor}", argv, environment=os.environ, folder=folder, listen=lambda _: None)

    def _control(self, vendor: str, settings: dict[str, Any]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._ports[vendor]}/control"
        request = urllib.request.Request(url, data=json.dumps(settings).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=CALL_S_MAX) as answer:
                state: dict[str, Any] = json.load(answer)
        except OSError as error:
            raise Failed(f"upstream {vendor} did not take {settings}: {error}") from error
        return state
