"""What a local model of embeddings costs: time of one text, texts a second for several callers at once, the core's time, and what gathering adds.

    python bench/embeddings.py [--model FOLDER|NAME] [--threads N] [--seconds S] [--json]

Without `--model` a graph of the shape of MiniLM-L6 (6 layers, 384 numbers, 12 heads, 1536 in between) with weights drawn by chance is made and
served: its times are those of such a model, and its vectors mean nothing. With `--model` that folder, or all-MiniLM-L6-v2. Beside it, in the same process as the
bench, the same model without the server: what the server costs is the difference.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psutil

from cohort.base.settings_embeddings import EmbeddingsSettings
from cohort.gateway.embeddings.model import OnnxModel
from support_embeddings import EmbeddingsProcess
from support_shape import write_shape

TEXTS = {
    "a short question": "How do I reset the password of my account?",
    "a long one": "I ordered two pairs of shoes last week and only one of them came. " * 6,
}
CALLERS = (1, 4, 16, 64)
GATHERING_MS = (0, 1, 5)
TRIES = 50

Row = dict[str, Any]


def alone(folder: str, threads: int) -> tuple[Row, OnnxModel]:
    began_s = time.perf_counter()
    model = OnnxModel(EmbeddingsSettings.of({"model": folder, "threads": threads}, Path.cwd()))
    load_ms = (time.perf_counter() - began_s) * 1000
    rows = {}
    for name, text in TEXTS.items():
        taken = [timed(lambda text=text: model.embed([text])) for _ in range(TRIES)]
        rows[name] = {"tokens": model.embed([text])[0].tokens, **spread(taken)}
    short = next(iter(TEXTS.values()))
    batch = {size: statistics.median(timed(lambda size=size: model.embed([short] * size)) for _ in range(10)) / size for size in (1, 8, 32)}
    return {"load_ms": load_ms, "texts": rows, "ms_per_text_in_batches_of": {str(size): taken for size, taken in batch.items()}}, model


def timed(work: Any) -> float:
    """Milliseconds on the wall."""
    began_s = time.perf_counter()
    work()
    return (time.perf_counter() - began_s) * 1000


def spread(taken: list[float]) -> Row:
    ordered = sorted(taken)
    return {"median_ms": statistics.median(ordered), "p95_ms": ordered[int(len(ordered) * 0.95)]}


def asked_by(server: EmbeddingsProcess, callers: int, seconds: float) -> Row:
    """`callers` ask one short text after another, each on a connection that it keeps."""
    text = next(iter(TEXTS.values()))
    body = json.dumps({"model": "local", "input": text}).encode()
    taken: list[float] = []
    failed = 0
    lock = threading.Lock()
    process = psutil.Process(server.process.pid)
    before, health, until_s = process.cpu_times(), server.health(), time.monotonic() + seconds

    def ask() -> None:
        nonlocal failed
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        while time.monotonic() < until_s:
            began_s = time.perf_counter()
            connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            with lock:
                failed += answer.status != 200
                taken.append((time.perf_counter() - began_s) * 1000)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s, after, now = time.perf_counter() - began_s, process.cpu_times(), server.health()
    texts, batches = now["texts"] - health["texts"], now["batches"] - health["batches"]
    cpu_s = after.user + after.system - before.user - before.system
    return {
        **{"callers": callers, "texts_per_s": texts / wall_s, "texts_per_batch": texts / batches, "failed": failed},
        **{"cpu_ms_per_text": cpu_s * 1000 / texts, **spread(taken)},
    }


def measure(arguments: argparse.Namespace, directory: Path) -> Row:
    folder = arguments.model or str(write_shape(directory / "shape"))
    rows, model = alone(folder, arguments.threads)
    served = []
    for gather_ms in GATHERING_MS:
        server = EmbeddingsProcess(directory, folder, threads=arguments.threads, limits={"gather_ms": gather_ms})
        try:
            served += [{"gather_ms": gather_ms, **asked_by(server, callers, arguments.seconds)} for callers in CALLERS]
            resident_mb = psutil.Process(server.process.pid).memory_info().rss / 1e6
        finally:
            server.close()
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "model": arguments.model or "a graph of MiniLM-L6's shape, weights by chance",
        "dimension": model.dimension,
        "threads": arguments.threads,
        "alone": rows,
        "served": served,
        "resident_mb": resident_mb,
    }


def table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def report(found: Row) -> str:
    batches = ", ".join(f"{size}: {taken:.2f}" for size, taken in found["alone"]["ms_per_text_in_batches_of"].items())
    first = f"{found['model']}, {found['dimension']} numbers, {found['threads']} core. {found['at']}, {found['machine']}, load {found['load']:.0f}."
    return "\n\n".join(
        [
            first,
            f"Without the server; loading took {found['alone']['load_ms']:.0f} ms:",
            table(
                ["Text", "Tokens", "ms, median", "ms, 95 of 100"],
                [[n, r["tokens"], f"{r['median_ms']:.1f}", f"{r['p95_ms']:.1f}"] for n, r in found["alone"]["texts"].items()],
            ),
            f"Milliseconds for each short question, in batches of {batches}.",
            f"Served, a short question each, {found['resident_mb']:.0f} MB resident:",
            table(
                ["`gather_ms`", "Callers", "Texts a second", "Texts in a batch", "ms, median", "ms, 95 of 100", "CPU ms a text", "Failed"],
                [
                    [
                        *[r["gather_ms"], r["callers"], f"{r['texts_per_s']:.0f}", f"{r['texts_per_batch']:.1f}", f"{r['median_ms']:.1f}"],
                        *[f"{r['p95_ms']:.1f}", f"{r['cpu_ms_per_text']:.2f}", r["failed"]],
                    ]
                    for r in found["served"]
                ],
            ),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="FOLDER", help="a model's folder, or its name, instead of the made graph")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(arguments, Path(directory))
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if arguments.json else report(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
