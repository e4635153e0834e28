"""`make demo`: the whole product on this machine, no key needed.

Two stand-in vendors, conversations by the official OpenAI client, and four rollouts: a better release, a harmful one, one that is slow
at the tail, and one in the middle of an incident during which control is killed. Then a hostile agent tries to break out, and somebody
edits the audit log. It uses what anybody has: the `cohort` command and the HTTP API.

    make demo                          # watch here and in the dashboard; Ctrl-C ends it
    make demo ARGS="--exit --json"     # run through, print one JSON object, exit non-zero if anything did not happen
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from rehearsal import acts
from rehearsal.clients import Clients
from rehearsal.hostile import hostile
from rehearsal.house import House
from rehearsal.processes import Child, Failed, free_port, gone
from rehearsal.releases import FIRST, SERVICE
from rehearsal.report import LIMIT_S, Report
from rehearsal.screen import Plain, Screen
from rehearsal.stage import Stage, Teller
from rehearsal.upstreams import Upstreams

GATEWAY_PORT = 8700
CONTROL_PORT = 8710
CONVERSATIONS_PER_S = 45.0
CONVERSATIONS_PER_S_AFTER = 6.0
WARM_CONVERSATIONS = 250
WARM_S_MAX = 40.0
IDLE_LOOK_S = 1.0
INTERRUPTED = 130
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite kill, and the terminal closed: each ends everything that the demo started."""
REQUIRED = (
    "up",
    "upstreams",
    "traffic",
    "better_promoted",
    "harmful_rolled_back",
    "slow_tail_rolled_back",
    "incident_not_rolled_back",
    "control_killed_no_request_failed",
    "control_restarted_and_went_on",
    "replay_identical",
    "hostile_agent_contained",
    "edited_log_found",
    "no_failure_but_drawn_ones",
    "within_three_minutes",
    "left_no_process",
)


class Demo:
    """Everything that has to be ended again, and the story that uses it."""

    def __init__(self, folder: Path, gateway_port: int, seed: int) -> None:
        self.report = Report(REQUIRED)
        self._folder = folder
        self._gateway_port = gateway_port
        self._seed = seed
        self._upstreams: Upstreams | None = None
        self._house: House | None = None
        self._clients: Clients | None = None
        self._pids: set[int] = set()

    def traffic(self) -> dict[str, Any]:
        """The newest report of the clients; empty before there is one."""
        return self._clients.latest if self._clients is not None else {}

    def run(self, teller: Teller) -> None:
        """The story.

        Raises:
            Failed: it cannot go on; what had happened is in the report.
        """
        upstreams = self._start_upstreams(teller)
        house = self._start_house(teller)
        stage = Stage(self._folder, house, upstreams, self.report, teller)
        clients = self._start_traffic(stage)
        for part in (acts.better, acts.harmful, acts.slow_tail, acts.incident, acts.replay, hostile):
            part(stage, clients)
        self._sum_up(house, clients)

    def _start_upstreams(self, teller: Teller) -> Upstreams:
        teller.begin("Two upstream model servers (stand-ins for vendors)")
        self._upstreams = Upstreams(self._folder, self._seed)
        said = self._upstreams.wait_ready()
        self._note_pids(*self._upstreams.children.values())
        text = ", ".join(f"{one['name']} on port {one['port']}" for one in said.values())
        self.report.add("upstreams", len(self._pids) == 2, text, processes=said)
        teller.end(True, text)
        return self._upstreams

    def _start_house(self, teller: Teller) -> House:
        teller.begin("cohort up: control and the gateway")
        self._house = House(self._folder, free_port(self._gateway_port), free_port(CONTROL_PORT))
        self._house.init()
        self._house.up()
        status = self._house.status()
        pids = {part["name"]: part["pid"] for part in status["parts"]}
        self._pids |= {pid for pid in pids.values() if pid}
        store = (self._folder / ".cohort" / "cohort.db").exists()
        ok = len(set(pids.values())) == 2 and None not in pids.values() and store
        text = f"ready after {self._house.ready_ms / 1000:.1f} s; SQLite in a data directory of its own"
        self.report.add("up", ok, text, ready_ms=self._house.ready_ms, processes=pids, health=status["health"], sqlite=store)
        teller.head(f"Gateway   {self._house.gateway_url}/v1")
        teller.head(f"Dashboard {self._house.control_url}   {_key_words(self._house)}")
        teller.end(ok, text)
        return self._house

    def _start_traffic(self, stage: Stage) -> Clients:
        stage.teller.begin(f"Service {SERVICE!r} on release {FIRST.version}, and conversations by the official openai client")
        stage.release(FIRST)
        self._clients = Clients(f"{stage.house.gateway_url}/v1", CONVERSATIONS_PER_S, self._seed, self._folder)
        self._note_pids(self._clients.child)
        report = self._clients.wait_conversations(WARM_CONVERSATIONS, WARM_S_MAX)
        turns = report["requests"] / max(1, report["conversations"] - report["open"])
        ok = report["streamed"] > 0 and report["requests"] > report["streamed"] and turns > 1 and FIRST.version in report["releases"]
        text = f"{report['conversations']} conversations, {report['requests']} requests, {report['streamed']} of them streamed"
        self.report.add("traffic", ok, text, conversations_per_s=CONVERSATIONS_PER_S, serving_now=FIRST.version)
        stage.teller.end(ok, text)
        return self._clients

    def _sum_up(self, house: House, clients: Clients) -> None:
        total = clients.now()
        served = {
            version: {name: tally[name] for name in ("requests", "units", "units_failed")} for version, tally in total["releases"].items()
        }
        text = f"{total['requests']} requests, {total['failures_drawn']} failures drawn by the upstreams, {total['failures_other']} others"
        self.report.add(
            "no_failure_but_drawn_ones",
            total["failures_other"] == 0 and total["turned_away"] == 0,
            text,
            **{name: total[name] for name in ("conversations", "requests", "streamed", "failures", "turned_away", "errors", "cpu_s")},
            releases=served,
        )
        took_s = self.report.took_s
        self.report.add("within_three_minutes", took_s <= LIMIT_S, f"{took_s:.0f} s", took_s=round(took_s, 1), limit_s=LIMIT_S)
        self._pids |= {part["pid"] for part in house.status()["parts"] if part["pid"]}

    def keep_serving(self, teller: Teller) -> None:
        """Modest traffic until Ctrl-C."""
        if self._clients is None or self._house is None:
            return
        self._clients.pace(CONVERSATIONS_PER_S_AFTER)
        teller.begin(f"Serving until Ctrl-C: {self._house.control_url}")
        while self._clients.child.alive:
            teller.view(None)
            time.sleep(IDLE_LOOK_S)

    def stop(self) -> None:
        """End everything that was started, clients first; then see that nothing is left."""
        if self._house is not None and self._house.running:
            with contextlib.suppress(Failed):
                self._pids |= {part["pid"] for part in self._house.status()["parts"] if part["pid"]}
        codes = {
            "traffic": self._clients.stop() if self._clients is not None else None,
            "cohort up": self._house.down() if self._house is not None else None,
        }
        if self._upstreams is not None:
            self._upstreams.stop()
        left = sorted(pid for pid in self._pids if not gone(pid))
        ok = not left and bool(self._pids) and all(code in (0, None) for code in codes.values())
        text = f"{len(self._pids)} processes ended" if not left else f"still there: {left}"
        self.report.add("left_no_process", ok, text, exit_codes=codes, processes=len(self._pids), left=left)

    def _note_pids(self, *children: Child) -> None:
        self._pids |= {child.pid for child in children}


def _key_words(house: House) -> str:
    """The key, once, where a person looks; elsewhere the file it is in."""
    return f"key {house.key}" if sys.stderr.isatty() else f"key in {house.key_file}"


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--exit", action="store_true", help="end after the story; otherwise it serves until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every figure on stdout")
    parser.add_argument("--keep-data", action="store_true", help="leave the data directory, and say where it is")
    parser.add_argument("--port", type=int, default=GATEWAY_PORT, help="of the gateway, where it is free")
    parser.add_argument("--seed", type=int, default=1, help="of the upstreams' draws and the conversations; the verdicts' noise")
    return parser.parse_args(argv)


def play(demo: Demo, serve: bool) -> bool:
    """The story, and whatever its end, a clean stage. True when Ctrl-C, SIGTERM or a closed terminal cut it short."""
    teller: Any = Screen(demo.traffic) if sys.stderr.isatty() else Plain()
    told = False
    try:
        with teller:
            demo.run(teller)
            told = True
            if serve:
                demo.keep_serving(teller)
    except Failed as error:
        demo.report.trouble = str(error)
    except KeyboardInterrupt:
        return not told
    except Exception as error:  # a mistake of the demo's own: the report still says how far it came
        traceback.print_exc()
        demo.report.trouble = f"{type(error).__name__}: {error}"
    finally:
        for sign in ENDINGS:
            signal.signal(sign, signal.SIG_IGN)
        demo.stop()
    return False


def main(argv: list[str]) -> int:
    options = parse_arguments(argv)
    for sign in ENDINGS:
        signal.signal(sign, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="cohort-demo-"))
    demo = Demo(folder, options.port, options.seed)
    try:
        interrupted = play(demo, serve=not options.exit)
    finally:
        if options.keep_data:
            print(f"data kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if interrupted:
        return INTERRUPTED
    if options.json:
        print(json.dumps(demo.report.to_json(), indent=2))
    if demo.report.trouble:
        print(f"error: {demo.report.trouble}", file=sys.stderr)
    for name in demo.report.missing:
        print(f"did not happen: {name}", file=sys.stderr)
    return 0 if demo.report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
