"""The bodies of requests and the shapes of lists, as the API documents them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cohort.delivery.model import Plan, Release, RolloutRow, ServiceView
from cohort.surfaces.http.ports import REASON_CHARS_MAX

PLAN_CHARS_MAX = 256 << 10
NAME_CHARS_MAX = 200
FILES_MAX = 256

Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
Reason = Annotated[str, Field(max_length=REASON_CHARS_MAX)]
PlanText = Annotated[
    str, Field(min_length=1, max_length=PLAN_CHARS_MAX, description="A preset's name, or a plan document's text (YAML or JSON).")
]
Speed = Annotated[
    float, Field(gt=0, le=1_000_000, allow_inf_nan=False, description="Rehearsal speed: floors are divided by it; evidence is not.")
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseBody(Body):
    source: Name = Field(description="The manifest's file name, for errors.")
    manifest: str = Field(description="The manifest as written, YAML or JSON.")
    files: dict[str, str] = Field(default_factory=dict, max_length=FILES_MAX, description="The text of every file the manifest names.")


class PlanBody(Body):
    service: Name
    plan: PlanText
    speed: Speed = 1.0
    units_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    failure_rate: float | None = Field(default=None, ge=0, lt=1)


class StartBody(Body):
    service: Name
    to: Name = Field(description="The candidate: a version, a tag or a digest.")
    plan: PlanText
    speed: Speed = 1.0
    at_pct: float | None = Field(default=None, ge=0, le=100, description="Start at the first stage with at least this percentage.")
    strict: bool = Field(default=False, description="Refuse where the forecast warns.")
    reason: Reason = ""


class VerbBody(Body):
    reason: Reason = ""
    revision: int | None = Field(default=None, ge=0, description="Refuse when the rollout is no longer at this revision.")


class RollbackBody(Body):
    to: Name | None = Field(default=None, description="A version, tag or digest; left out: the previous stable release.")
    reason: str = Field(min_length=1, max_length=REASON_CHARS_MAX)


@dataclass(frozen=True, slots=True)
class Services:
    items: tuple[ServiceView, ...]


@dataclass(frozen=True, slots=True)
class Releases:
    items: tuple[Release, ...]


@dataclass(frozen=True, slots=True)
class Plans:
    items: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """`next` is the cursor of the page behind this one, or null."""

    items: tuple[RolloutRow, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """RFC 9457, with Cohort's code, whether to retry (never, safe, check_first) and the next step."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry: str
    hint: str | None = None
    field: str | None = None
