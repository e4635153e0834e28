"""The gateway before real servers: which cases went well, and the tables of the page that say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from upstreams.servers import LITELLM_KEY, Llama, NotInstalled, Server, litellm

from support_gateway import GatewayProcess, release, table

CLIENTS_DIR = Path(__file__).parents[1] / "clients"
PACKAGES = ("openai", "anthropic")
PROVIDERS = ("openai", "anthropic", "openai-responses")
RUN_S = 600
READ_S = 30


@dataclass
class Trial:
    """By service (`server provider`) and case, whether it went well; None where there is no such thing."""

    cells: dict[tuple[str, str], bool | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def went(self, service: str, case: str, ok: bool | None, why: str = "") -> None:
        self.cells[service, case] = ok
        if ok is False:
            self.problems.append(f"{service}, {case}: {why}")


def tried(home: Path, python: Path) -> Trial:
    """Everything. `home`: where environments are kept; `python`: that of one with `PACKAGES`."""
    trial = Trial()
    with tempfile.TemporaryDirectory(prefix="cohort-real-") as name, ExitStack() as stack:
        folder = Path(name)
        try:
            llama = Llama(home / "llama.cpp", folder)
            first = stack.enter_context(_running(llama.start()))
        except NotInstalled as error:
            trial.problems.append(f"llama.cpp: not tried: {error}")
            return trial
        trial.versions["llama.cpp"] = f"xllamacpp {llama.version}"
        upstreams = {"llama.cpp": (first, "none", "tiny", first.embeddings_port)}
        try:
            proxy, version = litellm(first, folder)
            stack.enter_context(_running(proxy))
            upstreams["LiteLLM"] = (proxy, LITELLM_KEY, "tiny", proxy.port)
            trial.versions["LiteLLM"] = f"litellm {version}"
        except NotInstalled as error:
            trial.problems.append(f"LiteLLM: not tried: {error}")
        gateway = _gateway(folder / "gateway", upstreams)
        stack.callback(gateway.close)
        _clients(trial, gateway, first, python, tuple(upstreams))
        _records(trial, gateway)
        _killed(trial, llama, first, folder / "killed")
    return trial


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.close()


def _gateway(folder: Path, upstreams: dict[str, tuple[Server, str, str, int]]) -> GatewayProcess:
    keys = {f"KEY_{number}": key for number, (_, key, _, _) in enumerate(upstreams.values())}
    gateway = GatewayProcess(folder, environment=keys)
    releases, services = [], {}
    for number, (name, (server, _, model, embeddings_port)) in enumerate(upstreams.items()):
        for kind in (*PROVIDERS, "embeddings"):
            embedding = kind == "embeddings"
            port = embeddings_port if embedding else server.port
            route = {"provider": "openai" if embedding else kind, "api_key": f"env:KEY_{number}"}
            named = f"{model}-embeddings" if embedding else model
            services[f"{name} {kind}"] = digest = f"rel_{number}_{kind}"
            releases.append(release(named, f"http://127.0.0.1:{port}/v1", digest, route=route))
    gateway.push(table(1, releases, services))
    return gateway


def _clients(trial: Trial, gateway: GatewayProcess, llama: Server, python: Path, servers: tuple[str, ...]) -> None:
    services = ",".join(f"{server} {provider}" for server in servers for provider in PROVIDERS)
    said = {
        "COHORT_BASE_URL": f"http://127.0.0.1:{gateway.port}",
        "COHORT_SERVICES": services,
        "COHORT_SLOTS_URL": f"http://127.0.0.1:{llama.port}/slots",
    }
    command = [str(python), str(CLIENTS_DIR / "real_upstreams.py")]
    done = subprocess.run(command, env={**os.environ, **said}, capture_output=True, text=True, timeout=RUN_S, check=False)
    for line in map(json.loads, done.stdout.splitlines()):
        if "versions" not in line:
            trial.went(line["service"], line["case"], line["ok"], line.get("why", ""))
            sys.stderr.write(f"{line['service']}: {line['case']}: {line.get('why', line['ok'])}\n")
    if done.returncode:
        trial.problems.append(f"the clients ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _records(trial: Trial, gateway: GatewayProcess) -> None:
    """Usage of what these servers answered stands in the records, streamed or not."""
    calls = [call for call in gateway.all_records() if call.result.value == "ok" and "embeddings" not in call.service]
    for service in dict.fromkeys(call.service for call in calls):
        mine = [call for call in calls if call.service == service]
        counted = [call for call in mine if call.tokens_in and call.tokens_out]
        enough = len(counted) >= len(mine) * 0.8  # a stream of chat completions that does not ask for usage has none
        trial.went(service, "usage recorded", enough, f"of {len(mine)} calls {len(counted)} have usage")


# --- a server that is killed -----------------------------------------------------------------------------------------------------


def _killed(trial: Trial, llama: Llama, second: Server, folder: Path) -> None:
    """The first route's server is killed with SIGKILL in a stream: the client is told, and the next call gets the second route."""
    for provider in PROVIDERS:
        first = llama.start()
        gateway = GatewayProcess(folder / provider)
        body = release("tiny", f"http://127.0.0.1:{first.port}/v1", "rel_1", route={"provider": provider})
        body["routes"].append({**body["routes"][0], "name": "second", "base_url": f"http://127.0.0.1:{second.port}/v1"})
        gateway.push(table(1, [body], {"both": "rel_1"}))
        service = f"llama.cpp {provider}"
        try:
            said = _cut(gateway.port, first)
            told = b"upstream_stream_interrupted" in said and not said.rstrip().endswith(b"[DONE]")
            trial.went(service, "server killed", told, f"the stream ended with {said[-200:]!r}")
            status, headers, _ = gateway.chat("both", max_tokens=4)
            route = (status, headers.get("x-cohort-route"), headers.get("x-cohort-degraded"))
            trial.went(service, "next route", route == (200, "second", "main"), f"answered as {route}")
        finally:
            gateway.close()
            first.close()


def _cut(port: int, server: Server) -> bytes:
    """What a client reads of a stream whose server is killed after its first bytes."""
    connection = HTTPConnection("127.0.0.1", port, timeout=READ_S)
    fields: dict[str, Any] = {"model": "both", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    body = json.dumps({**fields, "max_tokens": 30000, "ignore_eos": True, "logit_bias": [["<|im_end|>", False]]})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answered = connection.getresponse()
    said = answered.read(200)
    server.kill()
    try:
        while piece := answered.read1(65536):
            said += piece
    except (HTTPException, OSError):
        pass  # the gateway closes what it cannot end well
    finally:
        connection.close()
    return said


# --- the page --------------------------------------------------------------------------------------------------------------------


def section(trial: Trial) -> list[str]:
    """The part of the page."""
    cases = list(dict.fromkeys(case for _, case in trial.cells))
    services = list(dict.fromkeys(service for service, _ in trial.cells))
    marks = {True: "yes", False: "no", None: "-"}
    rows = [f"| {case} | " + " | ".join(marks[trial.cells.get((service, case))] for service in services) + " |" for case in cases]
    head = [f"| Case | {' | '.join(services)} |", "| --- |" + " --- |" * len(services)] if services else []
    versions = ", ".join(trial.versions.values())
    said = f"Real servers{f' ({versions})' if versions else ''}, with a model of random weights that the run writes: what it says has no sense,"
    return [
        "## Real upstreams",
        "",
        f"{said} the server and its dialect are real.",
        "LiteLLM stands before llama.cpp. The second word is the route's `provider`; callers are OpenAI's and Anthropic's clients for Python.",
        "",
        *head,
        *rows,
        "",
        *([f"- {problem}" for problem in trial.problems] or ["Nothing went wrong."]),
        "",
    ]
