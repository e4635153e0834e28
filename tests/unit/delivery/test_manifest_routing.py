"""The section `routing` of a release manifest."""

from __future__ import annotations

import orjson
import pytest

from cohort.base.errors import CohortError
from cohort.delivery.face import Bundle
from cohort.delivery.manifests import freeze, release_routes
from cohort.gateway.contract import ReleaseRoute, RoutingTable, decode_table, encode
from cohort.gateway.contract_routing import RoutingPolicy

ROUTES = """service: support
version: "8"
kind: model
routes:
  big: {provider: openai, base_url: "https://models.example.com/v1", model: big}
  small: {provider: openai, base_url: "https://models.example.com/v1", model: small}
"""


class Frozen:
    """Enough of a stored release for what the gateway gets of it."""

    def __init__(self, routing: str) -> None:
        manifest = freeze(Bundle("r.yaml", ROUTES + f"routing: {{{routing}}}\n", {}))
        self.digest, self.version, self.prompt = manifest.digest, manifest.version, None
        self.manifest = {**manifest.body, "routes": {entry["name"]: entry for entry in manifest.body["routes"]}}


def gateway_route(routing: str) -> ReleaseRoute:
    """Through the table and back, as the gateway reads it."""
    route = release_routes(Frozen(routing))  # type: ignore[arg-type]
    table = RoutingTable(1, 0, {}, {route.digest: route})
    return decode_table(encode(table)).releases[route.digest]


def test_the_gateway_gets_the_policy_as_written() -> None:
    written = (
        "strong: big, weak: small, strong_share: 0.7, strong_share_min: 0.65, strong_share_max: 0.72, boundary: 0.4, drift_max: 0.05, "
        "control_bucket_pct: 20, adapt: false, override: small, weights: {code: 2, bias: -1}"
    )
    assert gateway_route(written).routing == RoutingPolicy(
        "big", "small", 0.7, (0.65, 0.72), 0.4, 0.05, 0.2, False, "small", {"code": 2.0, "bias": -1.0}
    )


def test_what_is_left_out_has_the_documented_default() -> None:
    policy = gateway_route("strong: big, weak: small").routing
    assert policy is not None
    low, high = policy.strong_share_range
    assert (low, high) == (pytest.approx(0.55), pytest.approx(0.65))
    assert policy == RoutingPolicy("big", "small", strong_share_range=(low, high))


@pytest.mark.parametrize(
    ("routing", "field", "hint"),
    [
        ("strong: huge, weak: small", "routing.strong", "big, small"),
        ("strong: big, weak: tiny", "routing.weak", "big, small"),
        ("strong: big, weak: big", "routing.weak", "Name two routes"),
        ("strong: big, weak: small, override: other", "routing.override", "Use big, small"),
        ("strong: big, weak: small, strong_share: 0.5, strong_share_min: 0.6", "routing.strong_share", "Correct one"),
        ("strong: big, weak: small, strong_share: 1.5", "routing.strong_share", ""),
        ("strong: big, weak: small, weights: {colour: 1}", "routing.weights", "length"),
        ("strong: big, weak: small, weights: {code: -1}", "routing.weights", "0 to leave"),
        ("strong: big", "routing.weak", ""),
        ("strong: big, weak: small, adapts: true", "routing.adapts", ""),
    ],
)
def test_a_wrong_field_is_named_with_its_fix(routing: str, field: str, hint: str) -> None:
    with pytest.raises(CohortError) as caught:
        Frozen(routing)
    assert caught.value.code == "DOCUMENT_INVALID"
    assert caught.value.field == field
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "change",
    [
        {"strong": "small"},
        {"override": "other"},
        {"boundary": 2},
        {"drift_max": "far"},
        {"weights": {"colour": 1}},
        {"strong_share_range": [0.1, 7]},
    ],
)
def test_a_table_with_a_wrong_policy_is_refused(change: dict[str, object]) -> None:
    route = release_routes(Frozen("strong: big, weak: small"))  # type: ignore[arg-type]
    body = orjson.loads(encode(RoutingTable(1, 0, {}, {route.digest: route})))
    body["releases"][route.digest]["routing"].update(change)
    with pytest.raises(ValueError, match="rout"):
        decode_table(orjson.dumps(body))
