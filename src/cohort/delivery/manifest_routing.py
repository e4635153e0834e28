"""The section `routing` of a release manifest: what of it can only be judged together, and what the gateway gets of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cohort.base.documents import Document
from cohort.base.errors import CohortError
from cohort.delivery.manifest_fields import RoutingEntry
from cohort.gateway.contract_routing import RoutingPolicy

SHARE_ROOM = 0.05
"""How far from `strong_share` the wanted share may go where the manifest does not say."""


def check_routing(document: Document, entry: RoutingEntry, routes: Collection[str]) -> None:
    """Raises CohortError DOCUMENT_INVALID that names the field and the fix."""
    for field, name in (("strong", entry.strong), ("weak", entry.weak)):
        if name not in routes:
            raise _wrong(document, field, f"there is no route {name!r}", f"Use one of the routes: {', '.join(routes)}.")
    if entry.strong == entry.weak:
        raise _wrong(document, "weak", "is the same route as `strong`", "Name two routes, or remove `routing`.")
    if entry.override is not None and entry.override not in (entry.strong, entry.weak):
        raise _wrong(document, "override", "is neither `strong` nor `weak`", f"Use {entry.strong}, {entry.weak}, or remove it.")
    low, high = share_range(entry.model_dump())
    if not low <= entry.strong_share <= high:
        what = f"{entry.strong_share:g} is not between strong_share_min {low:g} and strong_share_max {high:g}"
        raise _wrong(document, "strong_share", what, "Correct one of the three.")


def share_range(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Between which shares the wanted one may move."""
    share = float(entry["strong_share"])
    low, high = entry.get("strong_share_min"), entry.get("strong_share_max")
    return (max(share - SHARE_ROOM, 0.0) if low is None else float(low), min(share + SHARE_ROOM, 1.0) if high is None else float(high))


def routing_policy(entry: Mapping[str, Any]) -> RoutingPolicy:
    """What the gateway needs of a frozen `routing` section."""
    return RoutingPolicy(
        strong=entry["strong"],
        weak=entry["weak"],
        strong_share=float(entry["strong_share"]),
        strong_share_range=share_range(entry),
        boundary=float(entry["boundary"]),
        drift_max=float(entry["drift_max"]),
        control_bucket_share=float(entry["control_bucket_pct"]) / 100.0,
        adapt=entry["adapt"],
        override=entry.get("override"),
        weights={name: float(weight) for name, weight in entry.get("weights", {}).items()},
    )


def _wrong(document: Document, field: str, what: str, hint: str) -> CohortError:
    place = document.place(("routing", field))
    return CohortError("DOCUMENT_INVALID", f"{place}: routing.{field}: {what}", field=f"routing.{field}", hint=hint)
