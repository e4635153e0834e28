"""How often answers by meaning would serve, and how often wrongly: pairs written for it, at each threshold, with and without each guard.

    python bench/semantic_cache.py [--embeddings URL --model NAME [--api-key-env NAME]] [--threshold COSINE] [--no-searches] [--json]

Without `--embeddings` the gateway's own lexical vectors. The pairs are `bench/semantic_pairs.txt`. What acceptance and the sample add is
not measured here: this is what they have to work with.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy
import orjson

from cohort.gateway.cache.semantic.embedding import from_answer, lexical
from cohort.gateway.cache.semantic.guards import GUARDS, Kind, difference, objections
from cohort.gateway.cache.semantic.index import VectorIndex
from cohort.gateway.cache.semantic.proportion import clopper_pearson
from cohort.gateway.cache.semantic.text import Features, features

PAIRS = Path(__file__).with_name("semantic_pairs.txt")
THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
THRESHOLDS_SINCE = (-1.0, 0.75, 0.85)
PARTS = ("first", "fresh", "later")
"""In the file's order. Each was written when the guards before it were done, and changed none of them."""
CHOICES = tuple(hundredth / 100 for hundredth in range(50, 100))
FALSE_HITS_MAX = 0.01
"""Of the different questions of one half, as many may be served by the threshold that is chosen on it."""
SAME = "same"
TIMED = 200
EXCHANGED, ADDED = Kind.EXCHANGED.value, Kind.ADDED.value
"""Kinds of difference that learn acceptance for themselves: words in the place of others, for each of these words; more words."""
FORCE = frozenset((*GUARDS, "content", EXCHANGED))
"""What is never served before comparisons of these very words. `content` objects only without an embeddings endpoint."""
SETS = {
    "none": frozenset[str](),
    "guards": frozenset(GUARDS),
    "nothing exchanged": frozenset((*GUARDS, EXCHANGED)),
    "nothing exchanged or added": frozenset((*GUARDS, EXCHANGED, ADDED)),
    "content": frozenset((*GUARDS, "content")),
}

INDEX_SIZES = (1_000, 10_000, 20_000, 40_000)
DIMENSION = 384

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions. `kind`: `same`, or what makes them two. `part`: one of PARTS."""

    language: str
    kind: str
    one: str
    other: str
    part: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A pair as L4 sees it. `objections`: of every guard that applies, and the kind of difference, EXCHANGED or ADDED."""

    pair: Pair
    cosine: float
    objections: tuple[str, ...]


def read_pairs() -> list[Pair]:
    pairs, language, kind, part = [], "", "", PARTS[0]
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        if line.strip("[]") in PARTS:
            part = line.strip("[]")
        elif line.startswith("["):
            language, kind = line.strip("[]").split()
        elif line and not line.startswith("#"):
            one, _, other = line.partition(" | ")
            pairs.append(Pair(language, kind, one, other, part))
    return pairs


class Endpoint:
    """An embeddings endpoint with OpenAI's protocol."""

    def __init__(self, url: str, model: str, key: str | None) -> None:
        self._url, self._model, self._key = url.rstrip("/") + "/embeddings", model, key

    def __call__(self, text: str) -> Any:
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {self._key}"} if self._key else {})}
        body = orjson.dumps({"model": self._model, "input": text, "encoding_format": "float"})
        with urlopen(Request(self._url, body, headers), timeout=60) as answer:  # the address is the operator's own
            return from_answer(answer.read())


def look(pairs: list[Pair], embed: Any, is_lexical: bool) -> list[Seen]:
    vectors = {text: embed(text) for pair in pairs for text in (pair.one, pair.other)}
    known: dict[str, Features] = {text: features(text) for text in vectors}
    found = []
    for pair in pairs:
        names = objections(known[pair.one], known[pair.other])
        names = [name for name in names if name in GUARDS or is_lexical]
        kind = difference(known[pair.one], known[pair.other]).kind.value
        names += [kind] if kind in (EXCHANGED, ADDED) else []
        found.append(Seen(pair, float(vectors[pair.one] @ vectors[pair.other]), tuple(names)))
    return found


def rate(hits: int, trials: int) -> Row:
    low, high = clopper_pearson(hits, trials)
    return {"hits": hits, "of": trials, "share": hits / trials if trials else None, "low": low, "high": high}


def served(seen: list[Seen], threshold: float, guards: frozenset[str]) -> int:
    return sum(entry.cosine >= threshold and guards.isdisjoint(entry.objections) for entry in seen)


def by_threshold(seen: list[Seen], sets: dict[str, frozenset[str]]) -> list[Row]:
    rows = []
    for part in PARTS:
        right, wrong = split([entry for entry in seen if entry.pair.part == part])
        for name, guards in sets.items():
            for threshold in THRESHOLDS if part == PARTS[0] else THRESHOLDS_SINCE:
                hits = {what: rate(served(of, threshold, guards), len(of)) for what, of in (("hit", right), ("false_hit", wrong))}
                rows.append({"part": part, "guards": name, "threshold": threshold, **hits})
    return rows


def halves(seen: list[Seen]) -> tuple[list[Seen], list[Seen]]:
    """What a threshold is chosen on, and what is reported of it. By chance, and the n-th pair of a kind in the same half in every language:

    many are translations of each other, and neighbours in the file are rewordings of the same sort.
    """
    chosen_on, reported_on, count = [], [], Counter[tuple[str, str]]()
    for entry in seen:
        group = (entry.pair.language, entry.pair.kind)
        half = zlib.crc32(f"{entry.pair.kind} {count[group]} {entry.pair.part != PARTS[0]}".encode()) & 1
        (reported_on if half else chosen_on).append(entry)
        count[group] += 1
    return chosen_on, reported_on


def chosen(seen: list[Seen], guards: frozenset[str]) -> float | None:
    """The threshold with the most hits among those that keep to FALSE_HITS_MAX; of equal ones the highest. None when none keeps to it."""
    right, wrong = split(seen)
    able = [limit for limit in CHOICES if served(wrong, limit, guards) <= FALSE_HITS_MAX * len(wrong)]
    return max(able, key=lambda limit: (served(right, limit, guards), limit), default=None)


def by_half(seen: list[Seen], sets: dict[str, frozenset[str]]) -> list[Row]:
    chosen_on, reported_on = halves(seen)
    right, wrong = split(reported_on)
    rows = []
    for name, guards in sets.items():
        limit = chosen(chosen_on, guards)
        rates = {part: rate(served(of, limit, guards), len(of)) for part, of in (("hit", right), ("false_hit", wrong))} if limit else {}
        rows.append({"guards": name, "threshold": limit, **rates})
    return rows


def split(seen: list[Seen]) -> tuple[list[Seen], list[Seen]]:
    return [entry for entry in seen if entry.pair.kind == SAME], [entry for entry in seen if entry.pair.kind != SAME]


def by_kind(seen: list[Seen], threshold: float) -> list[Row]:
    rows = []
    for kind in dict.fromkeys(entry.pair.kind for entry in seen):
        near = [entry for entry in seen if entry.pair.kind == kind]
        alike = [entry for entry in near if entry.cosine >= threshold]
        left = [entry for entry in alike if FORCE.isdisjoint(entry.objections)]
        stopped = Counter(name for entry in alike for name in entry.objections)
        rows.append({"kind": kind, "pairs": len(near), "alike": len(alike), "passed": len(left), "objections": dict(stopped)})
    return rows


def by_guard(seen: list[Seen], threshold: float) -> list[Row]:
    """What each guard is worth: what it stops alone, what only it stops, and which right hits it costs, among pairs alike enough."""
    right, wrong = split([entry for entry in seen if entry.cosine >= threshold])
    rows = []
    for name in (*GUARDS, EXCHANGED, ADDED, "content"):
        stops = sum(name in entry.objections for entry in wrong)
        only = sum(entry.objections == (name,) for entry in wrong)
        costs = sum(entry.objections == (name,) for entry in right)
        rows.append({"guard": name, "stops": stops, "only_it": only, "of": len(wrong), "costs_alone": costs, "of_right": len(right)})
    return rows


def blind(seen: list[Seen]) -> list[Row]:
    """Whatever the likeness: how many pairs of each kind no guard but `content` objects to. What an embedding that sees no difference would serve."""
    rows = []
    for kind in dict.fromkeys(entry.pair.kind for entry in seen):
        of = [entry for entry in seen if entry.pair.kind == kind]
        rows.append({"kind": kind, "passed": rate(served(of, -1.0, SETS["guards"]), len(of))})
    return rows


def by_language(seen: list[Seen], threshold: float) -> list[Row]:
    """With nothing exchanged; and of these what is neither added, which is what rewordings alone can prove."""
    rows = []
    for language in dict.fromkeys(entry.pair.language for entry in seen):
        right, wrong = split([entry for entry in seen if entry.pair.language == language])
        rows.append(
            {
                "language": language,
                "hit": rate(served(right, threshold, FORCE), len(right)),
                "false_hit": rate(served(wrong, threshold, FORCE), len(wrong)),
                "alike_hit": rate(served(right, threshold, FORCE | {ADDED}), len(right)),
                "alike_false_hit": rate(served(wrong, threshold, FORCE | {ADDED}), len(wrong)),
            }
        )
    return rows


def timings() -> Row:
    """Microseconds of CPU: to read a text, to make its lexical vector, to search. The median of TIMED, one after another."""
    text = "How do I reset the password of my account when I have lost my phone?"
    found: Row = {"features_us": median_us(lambda: features(text)), "lexical_us": median_us(lambda: lexical(text))}
    chance = numpy.random.default_rng(1)
    for size in INDEX_SIZES:
        vectors = chance.normal(size=(size, DIMENSION)).astype(numpy.float32)
        vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
        index = VectorIndex(DIMENSION)
        for vector in vectors:
            index.add(vector)
        found[f"search_{size}_us"] = median_us(lambda index=index, vectors=vectors: index.nearest(vectors[7], 5, 0.85))
    return found


def median_us(work: Any) -> float:
    taken = []
    for _ in range(TIMED):
        began = time.process_time_ns()
        work()
        taken.append(time.process_time_ns() - began)
    return sorted(taken)[TIMED // 2] / 1000


def median_wall_us(embed: Any, texts: list[str]) -> float:
    """Of the endpoint's answers, one text after another, each on a connection of its own."""
    taken = []
    for text in texts:
        began = time.perf_counter_ns()
        embed(text)
        taken.append(time.perf_counter_ns() - began)
    return sorted(taken)[len(taken) // 2] / 1000


def measure(arguments: argparse.Namespace) -> Row:
    pairs = read_pairs()
    is_lexical = arguments.embeddings is None
    key = os.environ.get(arguments.api_key_env) if arguments.api_key_env else None
    embed = lexical if is_lexical else Endpoint(arguments.embeddings, arguments.model, key)
    seen = look(pairs, embed, is_lexical)
    sets = {name: guards for name, guards in SETS.items() if is_lexical or name != "content"}
    asking = {} if is_lexical else {"embedding_wall_us": median_wall_us(embed, [pair.one for pair in pairs[:TIMED]])}
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {numpy.__version__}",
        "source": "lexical" if is_lexical else arguments.model,
        "pairs": len(pairs),
        "same": sum(pair.kind == SAME for pair in pairs),
        "threshold": arguments.threshold,
        "by_threshold": by_threshold(seen, sets),
        "by_half": by_half(seen, sets),
        "by_kind": by_kind(seen, arguments.threshold),
        "by_guard": by_guard(seen, arguments.threshold),
        "blind": blind(seen),
        "by_language": by_language(seen, arguments.threshold),
        "timings": {**({} if arguments.no_searches else timings()), **asking},
        "passed_wrongly": [
            [e.pair.kind, e.pair.one, e.pair.other, round(e.cosine, 3)]
            for e in split(seen)[1]
            if e.cosine >= arguments.threshold and FORCE.isdisjoint(e.objections)
        ],
    }


# --- words ---------------------------------------------------------------------------------------------------------------------


def percent(figure: Row) -> str:
    if figure["share"] is None:
        return "-"
    return f"{figure['hits']} of {figure['of']} = {figure['share']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def report(found: Row) -> str:
    limit = found["threshold"]
    parts = [
        f"{found['pairs']} pairs, {found['same']} of them the same question in other words. Vectors: {found['source']}. {found['at']}, {found['machine']}.",
        "Shares with their interval of 95 % (Clopper and Pearson).",
        table(
            ["Pairs", "Guards", "Threshold", "Hits among the same", "False hits among the others"],
            [
                [
                    r["part"],
                    r["guards"],
                    "any" if r["threshold"] < 0 else r["threshold"],
                    percent(r["hit"]),
                    percent(r["false_hit"]),
                ]
                for r in found["by_threshold"]
            ],
        ),
        f"A threshold chosen on half of the pairs for at most {FALSE_HITS_MAX:.0%} of false hits there, and what the other pairs say of it:",
        table(
            ["Guards", "Threshold", "Hits among the same", "False hits among the others"],
            [
                [r["guards"], r["threshold"], percent(r["hit"]), percent(r["false_hit"])]
                if r["threshold"]
                else [r["guards"], "none keeps to it", "-", "-"]
                for r in found["by_half"]
            ],
        ),
        f"At threshold {limit}, by what makes two questions two:",
        table(
            ["Kind", "Pairs", "Alike enough", "Passed all guards", "Who objected"],
            [
                [r["kind"], r["pairs"], r["alike"], r["passed"], ", ".join(f"{n} {c}" for n, c in r["objections"].items()) or "-"]
                for r in found["by_kind"]
            ],
        ),
        f"At threshold {limit}, by guard:",
        table(
            ["Guard", "Stops", "Stops alone", "Right hits it costs alone"],
            [[r["guard"], f"{r['stops']} of {r['of']}", r["only_it"], f"{r['costs_alone']} of {r['of_right']}"] for r in found["by_guard"]],
        ),
        "Whatever the likeness, what every guard but `content` lets pass, words in the place of others too, as if an embedding saw no difference at all:",
        table(["Kind", "Passed"], [[r["kind"], percent(r["passed"])] for r in found["blind"]]),
        f"At threshold {limit}, with all guards and nothing exchanged, by language:",
        table(
            ["Language", "Hits", "False hits", "Hits, nothing added", "False hits, nothing added"],
            [
                [r["language"], *(percent(r[name]) for name in ("hit", "false_hit", "alike_hit", "alike_false_hit"))]
                for r in found["by_language"]
            ],
        ),
    ]
    if found["timings"]:
        rows = [[name.removesuffix("_us").replace("_", " "), f"{value:.0f}"] for name, value in found["timings"].items()]
        parts += ["What it takes, microseconds of CPU, median:", table(["Step", "us"], rows)]
    if found["passed_wrongly"]:
        parts += [
            "Passed wrongly:",
            "\n".join(f"- {kind}: {one} / {other} ({cosine})" for kind, one, other, cosine in found["passed_wrongly"]),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embeddings", metavar="URL", help="base URL of an OpenAI-compatible endpoint")
    parser.add_argument("--model", default="", help="its model")
    parser.add_argument("--api-key-env", metavar="NAME", help="the variable that holds its key")
    parser.add_argument("--threshold", type=float, default=0.85)
    parser.add_argument("--no-searches", action="store_true", help="leave out the times of searches, which take minutes")
    parser.add_argument("--json", action="store_true")
    found = measure(arguments := parser.parse_args())
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if arguments.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
