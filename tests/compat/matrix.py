"""Run every client against a real gateway and write docs/reference/compatibility.md.

    make compat [ARGS="--only openai-python --no-page"]

Each client gets an environment of its own outside the repository (`COHORT_COMPAT_DIR`, else `~/.cache/cohort/compat`), with the newest
version that its registry has; one that cannot be installed is left out, and the page says so. Behind the gateway stands a vendor of our
own that speaks both dialects strictly; then real servers, as far as they can be had (`--only real` tries them alone). Exit code 1 when a
case fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upstreams.trial import PACKAGES, Trial, section, tried

from support_gateway import GatewayProcess, release, table
from support_upstream import Upstream
from support_vendor import KEY, vendor

ROOT = Path(__file__).resolve().parents[2]
CLIENTS_DIR = Path(__file__).parent / "clients"
PAGE = ROOT / "docs" / "reference" / "compatibility.md"
INSTALL_S = 900
RUN_S = 300
REAL = "real"
KINDS = {"chat": "chat completions", "responses": "Responses", "messages": "messages"}


@dataclass(frozen=True)
class Client:
    """One row of the page, and where it comes from. `kind`: the dialect of a client that speaks one only."""

    name: str
    script: str
    packages: tuple[str, ...]
    kind: str = ""


CLIENTS = (
    Client("openai-python", "openai_python.py", ("openai",), "OpenAI"),
    Client("openai-node", "openai_node.mjs", ("openai", "zod"), "OpenAI"),
    Client("anthropic-python", "anthropic_python.py", ("anthropic",), "messages"),
    Client("anthropic-node", "anthropic_node.mjs", ("@anthropic-ai/sdk",), "messages"),
    Client("pydantic-ai", "pydantic_ai_client.py", ("pydantic-ai-slim[openai,anthropic]",)),
    Client("LangGraph", "langgraph_client.py", ("langgraph", "langchain", "langchain-openai", "langchain-anthropic")),
    Client("OpenAI Agents SDK", "openai_agents.py", ("openai-agents",)),
)


@dataclass
class Outcome:
    """What one client's run said. `cells`: by service and case, whether it went well; None where there is no such thing."""

    client: Client
    versions: dict[str, str] = field(default_factory=dict)
    cells: dict[tuple[str, str], bool | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    chosen = [client for client in CLIENTS if options.only in (None, client.name)]
    home = Path(os.environ.get("COHORT_COMPAT_DIR") or Path.home() / ".cache" / "cohort" / "compat")
    with tempfile.TemporaryDirectory(prefix="cohort-compat-") as folder:
        upstream = Upstream(behave=vendor)
        gateway = _gateway(Path(folder), upstream)
        try:
            outcomes = [_tried(client, home / client.name.lower().replace(" ", "-"), gateway.port) for client in chosen]
        finally:
            gateway.close()
            upstream.close()
    trial = _real(home) if options.only in (None, REAL) else Trial()
    if not options.no_page:
        PAGE.write_text(_page(outcomes, trial))
        _say(f"wrote {PAGE.relative_to(ROOT)}")
    cells = [trial.cells, *(outcome.cells for outcome in outcomes)]
    return 1 if any(ok is False for each in cells for ok in each.values()) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*(client.name for client in CLIENTS), REAL], help="one client, or the real upstreams")
    parser.add_argument("--no-page", action="store_true", help="leave the page as it is")
    return parser.parse_args()


def _gateway(folder: Path, upstream: Upstream) -> GatewayProcess:
    gateway = GatewayProcess(folder, environment={"VENDOR_KEY": KEY})
    routes = {name: {"provider": name, "api_key": "env:VENDOR_KEY"} for name in ("openai", "anthropic")}
    releases = [release("big", upstream.base_url, f"rel_{name}", route=route) for name, route in routes.items()]
    gateway.push(table(1, releases, {f"over-{name}": f"rel_{name}" for name in routes}))
    return gateway


def _real(home: Path) -> Trial:
    """The real servers; without their clients nothing is tried."""
    _say("real upstreams: installing")
    client = Client("real upstreams", "real_upstreams.py", PACKAGES)
    try:
        python = _python(client, home / "real-upstreams")[0]
    except (subprocess.SubprocessError, OSError) as error:
        return Trial(problems=[f"not tried: the clients could not be installed: {type(error).__name__}"])
    return tried(home, Path(python))


# --- one client ------------------------------------------------------------------------------------------------------------------


def _tried(client: Client, folder: Path, port: int) -> Outcome:
    outcome = Outcome(client)
    _say(f"{client.name}: installing")
    try:
        command = _node(client, folder) if client.script.endswith(".mjs") else _python(client, folder)
    except (subprocess.SubprocessError, OSError) as error:
        outcome.problems.append(f"not installed: {type(error).__name__}")
        return outcome
    _say(f"{client.name}: running")
    environment = {**os.environ, "COHORT_BASE_URL": f"http://127.0.0.1:{port}"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired:
        outcome.problems.append(f"did not end within {RUN_S} s")
        return outcome
    for line in done.stdout.splitlines():
        _take(outcome, json.loads(line))
    if done.returncode or not outcome.cells:
        outcome.problems.append(f"ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    for problem in outcome.problems:
        _say(f"{client.name}: {problem}")
    return outcome


def _take(outcome: Outcome, line: dict[str, Any]) -> None:
    if "versions" in line:
        outcome.versions = line["versions"]
        return
    outcome.cells[line["service"], line["case"]] = line["ok"]
    if line["ok"] is False:
        outcome.problems.append(f"{line['service']}, {line['case']}: {line['why']}")


def _python(client: Client, folder: Path) -> list[str]:
    python = folder / "bin" / "python"
    if not python.exists():
        _ran([sys.executable, "-m", "venv", str(folder)])
    _ran([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", "--upgrade", *client.packages])
    return [str(python), str(CLIENTS_DIR / client.script)]


def _node(client: Client, folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    _ran(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *(f"{p}@latest" for p in client.packages)])
    for name in (client.script, "harness.mjs"):  # Node looks for packages beside the script
        shutil.copy(CLIENTS_DIR / name, folder / name)
    return ["node", str(folder / client.script)]


def _ran(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, timeout=INSTALL_S, check=True)


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


# --- the page --------------------------------------------------------------------------------------------------------------------


def _page(outcomes: list[Outcome], trial: Trial) -> str:
    cases = list(dict.fromkeys(case for outcome in outcomes for _, case in outcome.cells))
    today = time.strftime("%Y-%m-%d", time.gmtime())
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    head = [
        "# Compatibility of clients",
        "",
        f"Written by `make compat` on {today}, with Python {python} on {system}: each client, in the newest version then, made real calls through a",
        "gateway process to a stand-in vendor that speaks OpenAI's and Anthropic's dialects and refuses what their documentation forbids.",
        "`yes`: the client got what it asked for, in its own types; `-`: not tried, as the client, or that kind of upstream, has no such thing or",
        "another case covers it.",
        "",
    ]
    rows = [f"| Client | Speaks | Upstream | {' | '.join(cases)} |", "| --- | --- | --- |" + " --- |" * len(cases)]
    for outcome in outcomes:
        for service in dict.fromkeys(service for service, _ in outcome.cells):
            kind, _, name = service.rpartition(" ")
            marks = [_mark(outcome.cells.get((service, case))) for case in cases]
            speaks = KINDS.get(kind or outcome.client.kind, outcome.client.kind)
            rows.append(f"| {outcome.client.name} | {speaks} | {name.removeprefix('over-')} | {' | '.join(marks)} |")
    problems = [f"- {outcome.client.name}: {problem}" for outcome in outcomes for problem in outcome.problems] or ["None."]
    return "\n".join([*head, *rows, "", "## What did not work", "", *problems, "", *section(trial), *_versions(outcomes), "", *WHAT]) + "\n"


def _versions(outcomes: list[Outcome]) -> list[str]:
    rows = [
        f"| {outcome.client.name} | {', '.join(f'{n} {v}' for n, v in outcome.versions.items())} |"
        for outcome in outcomes
        if outcome.versions
    ]
    return ["## Versions", "", "| Client | Packages |", "| --- | --- |", *rows]


WHAT = [
    "## What each case asks",
    "",
    "| Case | What |",
    "| --- | --- |",
    "| answer, stream | a text, whole and as it comes, with its usage |",
    "| tools, streamed tools | the model calls a function, the client runs it and sends the result, the model reads it |",
    "| structured output | a schema is filled in and parsed by the client |",
    "| image | a picture in the request |",
    "| error | the vendor's 429, and where the client can name a model freely an unknown one, as the client's own exceptions |",
    "| timeout | the client gives up after a second |",
    "| embeddings, count tokens | where the upstream has them |",
    "| responses, responses by id | OpenAI's Responses, whole and streamed; a conversation that goes on by `previous_response_id` |",
    "| too long, wrong field | a prompt over the model's context, a temperature that is no number, as the client's own exceptions |",
    "| client leaves | a client closes an endless stream: the model stops within seconds |",
    "| crowd | 24 calls, 12 at a time, to a server with two slots |",
    "| usage recorded | tokens of what was answered stand in the gateway's records |",
    "| server killed, next route | SIGKILL in a stream: the client is told that it broke off; the next call is answered by the second route |",
]


def _mark(ok: bool | None) -> str:
    return "-" if ok is None else "yes" if ok else "no"


if __name__ == "__main__":
    sys.exit(main())
