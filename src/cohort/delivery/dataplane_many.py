"""Several workers of one gateway, told the same and asked together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from cohort.base.errors import CohortError
from cohort.delivery.ports import Serving
from cohort.gateway.contract import GatewayState, RoutingTable
from cohort.gateway.contract_reliability import RouteTrouble
from cohort.gateway.contract_routing import RoutingState

T = TypeVar("T")


class ManyPlanes:
    """Pushes to each and says what is true of all: a table is in force when the last worker has it, a rollout is off when none serves it."""

    def __init__(self, planes: Sequence[Serving]) -> None:
        self._planes = planes

    def push(self, table: RoutingTable) -> GatewayState:
        return self._of_all(lambda plane: plane.push(table))

    def state(self) -> GatewayState:
        return self._of_all(lambda plane: plane.state())

    def _of_all(self, ask: Callable[[Serving], GatewayState]) -> GatewayState:
        """Every worker is asked, whatever the others say; then the first failure is raised."""
        states: list[GatewayState] = []
        failures: list[CohortError] = []
        for plane in self._planes:
            try:
                states.append(ask(plane))
            except CohortError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return merged(states)


def merged(states: Sequence[GatewayState]) -> GatewayState:
    """One state for several workers. A service is said to be served by a release only where all of them say so."""
    first, oldest = states[0], min(states, key=lambda state: state.table_version)
    last_us: dict[str, int] = {}
    for state in states:
        for rollout, at_us in state.last_candidate_us.items():
            last_us[rollout] = max(at_us, last_us.get(rollout, 0))
    return GatewayState(
        gateway=first.gateway,
        epoch=first.epoch,
        table_version=oldest.table_version,
        services={name: digest for name, digest in oldest.services.items() if all(s.services.get(name) == digest for s in states)},
        splits={name: rollout for state in states for name, rollout in state.splits.items()},
        last_candidate_us=last_us,
        in_flight=sum(state.in_flight for state in states),
        spool_bytes=sum(state.spool_bytes for state in states),
        troubles=tuple(trouble for state in states for trouble in state.troubles),
        routing=_routing(states),
    )


def _routing(states: Sequence[GatewayState]) -> dict[str, RoutingState]:
    """How all workers together choose, of the services for which each speaks of the same release."""
    first, found = states[0], {}
    for service, one in first.routing.items():
        of_all = [state.routing[service] for state in states if service in state.routing and state.routing[service].release == one.release]
        if len(of_all) == len(states):
            found[service] = _together(of_all)
    return found


def _together(parts: Sequence[RoutingState]) -> RoutingState:
    """Shares and boundary are means, each worker with the weight of its conversations; the drift is the furthest worker's."""
    buckets = {bucket for part in parts for bucket in part.shares}
    shares = {bucket: _mean([(part.shares.get(bucket), part.conversations) for part in parts]) for bucket in buckets}
    return replace(
        parts[0],
        boundary=_mean([(part.boundary, part.conversations) for part in parts]) or parts[0].boundary,
        drift=max(part.drift for part in parts),
        shares=shares,
        conversations=sum(part.conversations for part in parts),
        limited=any(part.limited for part in parts),
    )


def _mean(weighted: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in weighted if value is not None and weight]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None


def first_answer(planes: Sequence[Callable[[], T]]) -> Callable[[], T]:
    """Asks one worker after the other for what all of them know, until one answers; raises what the last one did."""

    def ask() -> T:
        for plane in planes[:-1]:
            try:
                return plane()
            except CohortError:
                continue
        return planes[-1]()

    return ask


def trouble_words(troubles: Sequence[RouteTrouble]) -> list[str]:
    """Circuits that are not closed, of all workers together, in words: which route, at how many workers, and how many calls failed in a row there."""
    open_ones = [trouble for trouble in troubles if trouble.state != "closed"]
    by_route: dict[tuple[str, str, str], list[RouteTrouble]] = {}
    for trouble in open_ones:
        by_route.setdefault((trouble.service, trouble.version, trouble.route), []).append(trouble)
    return [
        f"service {service}, release {version}, route {route}: circuit not closed at {len(found)} of the workers, "
        f"{sum(t.failures for t in found)} calls failed in a row"
        for (service, version, route), found in sorted(by_route.items())
    ]
