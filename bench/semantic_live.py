"""The semantic cache at work: a real gateway, a real model of embeddings, and a service whose right answers are known.

    python bench/semantic_live.py [--model NAME|FOLDER] [--threshold COSINE] [--rounds N] [--json]

Every English question of `bench/semantic_pairs.txt`, in both wordings and behind several openings, asked once each in an order drawn by
chance, with the default budget of wrong answers. The upstream knows which questions are one and answers these alike, so each answer by
meaning is known to be right or wrong. Each opening is a round; the later rounds show what the earlier ones have taught.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from semantic_cache import SAME, percent, rate, read_pairs, table

from support_embeddings import EmbeddingsProcess
from support_gateway import GatewayProcess, release
from support_gateway import table as routing

OPENINGS = (
    "",
    "Hello, ",
    "Please tell me: ",
    "Hi there! ",
    "Good morning. ",
    "Can you help me? ",
    "One question: ",
    "I would like to know: ",
)
UPSTREAM_MS = 20
CACHES = ("miss", "exact", "semantic")

Row = dict[str, Any]


def intents() -> dict[str, int]:
    """Which question each text is: pairs of kind `same` join their two."""
    root: dict[str, str] = {}

    def find(text: str) -> str:
        while root.setdefault(text, text) != text:
            text = root[text]
        return text

    for pair in read_pairs():
        if pair.language == "en":
            one, other = find(pair.one), find(pair.other)
            if pair.kind == SAME:
                root[one] = other
    numbers: dict[str, int] = {}
    return {text: numbers.setdefault(find(text), 1000 + len(numbers)) for text in root}


class Service(ThreadingHTTPServer):
    """Answers with the number of the question, after UPSTREAM_MS."""

    daemon_threads = True

    def __init__(self, known: dict[str, int]) -> None:
        self.known = known
        super().__init__(("127.0.0.1", 0), Door)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in one piece: in two, the second would wait 40 ms for the first to be acknowledged
    server: Service

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(UPSTREAM_MS / 1000)
        said = answer_of(self.server.known[fields["messages"][-1]["content"]])
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        body = json.dumps(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def answer_of(number: int) -> str:
    return f"This is described in chapter {number} of the manual."


@dataclass(frozen=True, slots=True)
class Answered:
    """`cache`: what answered, one of CACHES. `took_ms`: on the wall. `said`: the answer."""

    text: str
    cache: str
    is_right: bool
    took_ms: float
    said: str


def asked(gateway: GatewayProcess, text: str, number: int) -> Answered:
    began_s = time.perf_counter()
    status, headers, body = gateway.chat("service", messages=[{"role": "user", "content": text}], temperature=0)
    took_ms = (time.perf_counter() - began_s) * 1000
    if status != 200:
        raise RuntimeError(f"{status}: {body!r}")
    said = json.loads(body)["choices"][0]["message"]["content"]
    return Answered(text, headers["x-cohort-cache"], said == answer_of(number), took_ms, said)


def round_of(found: list[Answered]) -> Row:
    counts = Counter(entry.cache for entry in found)
    return {"asked": len(found), **{name: counts[name] for name in CACHES}, "wrong": len(wrong_of(found))}


def wrong_of(found: list[Answered]) -> list[Answered]:
    return [entry for entry in found if entry.cache == "semantic" and not entry.is_right]


def measure(arguments: argparse.Namespace, directory: Path) -> Row:
    texts = intents()
    chance = random.Random(1)
    known = {opening + text: number for opening in OPENINGS for text, number in texts.items()}
    service = Service(known)
    model = EmbeddingsProcess(directory, arguments.model)
    gateway = GatewayProcess(directory, limits={"cache_embeddings_wait_s": 5})
    try:
        embeddings = {"base_url": model.base_url, "model": "local"}
        cache = {"semantic": {"threshold": arguments.threshold, "embeddings": embeddings}}
        url = f"http://127.0.0.1:{service.server_address[1]}/v1"
        gateway.push(routing(1, [release("service", url, "rel_service", cache=cache)]))
        rounds, taken = [], []
        for opening in OPENINGS[: arguments.rounds]:
            order = chance.sample(sorted(texts), len(texts))
            found = [asked(gateway, opening + text, texts[text]) for text in order]
            rounds.append({"opening": opening, **round_of(found)})
            taken += found
        state = json.loads(gateway.link("GET", "/-/cache")[1])["l4"]["services"]["service"]
    finally:
        gateway.close()
        model.close()
        service.shutdown()
    spent = {name: [entry.took_ms for entry in taken if entry.cache == name] for name in CACHES}
    questions = {answer_of(number): text for text, number in texts.items()}
    return {
        "model": arguments.model,
        "threshold": arguments.threshold,
        "load": os.getloadavg()[0],
        "questions": len(set(texts.values())),
        "rounds": rounds,
        "median_ms": {name: statistics.median(some) for name, some in spent.items() if some},
        "served": sum(entry["semantic"] for entry in rounds),
        "wrong": [[entry.text, questions[entry.said]] for entry in wrong_of(taken)],
        "state": {name: state[name] for name in ("looked", "served", "unproven", "objections", "sample", "learned")},
    }


def report(found: Row) -> str:
    heads = ["Opening", "Asked", "Model", "Exact", "By meaning", "of these wrong"]
    rows = [[repr(r["opening"]), r["asked"], r["miss"], r["exact"], r["semantic"], r["wrong"]] for r in found["rounds"]]
    wrong = percent(rate(len(found["wrong"]), found["served"])) if found["served"] else "none served"
    times = ", ".join(f"{name} {ms:.1f}" for name, ms in found["median_ms"].items())
    first = f"{found['model']}, threshold {found['threshold']}, {found['questions']} questions, load {found['load']:.0f}."
    last = f"Wrong by meaning: {wrong}. Median ms as the client meets it, {UPSTREAM_MS} ms of them the upstream's on a miss: {times}."
    wrongly = [f"- {text} / answered as: {other}" for text, other in found["wrong"]]
    return "\n\n".join([first, table(heads, rows), last, *wrongly, json.dumps(found["state"])]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--threshold", type=float, default=0.75)
    parser.add_argument("--rounds", type=int, default=len(OPENINGS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(arguments, Path(directory))
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if arguments.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
