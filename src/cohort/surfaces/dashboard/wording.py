"""Figures and states in words, as the pages show them. Pure: times come in as arguments.

A space that must not break stands before a unit. `None` is "no data" and never a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cohort.delivery.model import ArmView, GateKind, GateView, Metric, Plan, RolloutRow, RolloutView, StageView, State, Verdict

GAP = "\u00a0"
NO_DATA = "no data"
SECOND_US = 1_000_000

STATE_WORDS = {
    State.PLANNED: "Planned",
    State.RUNNING: "Running",
    State.PAUSED: "Paused",
    State.AWAITING_APPROVAL: "Waiting for approval",
    State.PROMOTED: "Promoted",
    State.ROLLED_BACK: "Rolled back",
    State.ABORTED: "Aborted",
}
STATE_TONES = {
    State.PLANNED: "plain",
    State.RUNNING: "accent",
    State.PAUSED: "wait",
    State.AWAITING_APPROVAL: "wait",
    State.PROMOTED: "safe",
    State.ROLLED_BACK: "harm",
    State.ABORTED: "harm",
}
VERDICT_WORDS = {Verdict.HARMFUL: "Harmful", Verdict.SAFE: "Safe", Verdict.NOT_YET: "Not yet"}
VERDICT_TONES = {Verdict.HARMFUL: "harm", Verdict.SAFE: "safe", Verdict.NOT_YET: "plain"}

EVENT_TONES = {
    "alarm": "harm",
    "rolled_back": "harm",
    "aborted": "harm",
    "held": "wait",
    "paused": "wait",
    "approval_asked": "wait",
    "certificate": "safe",
    "promoted": "safe",
    "verified": "safe",
}

QUESTIONS = {
    Metric.FAILURES: "Does {new} fail more often than {old}?",
    Metric.LATENCY: "Is {new} slower than {old}?",
    Metric.FIRST_BYTE: "Does {new} take longer to begin answering than {old}?",
    Metric.COST: "Does {new} cost more than {old}?",
    Metric.TOKENS: "Does {new} write more than {old}?",
    Metric.FEEDBACK: "Do users complain more about {new} than about {old}?",
    Metric.REGISTRY: "Is the stored release whole?",
}
LIMITS = {
    Metric.FAILURES: "Does {new} keep its limit on failures?",
    Metric.LATENCY: "Does {new} keep its limit on latency?",
    Metric.FIRST_BYTE: "Does {new} begin to answer within its limit?",
    Metric.COST: "Does {new} keep its limit on cost?",
    Metric.TOKENS: "Does {new} keep its limit on tokens?",
    Metric.FEEDBACK: "Does {new} keep its limit on complaints?",
    Metric.REGISTRY: "Is the stored release whole?",
}


def count(value: float | None) -> str:
    return NO_DATA if value is None else f"{value:,.0f}"


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, no exponent: 12,400; 3.14; 0.031."""
    if value is None:
        return NO_DATA
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{float(text):.6f}".rstrip("0").rstrip(".") if "e" in text else text


def share(pct: float | None) -> str:
    """A percentage given as 0 to 100."""
    return NO_DATA if pct is None else f"{number(pct)}{GAP}%"


def rate(part: float | None) -> str:
    """A percentage given as 0 to 1, with two decimals under 10 %."""
    if part is None:
        return NO_DATA
    return f"{part * 100:.2f}{GAP}%" if part < 0.1 else f"{part * 100:.1f}{GAP}%"


def rate_of(events: int, units: int) -> str:
    return rate(events / units) if units else NO_DATA


def millis(value: float | None) -> str:
    if value is None:
        return NO_DATA
    return f"{value / 1000:.2f}{GAP}s" if value >= 1000 else f"{value:.0f}{GAP}ms"


def took(value_us: float) -> str:
    """A time of one call: microseconds, in the unit that fits."""
    if abs(value_us) < 1000:
        return f"{value_us:.0f}{GAP}µs" if value_us else f"0{GAP}ms"
    return f"{value_us / 1000:.1f}{GAP}ms" if abs(value_us) < 10_000 else millis(value_us / 1000)


def money(usd: float | None) -> str:
    if usd is None:
        return NO_DATA
    if usd >= 1 or round(usd * 100, 6).is_integer():
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd >= 0.01 else f"${usd:.6f}"


def duration(seconds: float | None) -> str:
    """The two largest units: `12 s`, `2 min 10 s`, `3 h`, `2 days 4 h`."""
    if seconds is None:
        return NO_DATA
    left = max(0, round(seconds))
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}{GAP}ms"
    parts: list[str] = []
    for size, word in ((86_400, "day"), (3600, "h"), (60, "min"), (1, "s")):
        amount, left = divmod(left, size)
        if amount or (size == 1 and not parts):
            parts.append(f"{amount}{GAP}{word}{'s' if word == 'day' and amount != 1 else ''}")
    return " ".join(parts[:2])


def ago(at_us: int, now_us: int) -> str:
    seconds = (now_us - at_us) / SECOND_US
    if seconds < 1:
        return "just now"
    return f"{duration(seconds).split(' ')[0]} ago"


def absolute(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / SECOND_US, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine_time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def headline(view: RolloutView) -> str:
    """The rollout in one sentence."""
    new, where = view.candidate.version, view.service
    if view.state is State.PROMOTED:
        return f"{new} was promoted and serves all of {where}"
    if view.state is State.ROLLED_BACK:
        return f"{new} was rolled back; {view.serving.version} serves all of {where}"
    if view.state is State.ABORTED:
        return f"The rollout of {new} was aborted; {view.serving.version} serves all of {where}"
    done = f"{sum(stage.status == 'done' for stage in view.stages)} of {len(view.stages)} stages done"
    reach = reached(view.stages[view.stage], where)
    if view.state is State.PAUSED:
        return f"Paused: {new} stays on {reach}, {done}"
    if view.state is State.AWAITING_APPROVAL:
        return f"{new} is on {reach} and waits for a person’s approval, {done}"
    trying = view.stages[view.stage].traffic_pct == 0 and view.stages[view.stage].shadow_pct > 0
    return f"Trying {new} on {reach}: {done}" if trying else f"Rolling out {new} to {reach}: {done}"


def reached(stage: StageView, service: str) -> str:
    if stage.traffic_pct == 0:
        return f"copies of {share(stage.shadow_pct)} of {service}" if stage.shadow_pct > 0 else f"nobody yet, of {service}"
    return f"{share(stage.traffic_pct)} of {service}"


def arms_in_order(arms: Sequence[ArmView]) -> list[ArmView]:
    """Stable first."""
    return sorted(arms, key=lambda arm: arm.arm != "stable")


def row_sentence(row: RolloutRow) -> str:
    """An active rollout in a list of services."""
    if row.traffic_pct == 0:
        return f"{row.candidate.version} in stage “{row.stage_name}”, no user sees it yet"
    return f"{row.candidate.version} on {share(row.traffic_pct)}, stage {row.stage + 1}"


def question(gate: GateView, view: RolloutView) -> str:
    words = QUESTIONS if gate.kind is GateKind.COMPARISON else LIMITS
    if gate.kind is GateKind.PASSES:
        return f"Has “{gate.name}” passed often enough?"
    return words[gate.metric].format(new=view.candidate.version, old=view.stable.version)


def counts(gate: GateView, view: RolloutView) -> str:
    """How much was seen, in words; says so when nothing was."""
    if gate.units_stable + gate.units_candidate == 0:
        return "No units seen yet."
    arms = [(view.candidate.version, gate.units_candidate, gate.events_candidate)]
    if gate.kind is GateKind.COMPARISON:
        arms.append((view.stable.version, gate.units_stable, gate.events_stable))
    verb = {Metric.FAILURES: " failed", Metric.FEEDBACK: " complained"}.get(gate.metric, " over the limit")
    said = []
    for version, units, events in arms:
        if gate.events_stable + gate.events_candidate == 0 and gate.metric not in (Metric.FAILURES, Metric.FEEDBACK):
            said.append(f"{version}: {count(units)} units")
        else:
            said.append(f"{version}: {count(events)} of {count(units)} units{verb} ({rate_of(events, units)})")
    return "; ".join(said) + "."


def interval(gate: GateView, view: RolloutView) -> str | None:
    """The interval for candidate / stable in words, or None where it is bounded on no side."""
    low, high, old = gate.ratio_low, gate.ratio_high, view.stable.version
    what = {Metric.FAILURES: "fails", Metric.FEEDBACK: "is complained about"}.get(gate.metric, "is over the limit")
    if low is None and high is None:
        return None
    if low is None:
        times = f"at most {number(high, 2)}"
    elif high is None:
        times = f"at least {number(low, 2)}"
    else:
        times = f"{number(low, 2)} to {number(high, 2)}"
    return f"{view.candidate.version} {what} {times} times as often as {old}."


def promise(plan: Plan) -> str:
    """What a plan's error rates mean; a plan that compares nothing has none."""
    asked = [gate for stage in plan.stages for gate in stage.gates if gate.kind is not GateKind.INVARIANT and not gate.dry_run]
    back = f"A harmless release is ever rolled back with a chance of at most {share(plan.alpha * 100)}" if asked else ""
    wrong = f"a wrong certificate has at most {share(plan.beta * 100)}" if any(stage.certificate for stage in plan.stages) else ""
    said = "; ".join(part for part in (back, wrong) if part)
    return (
        f"{said[:1].upper()}{said[1:]}."
        if said
        else "Nothing is asked of the outcomes: only a damaged release, or a person, takes it back."
    )


def event_words(kind: str) -> str:
    return kind.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Figure:
    label: str
    value: str


SUMMARY_LABELS = {
    "traffic_moved_ms": "Verdict to traffic moved",
    "verdict_to_last_candidate_ms": "Verdict to the last unit on the candidate",
    "verified": "The gateway confirmed it",
}
SUMMARY_SILENT = ("serving", "settled", "verdict_us")
SUFFIXES: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("_us", lambda value: absolute(int(value))),
    ("_ms", millis),
    ("_s", duration),
    ("_pct", share),
    ("_rate", rate),
    ("_usd", money),
)


def figures(values: Mapping[str, Any]) -> list[Figure]:
    """A summary for people: what users met first, then how fast it went; figures that this does not know are named by their keys."""
    found = [_users_met(values)] if "candidate_units" in values else []
    found += [Figure(label, _words(key, values[key])) for key, label in SUMMARY_LABELS.items() if values.get(key) is not None]
    known = {*SUMMARY_LABELS, *SUMMARY_SILENT}
    rest = {key: value for key, value in values.items() if key not in known and not key.startswith(("candidate_", "stable_", "shadow_"))}
    return found + [Figure(_label(key), _words(key, value)) for key, value in rest.items() if isinstance(value, (bool, int, float, str))]


def _users_met(values: Mapping[str, Any]) -> Figure:
    failed = values.get("candidate_units_failed")
    return Figure("Units that met a failure of the candidate", f"{count(failed)} of {count(values['candidate_units'])}")


def _words(key: str, value: bool | int | float | str) -> str:
    """The ending of a key is its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    for suffix, words in SUFFIXES:
        if key.endswith(suffix):
            return words(value)
    return count(value) if isinstance(value, int) else number(value)


def _label(key: str) -> str:
    for suffix, _ in SUFFIXES:
        key = key.removesuffix(suffix)
    return key.replace("_", " ").strip().capitalize()
