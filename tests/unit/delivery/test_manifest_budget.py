"""The daily budget of a release, on its way to the gateway."""

from __future__ import annotations

import pytest

from cohort.delivery.face import Bundle
from cohort.delivery.manifests import freeze, release_routes
from cohort.gateway.contract import RoutingTable, decode_table, encode

MANIFEST = """service: support
version: "8"
kind: model
routes:
  big: {provider: openai, base_url: "https://models.example.com/v1", model: big}
"""


class Frozen:
    """Enough of a stored release for what the gateway gets of it."""

    def __init__(self, limits: str) -> None:
        manifest = freeze(Bundle("r.yaml", MANIFEST + f"limits: {{{limits}}}\n", {}))
        self.digest, self.version, self.prompt = manifest.digest, manifest.version, None
        self.manifest = {**manifest.body, "routes": {entry["name"]: entry for entry in manifest.body["routes"]}}


@pytest.mark.parametrize(
    ("limits", "micro"), [("budget_usd_per_day: 2.5", 2_500_000), ("budget_usd_per_day: 0", 0), ("timeout_s: 9", None)]
)
def test_the_budget_of_a_release_reaches_the_gateway(limits: str, micro: int | None) -> None:
    route = release_routes(Frozen(limits))  # type: ignore[arg-type]
    read = decode_table(encode(RoutingTable(1, 0, {}, {route.digest: route}))).releases[route.digest]
    assert read.budget_usd_micro_per_day == micro
