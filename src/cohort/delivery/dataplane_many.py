"""Several workers of one gateway, told the same and asked together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cohort.base.errors import CohortError
from cohort.delivery.ports import Serving
from cohort.gateway.contract import GatewayState, RoutingTable


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
    )
