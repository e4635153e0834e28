"""One part of readiness."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """One part of readiness, in words for people."""

    name: str
    ok: bool
    detail: str
