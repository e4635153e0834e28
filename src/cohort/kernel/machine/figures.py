"""What samples of the machine say. Values in, plain JSON values out.

A figure is `{"value": .., "unit": .., "samples": n, "window_s": s}`: from how many samples, over which time. Where there is no answer the value
is the text `unknown` and `why` says why; it is never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

HISTORY_SHOWN = 60
UNKNOWN = "unknown"
Figure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Disk:
    total_bytes: int
    used_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the machine. Counters grow since the machine started; None: this machine does not say.

    `cpu_s`: busy and total seconds of all cores; `cores_s`: of each. `disk_io`: bytes read and written. `network`: bytes received and
    sent, by interface.
    """

    at_s: float
    cpu_s: tuple[float, float] | None
    cores_s: tuple[tuple[float, float], ...] | None
    load: tuple[float, float, float] | None
    memory: tuple[int, int] | None  # total, available
    swap: tuple[int, int] | None  # total, used
    disks: Mapping[str, Disk | None] = field(default_factory=dict)
    disk_io: tuple[int, int] | None = None
    network: Mapping[str, tuple[int, int]] | None = None


def cpu(samples: Sequence[Sample]) -> dict[str, Any]:
    """How busy the cores were: all together, each, and over time."""
    count = next((len(each.cores_s) for each in reversed(samples) if each.cores_s is not None), None)
    cores = [_share(samples, _core(number)) for number in range(count or 0)]
    pairs = list(pairwise(samples))[-HISTORY_SHOWN:]
    return {
        "busy_pct": _share(samples, lambda sample: sample.cpu_s),
        "cores": count if count is not None else UNKNOWN,
        "cores_busy_pct": cores,
        "load_1_5_15_min": _now(samples, lambda sample: None if sample.load is None else list(sample.load), "processes"),
        "history_busy_pct": [_share(pair, lambda sample: sample.cpu_s)["value"] for pair in pairs],
    }


def memory(samples: Sequence[Sample]) -> dict[str, Any]:
    """In bytes: of the machine, not of one agent."""

    def used(sample: Sample) -> int | None:
        return None if sample.memory is None else sample.memory[0] - sample.memory[1]

    return {
        "total_bytes": _now(samples, lambda sample: _part(sample.memory, 0), "bytes"),
        "available_bytes": _now(samples, lambda sample: _part(sample.memory, 1), "bytes"),
        "used_bytes": _now(samples, used, "bytes"),
        "used_most_bytes": _most(samples, used, "bytes"),
        "swap_total_bytes": _now(samples, lambda sample: _part(sample.swap, 0), "bytes"),
        "swap_used_bytes": _now(samples, lambda sample: _part(sample.swap, 1), "bytes"),
        "history_used_bytes": [_known(used(sample)) for sample in samples[-HISTORY_SHOWN:]],
    }


def disk(samples: Sequence[Sample]) -> dict[str, Any]:
    """The file systems that matter, and what is read and written on all disks."""
    names = sorted(samples[-1].disks) if samples else []
    return {
        "file_systems": {name: _file_system(samples, name) for name in names},
        "read_bytes_per_s": _rate(samples, lambda sample: _part(sample.disk_io, 0)),
        "written_bytes_per_s": _rate(samples, lambda sample: _part(sample.disk_io, 1)),
    }


def network(samples: Sequence[Sample]) -> dict[str, Any]:
    """What came and went, by interface."""
    names = sorted(samples[-1].network or {}) if samples else []
    return {
        "received_bytes_per_s": _rate(samples, lambda sample: _all(sample, 0)),
        "sent_bytes_per_s": _rate(samples, lambda sample: _all(sample, 1)),
        "interfaces": {name: _interface(samples, name) for name in names},
    }


def _file_system(samples: Sequence[Sample], name: str) -> dict[str, Figure]:
    def part(attribute: str) -> Figure:
        return _now(samples, lambda sample: getattr(sample.disks.get(name), attribute, None), "bytes")

    return {attribute: part(attribute) for attribute in ("total_bytes", "used_bytes", "free_bytes")}


def _interface(samples: Sequence[Sample], name: str) -> dict[str, Figure]:
    def part(number: int) -> Callable[[Sample], int | None]:
        return lambda sample: _part((sample.network or {}).get(name), number)

    return {"received_bytes_per_s": _rate(samples, part(0)), "sent_bytes_per_s": _rate(samples, part(1))}


def _all(sample: Sample, number: int) -> int | None:
    """Of every interface but the loopback, which leads nowhere."""
    if sample.network is None:
        return None
    return sum(counters[number] for name, counters in sample.network.items() if not name.startswith("lo"))


def _core(number: int) -> Callable[[Sample], tuple[float, float] | None]:
    return lambda sample: sample.cores_s[number] if sample.cores_s is not None and number < len(sample.cores_s) else None


def _share(samples: Sequence[Sample], counters: Callable[[Sample], tuple[float, float] | None]) -> Figure:
    """Busy time by time, in percent, between the first and the last sample."""
    seen = [(sample.at_s, found) for sample in samples if (found := counters(sample)) is not None]
    if len(seen) < 2:
        return _unknown("percent", "it takes two samples", len(seen))
    (first_s, (busy, total)), (last_s, (busy_then, total_then)) = seen[0], seen[-1]
    if total_then <= total or busy_then < busy:
        return _unknown("percent", "its counters did not move forward", len(seen))
    share = min(100.0, 100 * (busy_then - busy) / (total_then - total))
    return _figure(round(share, 1), "percent", len(seen), last_s - first_s)


def _rate(samples: Sequence[Sample], counter: Callable[[Sample], int | None]) -> Figure:
    """Growth by time between the first and the last sample; a counter that began anew in between has no rate."""
    seen = [(sample.at_s, found) for sample in samples if (found := counter(sample)) is not None]
    if len(seen) < 2 or seen[-1][0] <= seen[0][0]:
        return _unknown("bytes per second", "it takes two samples", len(seen))
    if any(later < earlier for (_, earlier), (_, later) in pairwise(seen)):
        return _unknown("bytes per second", "its counter began anew", len(seen))
    window_s = seen[-1][0] - seen[0][0]
    return _figure(round((seen[-1][1] - seen[0][1]) / window_s, 1), "bytes per second", len(seen), window_s)


def _now(samples: Sequence[Sample], value: Callable[[Sample], Any], unit: str) -> Figure:
    found = value(samples[-1]) if samples else None
    return _unknown(unit, "this machine does not say", 0) if found is None else _figure(found, unit, 1, 0.0)


def _most(samples: Sequence[Sample], value: Callable[[Sample], int | None], unit: str) -> Figure:
    seen = [(sample.at_s, found) for sample in samples if (found := value(sample)) is not None]
    if not seen:
        return _unknown(unit, "this machine does not say", 0)
    return _figure(max(found for _, found in seen), unit, len(seen), seen[-1][0] - seen[0][0])


def _part(pair: tuple[int, int] | None, number: int) -> int | None:
    return None if pair is None else pair[number]


def _known(value: int | None) -> int | str:
    return UNKNOWN if value is None else value


def _figure(value: Any, unit: str, samples: int, window_s: float) -> Figure:
    return {"value": value, "unit": unit, "samples": samples, "window_s": round(window_s, 3)}


def _unknown(unit: str, why: str, samples: int) -> Figure:
    return {"value": UNKNOWN, "unit": unit, "samples": samples, "window_s": 0.0, "why": why}
