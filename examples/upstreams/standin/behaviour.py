"""How a stand-in model behaves: latency, failures, and the draws that decide them. Pure; determined by seed, model and request number."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()
_UNIFORM_MIN = 2.0**-33
LATENCY_MS_MAX = 120_000.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One model's manners.

    Latency is log-normal: median `latency_ms`, standard deviation of its logarithm `latency_sigma`; a `slow_share` of the calls
    takes `slow_factor` times as long. A `failure_rate` of the calls is answered with an error, a `rate_limit_share` of those with 429,
    the rest with 500.
    """

    latency_ms: float = 60.0
    latency_sigma: float = 0.4
    slow_share: float = 0.0
    slow_factor: float = 1.0
    failure_rate: float = 0.0
    rate_limit_share: float = 0.25
    first_share: float = 0.3  # of the latency passes before the first streamed token

    def __post_init__(self) -> None:
        for name in ("slow_share", "failure_rate", "rate_limit_share", "first_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share: from 0 to 1, found {getattr(self, name)}")
        for name in ("latency_ms", "latency_sigma", "slow_factor"):
            if not 0.0 <= getattr(self, name) <= LATENCY_MS_MAX:
                raise ValueError(f"{name} is from 0 to {LATENCY_MS_MAX:.0f}, found {getattr(self, name)}")


FIELDS = tuple(field.name for field in dataclasses.fields(Behaviour))


@dataclass(frozen=True, slots=True)
class Fate:
    """What one call meets. `status` 200, 429 or 500; `mark` 40 hexadecimal digits that its ids are made of."""

    status: int
    latency_s: float
    slow: bool
    mark: str


def changed(behaviour: Behaviour, fields: Mapping[str, object]) -> Behaviour:
    """`behaviour` with `fields` (name -> number) replaced.

    Raises:
        ValueError: an unknown field or a value that is no number or out of range.
    """
    numbers = {}
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"unknown setting {name!r}: one of {', '.join(FIELDS)}")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"{name} is a number, found {value!r}")
        numbers[name] = float(value)
    return dataclasses.replace(behaviour, **numbers)


def parse_model(text: str, base: Behaviour) -> tuple[str, Behaviour]:
    """`NAME` or `NAME:failure_rate=0.01,latency_ms=60`, over the defaults in `base`."""
    name, _, settings = text.partition(":")
    pairs = (part.partition("=") for part in settings.split(",") if part)
    return name, changed(base, {key.strip(): value for key, _, value in pairs})


def draw(behaviour: Behaviour, seed: int, model: str, number: int, incident_failure_rate: float = 0.0) -> Fate:
    """The fate of call `number` (from 1) of `model`. An incident can only raise the failure rate.

    The four draws come from one hash, so a changed failure rate leaves every call's latency as it was.
    """
    digest = hashlib.blake2b(f"{seed}\0{model}\0{number}".encode(), digest_size=36).digest()
    fails, limited, slow, normal = (max(int.from_bytes(digest[i : i + 4], "big") / 2**32, _UNIFORM_MIN) for i in (0, 4, 8, 12))
    status = 200
    if fails < max(behaviour.failure_rate, incident_failure_rate):
        status = 429 if limited < behaviour.rate_limit_share else 500
    is_slow = slow < behaviour.slow_share
    latency_ms = behaviour.latency_ms * math.exp(behaviour.latency_sigma * _NORMAL.inv_cdf(normal))
    latency_ms *= behaviour.slow_factor if is_slow else 1.0
    return Fate(status, min(latency_ms, LATENCY_MS_MAX) / 1000.0, is_slow, digest[16:].hex())
