"""The battery of the gates: how soon harm is seen, how often health is blamed, and what an outcome costs.

    python bench/gates.py [--quick] [--json]

Prints the tables of docs/reference/gates-battery.md, with the references of gates.md section 8 beside what was measured. Seeds are
fixed, so all but the timings repeat exactly. About 1 minute with --quick, up to 8 in full, on one core. Needs numpy and scipy, which the
development extras bring.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # its neighbours, however it is started

try:
    import numpy as np
    from gates_rivals import RULES, mann_whitney
    from gates_simulation import (
        SLOWDOWNS,
        OrderedReplay,
        binary_log_e,
        binary_units,
        failures_log_e,
        history_sketch,
        oracle_failures,
        oracle_slowdown,
        ordered_units,
        simulate,
        values_ms,
        worlds,
    )
except ModuleNotFoundError as missing:
    sys.exit(f"bench/gates.py needs {missing.name}, which comes with the development extras: pip install -e '.[dev]'")

from cohort.stats import (
    LabelBinary,
    LabelFailures,
    LabelOrdered,
    LimitCertificate,
    OneSample,
    RatioInterval,
    SafetyCertificate,
    Sketch,
    SplitAudit,
    expected_units_to_certificate,
    log_threshold,
)
from cohort.stats.binary import PRIOR_RATE
from cohort.stats.certificate import CERTIFICATE_WEIGHTS, certificate_ratios, stable_share
from cohort.stats.exact import crossing
from cohort.stats.failures import RATIOS, WEIGHTS
from cohort.stats.planning import information

ALPHA, BETA = 0.01, 0.05
Row = dict[str, Any]
REFERENCE = {  # gates.md section 8: (bound, oracle, label process)
    (0.01, 2.0, 0.05): (1256, 1338, 1520),
    (0.01, 2.0, 0.25): (1678, 1774, 1994),
    (0.01, 5.0, 0.05): (123, 141, 161),
    (0.01, 5.0, 0.25): (180, 203, 228),
    (0.01, 10.0, 0.05): (36, 44, 52),
    (0.01, 10.0, 0.25): (57, 71, 81),
    (0.02, 1.5, 0.05): (2205, 2324, 2743),
    (0.02, 1.5, 0.25): (2875, 3019, 3543),
}
HIGH_BASE = 0.05  # from here on 6.3 is used, with a prior rate from before the rollout
RATE_MAX = 0.95  # of the candidate, in a cell


def exact_units(base: float, ratio: float, share: float) -> float:
    """Mean candidate units of 6.2, by the dynamic programme."""
    return _label_units(base, ratio, share, RATIOS, WEIGHTS)


def label_oracle_units(base: float, ratio: float, share: float) -> float:
    """The same for the test that knows the ratio and sees failures only: the oracle SPRT of section 8."""
    return _label_units(base, ratio, share, (ratio,), (1.0,))


def _label_units(base: float, ratio: float, share: float, ratios: Sequence[float], weights: Sequence[float]) -> float:
    mean = base * (share * ratio + 1 - share)
    found = crossing(ratios, weights, share, share * base * ratio / mean, log_threshold(ALPHA), 20_000, tail=1e-5)
    return found.mean_labels / mean * share


def reference_cells(quick: bool) -> list[Row]:
    rng = np.random.default_rng(1)
    rows = []
    for (base, ratio, share), (bound_ref, oracle_ref, ours_ref) in REFERENCE.items():
        bound = share * log_threshold(ALPHA) / information(base, ratio, share)
        oracle, ours = label_oracle_units(base, ratio, share), exact_units(base, ratio, share)
        every = oracle_failures(base, base * ratio, share, log_threshold(ALPHA), 400 if quick else 4000, rng)
        rows.append(
            {
                "cell": f"{base:.0%} -> {base * ratio:.0%}, w = {share:.0%}",
                "bound": bound,
                "bound, ref.": bound_ref,
                "oracle of failures": oracle,
                "oracle, ref.": oracle_ref,
                "oracle of all outcomes": every,
                "6.2": ours,
                "6.2, ref.": ours_ref,
                "6.2 / oracle of failures": ours / oracle,
                "6.2 / oracle of all": ours / every,
                "6.2 / bound": ours / bound,
            }
        )
    return rows


def all_cells(quick: bool) -> list[Row]:
    """Base rate 1-40 %, ratio 1.5-10, share 5-50 %: the process that the base rate calls for."""
    rng = np.random.default_rng(2)
    bases = (0.01, 0.05, 0.2, 0.4) if quick else (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    cells = [(base, ratio, share) for base in bases for ratio in (1.5, 2.0, 5.0, 10.0) for share in (0.05, 0.25, 0.5)]
    return [_cell(*cell, 100 if quick else 1000, rng) for cell in cells if cell[0] * cell[1] < RATE_MAX]


def _cell(base: float, ratio: float, share: float, runs: int, rng: np.random.Generator) -> Row:
    """6.2 against the oracle that sees failures, 6.3 against the one that sees every outcome, as they do themselves."""
    threshold = log_threshold(ALPHA)
    bound = share * threshold / information(base, ratio, share)
    row: Row = {"cell": f"{base:.0%} x {ratio:g}, w = {share:.0%}", "bound": bound}
    if base < HIGH_BASE:
        oracle, ours = label_oracle_units(base, ratio, share), exact_units(base, ratio, share)
        return row | {"process": "6.2", "oracle": oracle, "units": ours, "/ oracle": ours / oracle, "/ bound": ours / bound}
    oracle = oracle_failures(base, base * ratio, share, threshold, 2 * runs, rng)
    ours = binary_units(base, base * ratio, share, base, threshold, runs, rng)
    cold = binary_units(base, base * ratio, share, PRIOR_RATE, threshold, runs, rng)
    measured = {"process": "6.3", "oracle": oracle, "units": ours, "/ oracle": ours / oracle, "/ bound": ours / bound}
    return row | measured | {"/ oracle, prior rate 1 %": cold / oracle}


def latency_shapes(quick: bool) -> list[Row]:
    rng = np.random.default_rng(3)
    share, threshold, rows = 0.05, log_threshold(ALPHA), []
    for shape in SLOWDOWNS:
        oracle = oracle_slowdown(shape, share, threshold, 300 if quick else 2000, rng)
        ours = ordered_units(shape, share, threshold, 20 if quick else 300, rng)
        rows.append(
            {
                "shape": shape.name,
                "oracle": oracle,
                "oracle, ref.": shape.reference[0],
                "process": "6.4",
                "units": ours,
                "units, ref.": shape.reference[1],
                "/ oracle": ours / oracle,
            }
        )
    oracle, timed_out = rows[-1]["oracle"], SLOWDOWNS[-1].timed_out
    units = crossing(RATIOS, WEIGHTS, share, 1.0, threshold, 100).mean_labels / timed_out
    rows.append({"shape": "the same, counted as failures", "oracle": oracle, "process": "6.2", "units": units, "/ oracle": units / oracle})
    return rows


def false_alarms_exact(quick: bool) -> list[Row]:
    """Section 6.10: what the boundary is really worth over a horizon."""
    horizon = 4_000 if quick else 20_000
    rows = []
    for share, exact_threshold in ((0.05, 72), (0.25, 86), (0.5, 85)):
        rows.append(
            {
                "share": f"{share:.0%}",
                "failures": horizon,
                "false rollback at 1/alpha = 100, %": 100
                * crossing(RATIOS, WEIGHTS, share, share, log_threshold(ALPHA), horizon).probability,
                "threshold of 6.10": exact_threshold,
                "false rollback at it, %": 100 * crossing(RATIOS, WEIGHTS, share, share, np.log(exact_threshold), horizon).probability,
            }
        )
    return rows


def certificates(quick: bool) -> list[Row]:
    rows = []
    for ratio, share in ((3.0, 0.05), (2.0, 0.25), (1.5, 0.5)):
        null, bets = stable_share(share, ratio), certificate_ratios(ratio)
        wrong = crossing(bets, CERTIFICATE_WEIGHTS, null, null, log_threshold(BETA), 1000 if quick else 5000).probability
        row: Row = {"rules out": f"{ratio:g} x at {share:.0%}", "wrong at exactly that ratio, %": 100 * wrong}
        for relative in (1.0, 0.5):
            true = (1 - share) / (1 - share + share * relative)
            found = crossing(bets, CERTIFICATE_WEIGHTS, null, true, log_threshold(BETA), 5000, tail=1e-5)
            row[f"units, candidate at {relative:g} x"] = found.mean_labels / (0.01 * (share * relative + 1 - share))
        row["forecast, at 1 x"] = expected_units_to_certificate(0.01, ratio, share, BETA)
        rows.append(row)
    return rows


def field_rules(quick: bool) -> list[Row]:
    """Every rule on the same simulated days: how often it rolls back."""
    judged = _judged_worlds(quick)
    return [
        {"rule": name} | {f"{world}: rolled back, %": 100 * len(back) / runs for world, (runs, back) in found.items()}
        for name, found in judged.items()
    ]


def field_detections(quick: bool) -> list[Row]:
    """The same days, harmful ones: mean candidate units until the rollback, among the runs that had one."""
    judged = _judged_worlds(quick)
    return [
        {"rule": name} | {world: sum(back) / len(back) if back else None for world, (_, back) in found.items() if "harmful" in world}
        for name, found in judged.items()
    ]


@functools.cache
def _judged_worlds(quick: bool) -> dict[str, dict[str, tuple[int, list[int]]]]:
    """rule -> world -> (runs, candidate units at each rollback)."""
    judged: dict[str, dict[str, tuple[int, list[int]]]] = {name: {} for name in RULES}
    for number, world in enumerate(worlds()):
        rng = np.random.default_rng([4, number])
        runs = [simulate(world, rng) for _ in range(40 if quick else 1000)]
        for name, rule in RULES.items():
            some = runs[:200] if rule is mann_whitney else runs
            minutes = [rule(run, ALPHA) for run in some]
            units = [int(run.units_candidate[: at + 1].sum()) for run, at in zip(some, minutes, strict=True) if at is not None]
            judged[name][world.name] = (len(some), units)
    return judged


def drifting_false_alarms(quick: bool) -> list[Row]:
    """A healthy release during a ramp 5-25-50 %, 18,000 units: an incident half-way doubles the latency and the failures of both arms."""
    rng = np.random.default_rng(5)
    share = np.repeat([0.05, 0.25, 0.5], 6_000)
    place = np.arange(share.size)
    incident = (place > 5_500) & (place < 9_000)
    slower, rate = np.exp(0.3 * np.sin(place / 900)) * (1.0 + incident), 0.1 * (1 + 0.5 * np.sin(place / 900)) * (1.0 + incident)
    runs, ordered, binary = (40 if quick else 1000), 0, 0
    for _ in range(runs):
        arm = rng.random(share.size) < share
        replay = OrderedReplay(values_ms(rng.standard_normal(5_000)))
        ordered += bool((replay.feed(arm, share, values_ms(rng.standard_normal(share.size)) * slower) >= log_threshold(ALPHA)).any())
        failed = rng.random(share.size) < rate
        binary += bool((binary_log_e(arm[None, :], failed[None, :], share, 0.1) >= log_threshold(ALPHA)).any())
    return [
        {"process": "6.3, failures and successes, base 5 to 30 %", "runs": runs, "rolled back, %": 100 * binary / runs},
        {"process": "6.4, latency", "runs": runs, "rolled back, %": 100 * ordered / runs},
    ]


def batch_agreement(quick: bool) -> list[Row]:
    """The batch replays used above against the classes themselves, one run each."""
    rng = np.random.default_rng(6)
    units = 2_000 if quick else 20_000
    arm, values, failed = rng.random(units) < 0.25, values_ms(rng.standard_normal(units)), rng.random(units) < 0.2
    past, share = values_ms(rng.standard_normal(2_000)), np.full(units, 0.25)
    ordered, failures, binary = LabelOrdered(), LabelFailures(), LabelBinary(prior_rate=0.2)
    ordered.warm_from(history_sketch(past))
    for one, value, bad in zip(arm.tolist(), values.tolist(), failed.tolist(), strict=True):
        ordered.update(int(one), 0.25, value)
        failures.update(int(one), 0.25)
        binary.update(int(one), 0.25, bad)
    pairs = {
        "6.2": (failures.log_e, float(failures_log_e(arm, share)[-1])),
        "6.3": (binary.log_e, float(binary_log_e(arm[None, :], failed[None, :], share, 0.2)[0, -1])),
        "6.4": (ordered.log_e, float(OrderedReplay(past).feed(arm, share, values)[-1])),
    }
    return [{"process": name, "class": one, "batch": other, "difference": abs(one - other)} for name, (one, other) in pairs.items()]


def _outcomes(count: int) -> list[tuple[int, bool, float]]:
    rng = random.Random(7)
    return [(1 if rng.random() < 0.05 else 0, rng.random() < 0.01, rng.lognormvariate(6.9, 0.6)) for _ in range(count)]


def costs(quick: bool) -> list[Row]:
    outcomes = _outcomes(20_000 if quick else 200_000)
    labels = [(arm, 0.05) for arm, _, _ in outcomes]
    fails = [(failed,) for _, failed, _ in outcomes]
    values = [(value,) for _, _, value in outcomes]
    sketch = Sketch()
    cases: list[tuple[str, Callable[..., object], list[Any]]] = [
        ("LabelFailures (6.2), per failure", LabelFailures().update, labels),
        ("LabelBinary (6.3), per unit", LabelBinary().update, [(arm, 0.05, failed) for arm, failed, _ in outcomes]),
        ("LabelOrdered (6.4), per unit", LabelOrdered().update, [(arm, 0.05, value) for arm, _, value in outcomes]),
        ("OneSample (6.5), per unit", OneSample(0.02).update, fails),
        ("LimitCertificate, per unit", LimitCertificate(0.02).update, fails),
        ("SafetyCertificate (6.6), per failure", SafetyCertificate(3.0).update, labels),
        ("RatioInterval (6.6), per failure", RatioInterval(0.05).update, labels),
        ("SplitAudit (6.11.3), per unit", SplitAudit().update, labels),
        ("Sketch.add", sketch.add, values),
        ("Sketch.rank", sketch.rank, values),
    ]
    return [{"update": name, "microseconds": _timed(update, events)} for name, update, events in cases]


def _timed(update: Callable[..., object], events: list[Any]) -> float:
    """Processor time of one update."""
    start = time.process_time()
    for event in events:
        update(*event)
    return (time.process_time() - start) / len(events) * 1e6


def replay(quick: bool) -> list[Row]:
    """One release's gates over many outcomes, twice: straight, and saved and restored through JSON on the way."""
    outcomes = _outcomes(100_000 if quick else 1_000_000)
    start = time.perf_counter()
    straight = _judged(outcomes, pause_every=len(outcomes))
    seconds = time.perf_counter() - start
    paused = _judged(outcomes, pause_every=len(outcomes) // 7)
    return [{"outcomes": len(outcomes), "seconds": seconds, "same bits when interrupted": straight == paused}]


def _judged(outcomes: list[tuple[int, bool, float]], pause_every: int) -> str:
    """Failures (6.2), certificate, interval, latency (6.4): the final state as JSON."""
    failures, certificate, interval, latency = LabelFailures(), SafetyCertificate(3.0), RatioInterval(0.05), LabelOrdered(1.05)
    for number, (arm, failed, value) in enumerate(outcomes, 1):
        if failed:
            failures.update(arm, 0.05)
            certificate.update(arm, 0.05)
            interval.update(arm, 0.05)
        latency.update(arm, 0.05, value)
        if number % pause_every == 0:
            state = json.loads(json.dumps([one.to_state() for one in (failures, certificate, interval, latency)]))
            failures, certificate = LabelFailures.from_state(state[0]), SafetyCertificate.from_state(state[1])
            interval, latency = RatioInterval.from_state(state[2]), LabelOrdered.from_state(state[3])
    return json.dumps([one.to_state() for one in (failures, certificate, interval, latency)])


SECTIONS: dict[str, Callable[[bool], list[Row]]] = {
    "Failures: mean candidate units to detect, the cells of section 8": reference_cells,
    "Failures: base rate 1-40 %, ratio 1.5-10, share 5-50 %": all_cells,
    "Latency: mean candidate units to detect, w = 5 %": latency_shapes,
    "Probability of ever rolling back a release that is no worse, exact": false_alarms_exact,
    "Safety certificates at beta = 5 %, base rate 1 %: exact mean units of both arms": certificates,
    "Rules of the field: how often they roll back": field_rules,
    "Rules of the field: mean candidate units until the rollback of a harmful release": field_detections,
    "A healthy release under drift, ramp and incident": drifting_false_alarms,
    "Batch replay against the classes": batch_agreement,
    "Cost of one update": costs,
    "Replay": replay,
}


def summary(results: dict[str, list[Row]]) -> list[Row]:
    """The targets of gates.md against what was measured."""
    reference, cells, shapes, exact, _, field, _, drifting, _, cost, again = results.values()
    low, high = [row for row in cells if row["process"] == "6.2"], [row for row in cells if row["process"] == "6.3"]
    micro = {row["update"]: row["microseconds"] for row in cost}
    rows = [
        _worst("failures below 5 %: units / oracle <= 1.25", low, "/ oracle", "cell"),
        _worst("failures below 5 %: units / bound <= 1.45", low, "/ bound", "cell"),
        _worst("failures from 5 %: units / oracle <= 1.25", high, "/ oracle", "cell"),
        _worst("failures from 5 %: units / bound <= 1.45", high, "/ bound", "cell"),
        _worst("section 8, against the oracle of all outcomes", reference, "6.2 / oracle of all", "cell"),
        _worst("latency: units / oracle <= 1.5", shapes, "/ oracle", "shape"),
        _worst("false rollback, exact, % <= 1", exact, "false rollback at 1/alpha = 100, %", "share"),
        _worst("false rollback of 6.3 and 6.4 in drift and incident, % <= 1", drifting, "rolled back, %", "process"),
    ]
    healthy = {name: share for name, share in field[0].items() if name.startswith("healthy")}
    rows += [
        {
            "target": "false rollback of 6.2, simulated, % <= 1",
            "measured": max(healthy.values()),
            "where": max(healthy, key=healthy.__getitem__),
        }
    ]
    rows += [{"target": "binary update <= 10 microseconds", "measured": micro["LabelBinary (6.3), per unit"], "where": "6.3"}]
    rows += [{"target": "ordered update <= 25 microseconds", "measured": micro["LabelOrdered (6.4), per unit"], "where": "6.4"}]
    return [
        *rows,
        {"target": "replay of 1,000,000 outcomes <= 30 s", "measured": again[0]["seconds"], "where": f"{again[0]['outcomes']:,} outcomes"},
    ]


def _worst(target: str, rows: list[Row], column: str, name: str) -> Row:
    worst = max(rows, key=lambda row: float(row[column]))
    missed = sum(row[column] > float(target.rsplit("<=")[1]) for row in rows) if "<=" in target else None
    where = str(worst[name]) + (f" (missed in {missed} of {len(rows)})" if missed else "")
    return {"target": target, "measured": worst[column], "where": where}


def machine() -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return {True: "yes", False: "no", None: "never"}.get(value, value)  # type: ignore[arg-type]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.2f}" if abs(value) < 20 else f"{value:,.0f}"


def table(title: str, rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"## {title}", "", "| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_shown(row[name]) if name in row else "" for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs, about a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    chosen = parser.parse_args()
    results: dict[str, list[Row]] = {}
    for title, section in SECTIONS.items():
        start = time.perf_counter()
        results[title] = section(chosen.quick)
        print(f"{time.perf_counter() - start:6.1f} s  {title}", file=sys.stderr)
    results["Summary"] = summary(results)
    if chosen.json:
        print(json.dumps({"machine": machine(), "quick": chosen.quick, "results": results}, indent=1))
        return
    facts = machine()
    print(f"Measured {facts['date']}: {facts['cores']} cores, {facts['system']}, Python {facts['python']}, numpy {facts['numpy']}.\n")
    for title in ("Summary", *SECTIONS):
        print(table(title, results[title]))


if __name__ == "__main__":
    main()
