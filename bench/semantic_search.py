"""What a search for the nearest questions takes, beside a plain product with numpy and usearch, in turn and in the same run.

    python bench/semantic_search.py [--dimension N] [--size N ...] [--json]

`loop` is how long the event loop is held by one search: all of it where the gateway searches on the loop, else handing it to a thread and
confirming what the thread found. Every search's answer is compared with the exact one.
"""

# ruff: noqa: E402

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # as the gateway sets it: before numpy is loaded

import argparse
import asyncio
import datetime
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy
from usearch.index import Index

from cohort.gateway.cache.semantic.index import VectorIndex
from cohort.gateway.cache.semantic.store import NEAREST, ON_LOOP_NUMBERS_MAX

SIZES = (1_000, 10_000, 20_000, 25_000)
DIMENSION = 384
TIMED = 100
THRESHOLD = 0.7
NOISE = 0.4
"""How far a question is from the one it was made of; the cosine of the two is about 0.93."""

Row = dict[str, Any]
Search = Callable[[Any], list[int]]


def unit(vectors: Any) -> Any:
    return (vectors / numpy.linalg.norm(vectors, axis=-1, keepdims=True)).astype(numpy.float32)


def measure(size: int, dimension: int) -> Row:
    chance = numpy.random.default_rng(size)
    vectors = unit(chance.normal(size=(size, dimension)))
    picked = chance.integers(size, size=TIMED)
    asked = unit(vectors[picked] + NOISE * unit(chance.normal(size=(TIMED, dimension))))
    index, slots = filled(vectors)
    place = {slot: at for at, slot in enumerate(slots)}
    graph = Index(ndim=dimension, metric="cos", dtype="f32")
    graph.add(numpy.arange(size), vectors)

    def plain(question: Any) -> list[int]:
        cosines = vectors @ question
        near = numpy.argpartition(-cosines, NEAREST)[:NEAREST]
        return [int(at) for at in near[numpy.argsort(-cosines[near])] if cosines[at] >= THRESHOLD]

    ways: dict[str, Search] = {
        "gateway": lambda question: [place[slot] for slot, _ in index.nearest(question, NEAREST, THRESHOLD)],
        "numpy, plain": plain,
        "usearch": lambda question: [int(key) for key in graph.search(question, 1).keys],
    }
    taken, right = in_turn(ways, asked, picked)
    found: Row = {"size": size, "dimension": dimension, "exact": index.exact, "ways": {}}
    for name in ways:
        found["ways"][name] = {**spread(taken[name]), "right": right[name] / TIMED}
    in_thread = not index.exact or index.numbers > ON_LOOP_NUMBERS_MAX
    held = asyncio.run(held_us(index, asked)) if in_thread else taken["gateway"]
    return {**found, "in_thread": in_thread, "loop": spread(held)}


def filled(vectors: Any) -> tuple[VectorIndex, list[int]]:
    index = VectorIndex(vectors.shape[1])
    slots = [index.add(vector) for vector in vectors]
    while len(index) > 20_000 and index.exact:  # a gateway's graph takes in a few vectors with each one added: here all of them
        index.remove(index.add(vectors[0]))
    return index, slots


def in_turn(ways: dict[str, Search], asked: Any, picked: Any) -> tuple[dict[str, list[float]], dict[str, int]]:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    right = dict.fromkeys(ways, 0)
    for question, source in zip(asked, picked, strict=True):
        for name, search in ways.items():
            began = time.perf_counter_ns()
            found = search(question)
            taken[name].append((time.perf_counter_ns() - began) / 1000)
            right[name] += bool(found) and found[0] == source
    return taken, right


async def held_us(index: VectorIndex, asked: Any) -> list[float]:
    """What the loop itself does of a search in a thread, as the store does it."""
    loop, held = asyncio.get_running_loop(), []
    for question in asked:
        began = time.perf_counter_ns()
        waiting = loop.run_in_executor(None, index.search(), question, NEAREST, THRESHOLD)
        handed = time.perf_counter_ns() - began
        slots = await waiting
        began = time.perf_counter_ns()
        index.confirmed(slots, question, NEAREST, THRESHOLD)
        held.append((handed + time.perf_counter_ns() - began) / 1000)
    return held


def spread(taken: list[float]) -> Row:
    ordered = sorted(taken)
    return {"p50_us": ordered[len(ordered) // 2], "p99_us": ordered[int(len(ordered) * 0.99) - 1], "least_us": ordered[0]}


def table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads), *("| " + " | ".join(row) + " |" for row in rows)])


def report(found: Row) -> str:
    rows = []
    for row in found["sizes"]:
        where = ("thread" if row["in_thread"] else "loop") + ("" if row["exact"] else ", approximate")
        for name, way in row["ways"].items():
            own = name == "gateway"
            times = [f"{way[part]:.0f}" for part in ("least_us", "p50_us", "p99_us")]
            loop = f"{row['loop']['p50_us']:.0f}" if own else "-"
            rows.append([f"{row['size']:,}", name, where if own else "-", *times, loop, f"{way['right']:.0%}"])
    head = f"{found['dimension']} numbers a vector, {TIMED} searches of each, in turn. {found['at']}, {found['machine']}, load {found['load']:.1f}."
    return (
        head
        + "\n\n"
        + table(["Vectors", "Search", "Where", "Least us", "p50 us", "p99 us", "Loop held, p50 us", "Nearest found"], rows)
        + "\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dimension", type=int, default=DIMENSION)
    parser.add_argument("--size", type=int, action="append", help="may be given several times")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: Row = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {numpy.__version__}",
        "load": os.getloadavg()[0],
        "dimension": arguments.dimension,
        "sizes": [measure(size, arguments.dimension) for size in arguments.size or SIZES],
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if arguments.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
