"""What is done to agents, in the audit log before it is done."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId
from cohort.kernel.model import Record, RecordKind
from cohort.kernel.ports import AuditLog

_log = logging.getLogger(__name__)


class Journal:
    """The audit log is another file than the database, so the two cannot change together. The record is first: a crash between leaves
    a record of something that was not done, never something done without a record."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def note(self, kind: RecordKind, body: Mapping[str, Any], agent: AgentId | None = None, session: AgentSessionId | None = None) -> int:
        """Record what is done; the record's place. Errors: AUDIT_UNAVAILABLE: nothing was written, and nothing must be done."""
        return self._audit.append(Record(kind, body, agent=agent, session=session)).index

    @contextmanager
    def change(
        self, kind: RecordKind, body: Mapping[str, Any], agent: AgentId | None = None, session: AgentSessionId | None = None
    ) -> Iterator[None]:
        """Record what is about to be done, then do it; a second record says when it failed. Errors: as `note`, and those of the change."""
        index = self.note(kind, body, agent, session)
        try:
            yield
        except CohortError as error:
            self._failed(kind, {"event": f"{body['event']}_failed", "of": index, "code": error.code}, agent, session)
            raise

    def _failed(self, kind: RecordKind, body: Mapping[str, Any], agent: AgentId | None, session: AgentSessionId | None) -> None:
        try:
            self.note(kind, body, agent, session)
        except CohortError as error:
            _log.warning("that record %s was not followed by its change could not be recorded: %s", body["of"], error)
