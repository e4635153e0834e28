"""The kill list: flags that people turned off everywhere, whatever a release says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import delete, func, select

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.delivery.model import FlagKill, Killed
from cohort.delivery.reconciler import Reconciler
from cohort.gateway.contract import GATEWAY_FLAGS, is_killed
from cohort.storage.database import Database
from cohort.storage.schema import flag_kills

KILLS_MAX = 1000
_FLAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class SqlFlags:
    """Thread-safe. `record`: writes into the audit log who turns a flag off or lets it be again, before it is done."""

    def __init__(
        self,
        database: Database,
        reconciler: Reconciler,
        clock: Clock,
        record: Callable[[Mapping[str, Any]], object],
        kills_max: int = KILLS_MAX,
    ) -> None:
        self._database = database
        self._reconciler = reconciler
        self._clock = clock
        self._record = record
        self._kills_max = kills_max

    def list(self) -> Sequence[FlagKill]:
        """The kill list, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(flag_kills).order_by(flag_kills.c.flag)).all()
        return [FlagKill(row.flag, row.reason, row.killed_by, row.killed_us) for row in rows]

    def kill(self, flag: str, prefix: bool, actor: str, reason: str) -> Killed:
        """Turn off `flag` (with `prefix`: every flag that begins so) everywhere, and tell the gateway at once.

        Killing again keeps the first reason. In the answer `confirmed` is False when the gateway could not be told yet; control goes on trying.

        Raises:
            CohortError FIELD_INVALID: not a flag, or the list is full. AUDIT_UNAVAILABLE, DATABASE_UNAVAILABLE: nothing was done.
        """
        entry = _entry(flag, prefix)
        self._record({"event": "flag_killed", "flag": entry, "reason": reason, "actor": actor})
        row = {"flag": entry, "reason": reason, "killed_by": actor, "killed_us": self._clock.now_us()}
        with self._database.write() as connection:
            if connection.execute(select(func.count()).select_from(flag_kills)).scalar_one() >= self._kills_max:
                what = f"the kill list holds {self._kills_max} entries already"
                raise CohortError("FIELD_INVALID", what, field="flag", hint="Restore some, or kill a prefix.")
            connection.execute(self._database.upsert(flag_kills).values(row).on_conflict_do_nothing(index_elements=["flag"]))
        return self._told()

    def restore(self, flag: str, prefix: bool, actor: str, reason: str) -> Killed:
        """Take an entry off the list: releases and stages decide about the flag again.

        Raises:
            CohortError NOT_FOUND: it is not on the list. AUDIT_UNAVAILABLE, DATABASE_UNAVAILABLE: nothing was done.
        """
        entry = _entry(flag, prefix)
        kills = {kill.flag for kill in self.list()}
        if entry not in kills:
            raise _not_killed(entry, _entry(flag, not prefix), kills)
        self._record({"event": "flag_restored", "flag": entry, "reason": reason, "actor": actor})
        with self._database.write() as connection:
            connection.execute(delete(flag_kills).where(flag_kills.c.flag == entry))
        return self._told()

    def _told(self) -> Killed:
        try:
            self._reconciler.reconcile()
        except CohortError as error:
            return Killed(tuple(self.list()), False, error.message)
        return Killed(tuple(self.list()), True)


def _not_killed(entry: str, other: str, kills: AbstractSet[str]) -> CohortError:
    """`other`: the same name as a prefix, or not as one."""
    hint = "See `cohort flag list`."
    if other in kills:
        form = "--prefix " if other.endswith("*") else ""
        hint = f"{other} is: `cohort flag restore {form}{other.removesuffix('*')}`."
    elif (wider := next((kill for kill in sorted(kills) if is_killed(entry.removesuffix("*"), (kill,))), None)) is not None:
        form = "--prefix " if wider.endswith("*") else ""
        hint = f"It is off by {wider}: `cohort flag restore {form}{wider.removesuffix('*')}`."
    return CohortError("NOT_FOUND", f"{entry} is not on the kill list", hint=hint)


def _entry(flag: str, prefix: bool) -> str:
    if not _FLAG.fullmatch(flag):
        hint = "Use 1 to 128 letters, digits, `.`, `_`, `:` or `-`, beginning with a letter or digit; for every flag that begins so, `--prefix`."
        raise CohortError("FIELD_INVALID", f"not the name of a flag: {flag[:60]!r}", field="flag", hint=hint)
    return f"{flag}*" if prefix else flag


def known_flags() -> Mapping[str, str]:
    """The flags that the gateway itself obeys, and what each turns off."""
    return GATEWAY_FLAGS
