"""The routing table in force: compiled once when it arrives, replaced whole, kept on disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from cohort.base.errors import CohortError, Retry
from cohort.gateway.compiled import GATEWAY, Snapshot, compile_table
from cohort.gateway.contract import (
    CONTRACT_VERSION,
    decode_table,
)
from cohort.gateway.dialects.repeated import repeated_name
from cohort.gateway.log import Log
from cohort.gateway.reliability.breakers import Breakers
from cohort.gateway.spend.callers import Callers
from cohort.gateway.spend.rules import Rules
from cohort.gateway.spool import sync_directory

RESERVE_BYTES = 1 << 20
Warm = Callable[[Sequence[str]], None]
"""Makes the keys that a table refers to ready, in a thread, before the table is in force."""


class Table:
    """Holds the snapshot in force. `take` is the only way to another one."""

    def __init__(
        self, directory: Path, epoch: int, log: Log, breakers: Breakers | None = None, gateway: str = GATEWAY, warm: Warm = lambda _: None
    ) -> None:
        self._path = directory / "routing.json"
        self._reserve = directory / "reserve"
        self._epoch = epoch
        self._log = log
        self._lock = asyncio.Lock()
        self.breakers = breakers or Breakers()
        self._gateway = gateway
        self._warm = warm
        self.snapshot: Snapshot | None = None

    def keys(self) -> tuple[Callers, bool] | None:
        """The clients' keys in force, and whether one is required; None without a table."""
        return self.snapshot.keys if self.snapshot is not None else None

    def rules(self) -> Rules | None:
        """What calls may spend; None where nothing is limited."""
        return self.snapshot.rules if self.snapshot is not None else None

    def kills(self, flag: str) -> bool:
        """Whether a kill switch is thrown; without a table every one is."""
        return self.snapshot is None or flag in self.snapshot.killed

    @property
    def version(self) -> int:
        return self.snapshot.table.version if self.snapshot else 0

    def load(self) -> None:
        """Serve from the table of an earlier process. One that cannot be read is set aside, and there is none until control pushes."""
        self._keep_reserve()
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            self.snapshot = self._compiled(data)
            self.breakers.keep(self.snapshot.breakers)
            self._warm(self.snapshot.references)
            self._log.write("table_loaded", version=self.version)
        except (ValueError, TypeError, AttributeError) as error:
            aside = self._path.with_name(f"routing.json.damaged-{self._epoch}")
            self._path.rename(aside)
            self._log.write("table_damaged", reason=str(error), kept_as=aside.name)

    async def take(self, data: bytes) -> bool:
        """Put the table in `data` in force; False when it is no newer than the present one.

        Raises:
            CohortError DOCUMENT_INVALID, CONTRACT_VERSION: not a table of this version. DISK_FULL: could not be kept.
                The old one stays in force.
        """
        snapshot = self._parse(data)
        async with self._lock:
            if snapshot.table.version <= self.version:
                return False
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._persist, data, snapshot.references)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise CohortError(
                    "DISK_FULL",
                    f"the routing table could not be kept: {reason}",
                    retry=Retry.SAFE,
                    hint="Free space for the gateway's data directory.",
                ) from error
            # Commit point. The table is on disk; from here on every new request uses it.
            self.snapshot = snapshot
            self.breakers.keep(snapshot.breakers)
        self._log.write("table_in_force", version=self.version, services=len(snapshot.services), splits=len(snapshot.splits))
        return True

    def _compiled(self, data: bytes) -> Snapshot:
        table = decode_table(data)
        twice = repeated_name(data)
        if twice is not None:
            raise ValueError(f"{twice!r} stands twice in one object of the table")
        return compile_table(table, self.breakers, self._gateway)

    def _parse(self, data: bytes) -> Snapshot:
        try:
            return self._compiled(data)
        except (ValueError, TypeError, AttributeError) as error:
            code = "CONTRACT_VERSION" if _other_contract(data) else "DOCUMENT_INVALID"
            raise CohortError(
                code, f"routing table refused: {error}", hint="Push a table of this version; the old one is still in force."
            ) from error

    def _persist(self, data: bytes, references: Sequence[str]) -> None:
        self._warm(references)
        try:
            self._write(data)
        except OSError:
            self._reserve.unlink(missing_ok=True)  # a full disk must not stand in the way of a rollback
            self._write(data)
        self._keep_reserve()

    def _write(self, data: bytes) -> None:
        fresh = self._path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # it holds the salts of rollouts
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync_directory(self._path.parent)

    def _keep_reserve(self) -> None:
        if self._reserve.exists():
            return
        try:
            with open(os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(bytes(RESERVE_BYTES))
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            self._log.seldom("reserve_not_kept", reason=os.strerror(error.errno or 0))


def _other_contract(data: bytes) -> bool:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and isinstance(body.get("contract"), int) and body["contract"] != CONTRACT_VERSION
