"""Idempotency keys: the same key of the same session asks for the same action once, and hears how that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update

from cohort.base.canonical import canonical_json
from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId, AgentSessionId
from cohort.kernel.model import Action
from cohort.storage.database import Database
from cohort.storage.schema import metadata

KEPT_US = 24 * 3_600_000_000
FORGOTTEN_AT_ONCE = 100
RESULT_BYTES_MAX = 65_536

action_keys = metadata.tables["action_keys"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A former action of this key. `result`: None when it began and its end is not known here."""

    action: ActionId
    result: Mapping[str, Any] | None


class Keys:
    """Safe to use from many threads; every method may raise the errors of `Database`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def find(self, session: AgentSessionId, key: str, digest: str) -> Kept | None:
        """The former action of this key.

        Raises:
            CohortError IDEMPOTENCY_MISMATCH: the key was used for another action.
        """
        with self._database.read() as connection:
            row = connection.execute(select(action_keys).where(*_at(session, key))).one_or_none()
        if row is None:
            return None
        if row.digest != digest:
            what = f"the idempotency key {key!r} was used for another action, {row.action}"
            raise CohortError("IDEMPOTENCY_MISMATCH", what, field="idempotency_key", hint="Use a new key for a new action.")
        return Kept(ActionId(row.action), row.result)

    def claim(self, action: Action, key: str, digest: str) -> Kept | None:
        """Take the key for `action`; None when it was free, else whose it is. Errors: as `find`."""
        now_us = self._clock.now_us()
        row = {"session": action.session, "idempotency_key": key, "action": action.id, "digest": digest, "created_us": now_us}
        with self._database.write() as connection:
            old = select(action_keys.c.session, action_keys.c.idempotency_key).where(action_keys.c.created_us < now_us - KEPT_US)
            for found in connection.execute(old.limit(FORGOTTEN_AT_ONCE)).all():
                connection.execute(delete(action_keys).where(*_at(found.session, found.idempotency_key)))
            taken = connection.execute(self._database.upsert(action_keys).values(row).on_conflict_do_nothing())
            if taken.rowcount == 1:
                return None
        return self.find(action.session, key, digest)

    def release(self, action: Action, key: str) -> None:
        """Give the key back: the action did not begin."""
        with self._database.write() as connection:
            connection.execute(delete(action_keys).where(*_at(action.session, key), action_keys.c.action == action.id))

    def finish(self, action: Action, key: str, result: Mapping[str, Any]) -> None:
        """Keep how it ended; a result that is too large is kept without its payload."""
        kept = dict(result)
        if len(canonical_json(kept)) > RESULT_BYTES_MAX:
            kept["result"] = {"omitted": "the result was too large to be kept; its digest is in the audit log"}
        with self._database.write() as connection:
            mine = update(action_keys).where(*_at(action.session, key), action_keys.c.action == action.id)
            connection.execute(mine.values(result=kept))


def _at(session: str, key: str) -> tuple[Any, Any]:
    return action_keys.c.session == session, action_keys.c.idempotency_key == key
