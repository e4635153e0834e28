"""The part of the contract between control and the gateway that says who may call, and what they may spend. See `contract.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Scope(StrEnum):
    """What a budget of dollars is for. RUN has no day: it holds for the whole of one run of an agent."""

    ALL = "all"
    TEAM = "team"
    SERVICE = "service"
    AGENT = "agent"
    RUN = "run"


EACH = "*"
"""The name of a budget that each team, service, agent or run has for itself."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key that clients show. `sha256` of its text, hexadecimal; the text is known to its holder alone.

    `services`: the ones it may call; none named: all. `agent`: whose calls these are, whatever the caller says. Limits that are None do
    not limit; 0 refuses all. `expires_us`: refused from then on.
    """

    id: str
    name: str
    sha256: str
    services: tuple[str, ...] = ()
    tenant: str = ""
    team: str = ""
    agent: str = ""
    budget_usd_micro_per_day: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_us: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `usd_micro` (millionths of a dollar) a day, UTC; for a run, in all. `name`: whose, `*` for each of them; empty for ALL."""

    scope: Scope
    name: str
    usd_micro: int


def decode_keys(entries: Iterable[Mapping[str, Any]]) -> tuple[ClientKey, ...]:
    """Raises TypeError, ValueError or KeyError for what is no key."""
    return tuple(_key(entry) for entry in entries)


def decode_budgets(entries: Iterable[Mapping[str, Any]]) -> tuple[Budget, ...]:
    """Raises TypeError, ValueError or KeyError for what is no budget."""
    return tuple(Budget(Scope(entry["scope"]), str(entry["name"]), _whole(entry["usd_micro"])) for entry in entries)


def _key(entry: Mapping[str, Any]) -> ClientKey:
    key = ClientKey(**{**entry, "services": tuple(entry.get("services", ()))})
    if len(bytes.fromhex(key.sha256)) != 32:
        raise ValueError(f"keys.{key.id}: sha256 is not 64 hexadecimal digits")
    for limit in (key.budget_usd_micro_per_day, key.requests_per_minute, key.tokens_per_minute, key.expires_us):
        if limit is not None:
            _whole(limit)
    return key


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a whole number from 0 on, found {value!r}")
    return value
