"""What a command passes to the network: paid for from its agent's day while it passes, and recorded when the day's bytes end."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from cohort.base.errors import CohortError
from cohort.base.ids import ActionId, AgentId
from cohort.kernel.actions.executions import Executions
from cohort.kernel.actions.quotas import Quotas
from cohort.kernel.actions.records import egress_ended
from cohort.kernel.ports import AuditLog
from cohort.kernel.sandbox.egress import Reason, Verdict
from cohort.kernel.sandbox.spawner import unavailable
from cohort.kernel.sandbox.ways_out import Fund

REMEMBERED_MAX = 4096
"""Commands whose end of bytes was recorded: once for each, however often it tries again."""

_log = logging.getLogger(__name__)


class Egress:
    """Connects the egress proxy to the quotas, the journal and the audit log. Nothing passes before `pay_from`."""

    def __init__(self, executions: Executions, log: AuditLog) -> None:
        self._executions = executions
        self._log = log
        self._purses: tuple[Quotas, Callable[[str], str | None]] | None = None
        self._lock = threading.Lock()
        self._recorded: OrderedDict[str, None] = OrderedDict()

    def pay_from(self, quotas: Quotas, owner: Callable[[str], str | None]) -> None:
        """From now on: `owner` says whose a workspace is, None that it is nobody's."""
        self._purses = quotas, owner

    def fund(self, workspace: str, most_per_day: int) -> Fund:
        """What pays for one way out. Errors: SANDBOX_UNAVAILABLE (nobody pays), DATABASE_UNAVAILABLE."""
        quotas, owner = self._purses or (None, None)
        whose = owner(workspace) if owner is not None else None
        if quotas is None or whose is None:
            raise unavailable(f"{workspace} is nobody's, so nobody pays for its network", "Run it without network.")
        agent, day = AgentId(whose), 0

        def draw(wanted_bytes: int) -> int:
            nonlocal day
            taken, day = quotas.draw(agent, wanted_bytes, most_per_day)
            return taken

        return Fund(draw, lambda left_bytes: quotas.give_back(agent, left_bytes, day))

    def decided(self, label: str, verdict: Verdict) -> None:
        """Journal what is let through, before it is. Record, once for each command, that its bytes have ended.

        Errors: those of the journal; the connection is not dialled then.
        """
        if verdict.allowed and verdict.target is not None:
            self._executions.reached(label, verdict.target)
        if verdict.reason is Reason.BUDGET and self._first(label):
            try:
                self._log.append(egress_ended(ActionId(label), verdict.target or ""))
            except CohortError as error:
                _log.error("that the bytes of %s have ended could not be recorded: %s", label, error)

    def _first(self, label: str) -> bool:
        with self._lock:
            if label in self._recorded:
                return False
            self._recorded[label] = None
            if len(self._recorded) > REMEMBERED_MAX:
                self._recorded.popitem(last=False)
            return True
