"""What the gateway says of its clients and their spending, to control and to who measures it."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from cohort.gateway.http_messages import Reply, Request
from cohort.gateway.spend.allowances import Allowances
from cohort.gateway.spend.book import BookBusy
from cohort.gateway.spend.callers import Caller, Guard

Reads = dict[str, tuple[str, Callable[[], float]]]


class SpendDoor:
    """`GET /-/spending`, and the figures for `/metrics`."""

    def __init__(self, guard: Guard, allowances: Allowances) -> None:
        self.guard = guard
        self._allowances = allowances

    def get_spending(self, _request: Request, reply: Reply) -> None:
        """Every budget that has a name, with what was spent and is held; millionths of a dollar."""
        try:
            reply.send(200, orjson.dumps({"items": self._allowances.report()}))
        except BookBusy as error:
            reply.send(503, orjson.dumps({"error": str(error)}), b"retry-after: 1\r\n")

    def pass_request(self, caller: Caller) -> None:
        """Count one request against the key's rate; raises Refused 429, 503."""
        self._allowances.pass_request(caller)

    @property
    def problems(self) -> list[str]:
        return [self._allowances.problem] if self._allowances.problem else []

    def gauges(self) -> Reads:
        return {
            "cohort_gateway_reservations": ("Calls of this worker that hold a reservation.", lambda: self._allowances.holds),
            "cohort_gateway_suspect_addresses": ("Addresses that gave a wrong key lately.", lambda: self.guard.lockout.addresses),
        }

    def counters(self) -> Reads:
        counts = self._allowances.counts
        return {
            "cohort_gateway_settled_usd_micro_total": ("Settled on budgets, millionths of a dollar.", lambda: counts.settled_usd_micro),
            "cohort_gateway_cost_estimated_total": ("Calls settled by an estimate.", lambda: counts.estimated),
            "cohort_gateway_orphaned_usd_micro_total": (
                "Given back for workers that died, millionths of a dollar.",
                lambda: self._allowances.orphaned_usd_micro,
            ),
        }
