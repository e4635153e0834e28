"""Samples of what calls asked and were answered, as people ask for them. Gateways keep them; control only looks, and says in the audit log who did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cohort.base.errors import CohortError
from cohort.gateway.contract import Call


@dataclass(frozen=True, slots=True)
class Said:
    """`role`: whose text it is, in the protocol's words."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """What was asked, newest texts as far as they fit, and answered. `found`: what was taken out, by kind."""

    asked: tuple[Said, ...]
    answered: str
    found: Mapping[str, int]


class Sampled(Protocol):
    """A worker of the gateway. Errors: DATA_PLANE_UNAVAILABLE."""

    def content(self, epoch: int, seq: int, arm: str) -> Content | None:
        """Of one of its calls; None where it has none."""
        ...


class Contents:
    """`record`: into the audit log, before anything is shown. `unit_of` a call finds whose it is in the record."""

    def __init__(self, workers: Sequence[Sampled], record: Callable[[Mapping[str, Any]], object]) -> None:
        self._workers = workers
        self._record = record

    def read(self, call: Call, actor: str) -> Content:
        """Errors: NOT_FOUND: none is kept, or no longer. AUDIT_UNAVAILABLE, DATA_PLANE_UNAVAILABLE: nothing was shown."""
        name = f"{call.gateway}/{call.epoch}/{call.seq}"
        if not call.content:
            raise _nothing(name, "The release of the call keeps no samples, or this call was not drawn: `content_samples` in its manifest.")
        self._record({"event": "content_read", "request": name, "unit": call.unit, "actor": actor})
        for worker in self._workers:
            found = worker.content(call.epoch, call.seq, call.arm.value)
            if found is not None:
                return found
        raise _nothing(name, "It is over its time, made room for others, was forgotten with its person, or could not be kept in time.")


def content_of(body: Mapping[str, Any]) -> Content:
    """From a gateway's answer. Raises KeyError, TypeError when it is none."""
    return Content(tuple(Said(row["role"], row["text"]) for row in body["asked"]), body["answered"], dict(body["found"]))


def _nothing(name: str, hint: str) -> CohortError:
    return CohortError("NOT_FOUND", f"there is no content of the call {name}", hint=hint)
