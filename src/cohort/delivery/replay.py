"""Recompute every verdict of a rollout from its recorded log. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from cohort.delivery.evidence import Evidence, Key, Unit, key_of
from cohort.delivery.model import Replay, Rollout, Transition
from cohort.delivery.processes import Baseline
from cohort.gateway.contract import Call


def replay(rollout: Rollout, events: Sequence[Transition], calls: Iterable[Call], position: Key | None, figures: Sequence[float]) -> Replay:
    """Take `calls` (completed, in the order of evidence) again from the beginning, up to `position`.

    Compared bit for bit: the figures recorded with every verdict, and `figures`, those of the evidence as it stands.
    """
    started = next((event for event in events if event.kind == "started"), None)
    warm = Baseline.from_state(started.detail["warm"]) if started is not None and started.detail.get("warm") else None
    evidence = Evidence(rollout.plan, warm, rollout.speed, started.stage if started is not None else 0)
    due = _verdicts(events)
    hasher, records, compared, units = hashlib.sha256(), 0, 0, dict[str, Unit]()
    difference: str | None = None
    for group in _groups(calls, position):
        evidence.take(group, units)
        records += len(group)
        hasher.update(struct.pack(f"<{len(evidence.figures())}d", *evidence.figures()))
        for event in due.pop(key_of(group[0]), []):
            compared += 1
            difference = difference or _difference(f"{event.kind} (event {event.seq})", event.detail["figures"], evidence.figures())
    for event in (event for left in due.values() for event in left):
        difference = difference or f"{event.kind} (event {event.seq}): its position is not in the recorded log"
    difference = difference or _difference("the evidence as it stands", figures, evidence.figures())
    return Replay(rollout.id, difference is None, records, compared, difference, hasher.hexdigest())


def _groups(calls: Iterable[Call], position: Key | None) -> Iterator[list[Call]]:
    for key, group in groupby(calls, key_of):
        if position is None or key > position:
            return
        yield list(group)


def _verdicts(events: Sequence[Transition]) -> dict[Key, list[Transition]]:
    """Events that recorded figures, by the key of the last call taken before them."""
    due: dict[Key, list[Transition]] = {}
    for event in events:
        place = event.detail.get("position")
        if place and "figures" in event.detail:
            due.setdefault((place[0], place[1], place[2], place[3]), []).append(event)
    return due


def _difference(where: str, recorded: Sequence[float], recomputed: Sequence[float]) -> str | None:
    if len(recorded) != len(recomputed):
        return f"{where}: {len(recorded)} figures recorded, {len(recomputed)} recomputed"
    for index, (old, new) in enumerate(zip(recorded, recomputed, strict=True)):
        if struct.pack("<d", old) != struct.pack("<d", new):
            return f"{where}: figure {index} was recorded as {old!r} and recomputed as {new!r}"
    return None


def verdict_detail(evidence: Evidence, position: Key | None) -> Mapping[str, Any]:
    """What an event records of the evidence it rests on."""
    return {"position": list(position) if position else None, "figures": evidence.figures()}
