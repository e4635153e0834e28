"""The routing table that follows from what is stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cohort.delivery.model import CacheUse, Rollout
from cohort.gateway.contract import ReleaseRoute, RoutingTable, ServiceRoute, Split
from cohort.gateway.contract_spend import Budget, ClientKey


@dataclass(frozen=True, slots=True)
class Spending:
    """Who may call and what they may spend, as the gateway is told."""

    keys: tuple[ClientKey, ...] = ()
    keys_required: bool = False
    budgets: tuple[Budget, ...] = ()


def build_table(
    version: int,
    issued_us: int,
    stable: Mapping[str, str],
    active: Sequence[Rollout],
    routes: Mapping[str, ReleaseRoute],
    killed: Sequence[str] = (),
    spending: Spending = Spending(),
    strong_shares: Mapping[tuple[str, str], float] | None = None,
) -> RoutingTable:
    """`stable`: service -> digest. `active`: rollouts not ended. `routes`: every release that those name. `strong_shares`: by service
    and release. A service whose release has no
    route (kind `http`) is left out: the gateway does not serve it."""
    splits = {rollout.service: _split(rollout) for rollout in active if rollout.candidate in routes}
    shares = strong_shares or {}
    services = {
        name: ServiceRoute(name, digest, splits.get(name), shares.get((name, digest)))
        for name, digest in stable.items()
        if digest in routes
    }
    used = {service.stable for service in services.values()} | {split.candidate for split in splits.values()}
    releases = {digest: routes[digest] for digest in sorted(used)}
    return RoutingTable(
        version,
        issued_us,
        services,
        releases,
        killed=tuple(killed),
        keys=spending.keys,
        keys_required=spending.keys_required,
        budgets=spending.budgets,
    )


def without(table: RoutingTable, service: str, stable: str | None, version: int, issued_us: int) -> RoutingTable:
    """The same table with `service` off its rollout (and on `stable`, if given): the rollback that needs no database."""
    old = table.services[service]
    services = {**table.services, service: ServiceRoute(service, stable or old.stable, strong_share=None if stable else old.strong_share)}
    return replace(table, version=version, issued_us=issued_us, services=services)


def _split(rollout: Rollout) -> Split:
    stage = rollout.present
    bypass = rollout.plan.caches is CacheUse.BYPASS and 0 < stage.traffic_pct < 100
    shares = (stage.traffic_pct / 100, stage.shadow_pct / 100)
    return Split(rollout.id, rollout.salt, rollout.stage_run, rollout.candidate, *shares, bypass)
