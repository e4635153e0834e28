"""Curves of both arms as geometry; the templates draw them. Pure.

Curves are in thousandths of the width and pixels of height; labels are placed in percent, so that text keeps its size at any width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from cohort.delivery.model import PointView, RolloutView
from cohort.surfaces.dashboard import wording

PLOT_HEIGHT = 132
PLOT_WIDTH = 1000
BUCKETS_MAX = 240
"""More buckets than this are drawn in groups: counts summed, quantiles by their median."""
FAILURE_WINDOW_BUCKETS = 10
TICKS_X_MAX = 4
STAGE_LABEL_MIN = 14.0
"""Percent of the width that the label of a stage needs."""
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800)
ARMS = ("stable", "candidate")

Words = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class Tick:
    """`at`: percent of the width, or pixels from the top."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """`path`: an SVG path with gaps where nothing was measured."""

    arm: str
    style: str
    path: str
    label: str


@dataclass(frozen=True, slots=True)
class Hit:
    """What the pointer reads out over one bucket."""

    left: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure; `lines` is empty when there is nothing to draw."""

    id: str
    title: str
    unit: str
    text: str
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    stages: tuple[Tick, ...]
    lines: tuple[Line, ...]
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class _Series:
    arm: str
    style: str
    label: str
    values: dict[int, float | None]  # by bucket time


@dataclass(frozen=True, slots=True)
class _Span:
    """The time axis: from the start of the rollout to the end of its newest bucket."""

    start_us: int
    end_us: int
    step_us: int

    def part(self, at_us: float) -> float:
        return min(1.0, max(0.0, (at_us - self.start_us) / max(1, self.end_us - self.start_us)))


def rollout_charts(view: RolloutView) -> tuple[Chart, ...]:
    """Traffic, failures, latency."""
    points, bucket_s = grouped(complete(view.points, view.bucket_s, view.now_us), view.bucket_s)
    span = _span(view, points, bucket_s)
    window_s = wording.duration(FAILURE_WINDOW_BUCKETS * bucket_s)
    names = {"stable": view.stable.version, "candidate": view.candidate.version, "shadow": f"{view.candidate.version} (copies)"}
    traffic = [_Series(arm, "main", names[arm], {p.at_us: p.calls / bucket_s for p in points if p.arm == arm}) for arm in _arms(points)]
    failures = [_Series(arm, "main", names[arm], _failure_rates([p for p in points if p.arm == arm])) for arm in _arms(points)]
    latency = [
        _Series(arm, style, f"{names[arm]} {name}", {p.at_us: value(p) for p in points if p.arm == arm})
        for arm in _arms(points)
        for name, style, value in (("p95", "main", _p95), ("p50", "thin", _p50))
    ]
    return (
        _chart("traffic", "Traffic", "calls per second", traffic, span, view, wording.number),
        _chart("failures", "Failures", f"share of calls, over {window_s}", failures, span, view, wording.rate, _percent),
        _chart("latency", "Latency", "p95, and p50 as a thin line", latency, span, view, wording.millis),
    )


def complete(points: Sequence[PointView], bucket_s: float, now_us: int) -> Sequence[PointView]:
    """Without the bucket that is still filling, which would look like a fall; all of them where there is no other yet."""
    return [point for point in points if point.at_us + bucket_s * wording.SECOND_US <= now_us] or points


def grouped(points: Sequence[PointView], bucket_s: float) -> tuple[list[PointView], float]:
    """At most BUCKETS_MAX buckets of each arm, oldest first, and how long each is."""
    ordered = sorted(points, key=lambda point: point.at_us)
    times = sorted({point.at_us for point in ordered})
    if len(times) <= BUCKETS_MAX:
        return ordered, bucket_s
    size = math.ceil(len(times) / BUCKETS_MAX)
    first = {at_us: times[index - index % size] for index, at_us in enumerate(times)}
    groups: dict[tuple[int, str], list[PointView]] = {}
    for point in ordered:
        groups.setdefault((first[point.at_us], point.arm), []).append(point)
    return [_merged(at_us, arm, group) for (at_us, arm), group in groups.items()], bucket_s * size


def sparkline(values: Sequence[int]) -> str:
    """A path in a box of 100 by 24, from nought up; empty when every value is nought."""
    top = max(values, default=0)
    if top == 0:
        return ""
    step = 100 / max(1, len(values) - 1)
    return "M" + " L".join(f"{index * step:.1f} {22 - 20 * value / top:.1f}" for index, value in enumerate(values))


def nice_top(value: float) -> tuple[float, int]:
    """The end of an axis that holds `value`, and into how many steps to cut it: 1, 2, 2.5 or 5 times a power of ten each."""
    if value <= 0:
        return 1.0, 2
    for steps in (3, 4):
        raw = value / steps
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= raw * 0.999)
        if step * steps <= value * 1.45:
            return step * steps, steps
    return step * steps, steps


def _chart(
    name: str, title: str, unit: str, series: list[_Series], span: _Span, view: RolloutView, words: Words, tick: Words | None = None
) -> Chart:
    measured = [value for one in series for value in one.values.values() if value is not None]
    top, steps = nice_top(max(measured, default=0.0))
    lines = tuple(Line(one.arm, one.style, _path(one.values, span, top), one.label) for one in series) if measured else ()
    return Chart(
        id=name,
        title=title,
        unit=unit,
        text=_text(title, series, words) if measured else f"{title}: nothing was measured yet.",
        y_ticks=tuple(
            Tick(PLOT_HEIGHT * (1 - index / steps), (tick or words)(top * index / steps) if index else "0") for index in range(steps + 1)
        ),
        x_ticks=_x_ticks(span),
        stages=_stage_ticks(view, span),
        lines=lines,
        hits=tuple(_hits(series, span, words)) if measured else (),
    )


def _stage_ticks(view: RolloutView, span: _Span) -> tuple[Tick, ...]:
    """Where stages began; a label that the next one would cover is left out."""
    entered = [stage for stage in view.stages if stage.entered_us is not None and stage.entered_us < span.end_us]
    places = [round(100 * span.part(stage.entered_us or 0), 2) for stage in entered]
    following = [*places[1:], 200.0]
    return tuple(
        Tick(at, stage.name if after - at >= STAGE_LABEL_MIN else "") for stage, at, after in zip(entered, places, following, strict=True)
    )


def _arms(points: Sequence[PointView]) -> list[str]:
    present = {point.arm for point in points}
    return [arm for arm in (*ARMS, "shadow") if arm in present]


def _percent(part: float | None) -> str:
    return wording.share(None if part is None else part * 100)


def _p50(point: PointView) -> float | None:
    return point.p50_ms


def _p95(point: PointView) -> float | None:
    return point.p95_ms


def _failure_rates(points: Sequence[PointView]) -> dict[int, float | None]:
    """Failed / calls over the last FAILURE_WINDOW_BUCKETS buckets, so that one failure among ten calls is not a mountain."""
    rates: dict[int, float | None] = {}
    for index, point in enumerate(points):
        window = points[max(0, index + 1 - FAILURE_WINDOW_BUCKETS) : index + 1]
        calls = sum(one.calls for one in window)
        rates[point.at_us] = sum(one.failed for one in window) / calls if calls else None
    return rates


def _span(view: RolloutView, points: Sequence[PointView], bucket_s: float) -> _Span:
    step_us = int(bucket_s * wording.SECOND_US)
    newest = max((point.at_us + step_us for point in points), default=view.created_us + step_us)
    oldest = min((point.at_us for point in points), default=view.created_us)
    return _Span(min(view.created_us, oldest), newest, step_us)


def _path(values: dict[int, float | None], span: _Span, top: float) -> str:
    pieces, pen = [], "M"
    for at_us, value in sorted(values.items()):
        if value is None:
            pen = "M"
            continue
        x = PLOT_WIDTH * span.part(at_us + span.step_us / 2)
        pieces.append(f"{pen}{x:.1f} {PLOT_HEIGHT * (1 - value / top):.1f}")
        pen = "L"
    return " ".join(pieces)


def _x_ticks(span: _Span) -> tuple[Tick, ...]:
    length_s = max(1.0, (span.end_us - span.start_us) / wording.SECOND_US)
    step = next((step for step in STEPS_S if length_s / step <= TICKS_X_MAX), length_s / TICKS_X_MAX)
    marks = range(int(length_s // step) + 1)
    return tuple(Tick(round(100 * index * step / length_s, 2), wording.duration(index * step) if index else "start") for index in marks)


def _hits(series: list[_Series], span: _Span, words: Words) -> list[Hit]:
    times = sorted({at_us for one in series for at_us in one.values})
    width = 100 * span.step_us / max(1, span.end_us - span.start_us)
    hits = []
    for at_us in times:
        said = [f"{one.label} {words(one.values[at_us])}" for one in series if at_us in one.values]
        into = wording.duration((at_us - span.start_us) / wording.SECOND_US)
        hits.append(Hit(round(100 * span.part(at_us), 3), round(width, 3), f"{into} in: {', '.join(said)}"))
    return hits


def _text(title: str, series: list[_Series], words: Words) -> str:
    said = []
    for one in series:
        measured = [value for _, value in sorted(one.values.items()) if value is not None]
        if measured:
            said.append(f"{one.label} from {words(min(measured))} to {words(max(measured))}, now {words(measured[-1])}")
    return f"{title}: {'; '.join(said)}."


def _merged(at_us: int, arm: str, group: Sequence[PointView]) -> PointView:
    p50 = [point.p50_ms for point in group if point.p50_ms is not None]
    p95 = [point.p95_ms for point in group if point.p95_ms is not None]
    calls, failed = sum(point.calls for point in group), sum(point.failed for point in group)
    return PointView(at_us, arm, calls, failed, median(p50) if p50 else None, median(p95) if p95 else None)
