"""The workspaces of all agents: made, found, measured and removed, each change durable and in the audit log before it is answered.

A row goes `creating`, `ready`, `removing`, `removed`, and every step on disk is repeatable, so that `start` finishes what a killed
process began. Uids are given out once and never again.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import AgentId, Entropy, WorkspaceId
from cohort.kernel.model import Limits, Place, Record, RecordKind, Usage
from cohort.kernel.ports import AuditLog
from cohort.kernel.workspaces.backend import Backend, Size, Used, busy
from cohort.kernel.workspaces.beneath import Opener, in_our_words
from cohort.kernel.workspaces.copying import copy_tree
from cohort.kernel.workspaces.pool import Pool, new_name
from cohort.kernel.workspaces.rows import Kept, Rows
from cohort.storage.database import Database

LOCK_WAIT_S = 10.0
CREATING_MAX = 32

Busy = Callable[[WorkspaceId], bool]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """What this process knows of a workspace it has attached. `alone`: the thread that has it to itself."""

    kept: Kept
    place: Place
    lock: threading.Lock = field(default_factory=threading.Lock)
    alone: int | None = None


class SqlWorkspaces:
    """The port `Workspaces`, and the ledger of `Files`. Safe to use from many threads; one process per machine and directory.

    `private_uids`: whether each agent gets a uid of its own, which takes root. `busy`: whether anything runs in a workspace. `close`: ends what
    is kept ready for commands in a place that is about to vanish.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        audit: AuditLog,
        backend: Backend,
        *,
        busy: Busy = lambda _: False,
        close: Callable[[Place], None] = lambda _: None,
        pool: Pool | None = None,
        opener: Opener,
        private_uids: bool = False,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        self._rows = Rows(database, clock, entropy, private_uids=private_uids)
        self._audit = audit
        self._backend = backend
        self._busy = busy
        self._close = close
        self._pool = pool
        self._opener = opener
        self._private_uids = private_uids
        self._entropy = entropy
        self._held: dict[WorkspaceId, _Held] = {}
        self._attaching = threading.RLock()
        self._creating = tuple(threading.Lock() for _ in range(CREATING_MAX))  # one agent's requests at the same time take turns

    def start(self) -> None:
        """Finish or undo what a killed process began, then keep spares ready. Call it before anything else."""
        for kept in self._rows.listed(("creating", "removing")):
            try:
                self._finish(kept, "system") if kept.state == "creating" else self._finish_removal(kept)
            except CohortError as error:
                _log.warning("the workspace %s is still %s: %s", kept.id, kept.state, error)
        self._sweep()
        if self._pool is not None:
            self._pool.start()

    def stop(self) -> None:
        """Detach what nothing is open in, also what a killed process has left attached; the rest is found again at the next start."""
        if self._pool is not None:
            self._pool.stop()
        for directory in self._ours():
            try:
                self._backend.detach(directory)
            except CohortError as error:
                _log.warning("left mounted: %s", error)
        self._held.clear()

    def _ours(self) -> set[str]:
        """Directories that may be attached; those of this process at least."""
        found = {held.kept.directory for held in self._held.values()}
        try:
            return found | {kept.directory for kept in self.listed(("ready",)) if kept.backend == self._backend.name}
        except CohortError as error:
            _log.warning("what a killed process has left attached is not looked for: %s", error)
            return found

    def create(self, agent: AgentId, limits: Limits, actor: str = "system") -> WorkspaceId:
        """The agent's workspace, made if it has none; ready, with its quota verified. The agent's row has to exist.

        Raises:
            CohortError FIELD_INVALID: limits that no workspace can have.
            CohortError WORKSPACE_UNAVAILABLE, DISK_FULL, AUDIT_UNAVAILABLE: there is none; nothing is left of it.
        """
        size = Size.of(limits)
        with self._creating[hash(agent) % CREATING_MAX]:
            kept = self._rows.of_agent(agent)
            if kept is None:
                name = self._pool.take(size) if self._pool is not None else None
                kept = self._rows.begin(agent, size, name or new_name(self._entropy), self._backend.name)
            if kept.state == "creating":
                self._finish_or_undo(kept, actor)
        return kept.id

    def place(self, workspace: WorkspaceId) -> Place:
        """Waits while another thread has the workspace `alone`, so that no command starts meanwhile. Errors also: WORKSPACE_BUSY."""
        held = self._held.get(workspace)
        if held is not None and held.alone not in (None, threading.get_ident()):
            with self.changing(workspace):
                held = self._held.get(workspace)
        if held is not None:
            try:
                self._backend.check(held.kept.directory)
            except CohortError:
                _log.warning("the workspace %s has to be attached again", workspace)
            else:
                return held.place
        return self._attached(workspace).place

    def usage(self, workspace: WorkspaceId) -> Usage:
        self.place(workspace)
        kept = self._of(workspace).kept
        free = self._backend.free(kept.directory, kept.size)
        size = kept.size
        return Usage(size.bytes_max - free.bytes, size.files_max - free.files, size.bytes_max, size.files_max, self._backend.hard)

    def owner(self, workspace: WorkspaceId) -> AgentId:
        held = self._held.get(workspace)
        return held.kept.agent if held is not None else self.find(workspace).agent

    def root_of(self, workspace: WorkspaceId) -> str:
        """The agent's directory on the host."""
        return self.place(workspace).root

    def remove(self, workspace: WorkspaceId, actor: str, reason: str) -> None:
        """Delete the workspace for ever; its snapshots stay for `collecting.REMOVED_KEPT_US`.

        Raises:
            CohortError WORKSPACE_BUSY: something runs there; nothing is changed.
        """
        kept = self.find(workspace)
        with self.alone(workspace):
            self.record(kept, "removed", actor, reason)
            self._close(self.place(workspace))
            # Commit point: from here on it is gone for its readers, and a start finishes the rest.
            self._rows.set(workspace, state="removing")
            self._held.pop(workspace, None)
            self._finish_removal(kept)

    def resize(self, workspace: WorkspaceId, limits: Limits, actor: str) -> Usage:
        """Another quota. With a hard one everything is copied into a new image, so it takes as long as that.

        Raises:
            CohortError FIELD_INVALID: limits that no workspace can have.
            CohortError QUOTA_EXCEEDED: what is there does not fit; nothing is changed.
            CohortError WORKSPACE_BUSY: something runs there; nothing is changed.
        """
        size, kept = Size.of(limits), self.find(workspace)
        with self.alone(workspace):
            usage = self.usage(workspace)
            if usage.bytes_used > size.bytes_max or usage.files_used > size.files_max:
                message = f"{usage.bytes_used} bytes and {usage.files_used} files are used, more than the new quota"
                raise CohortError("QUOTA_EXCEEDED", message, hint="Delete what is not needed first.")
            if size != kept.size:
                self._change_size(kept, size, actor)
        return self.usage(workspace)

    @contextmanager
    def alone(self, workspace: WorkspaceId) -> Iterator[None]:
        """As `changing`, and nothing runs there. Errors: WORKSPACE_BUSY."""
        with self.changing(workspace):
            try:
                self._of(workspace).alone = threading.get_ident()
                if self._busy(workspace):
                    raise busy(workspace)
                yield
            finally:
                held = self._held.get(workspace)
                if held is not None:
                    held.alone = None

    @contextmanager
    def changing(self, workspace: WorkspaceId) -> Iterator[None]:
        """Alone among those of this process that change the workspace. Errors: WORKSPACE_BUSY after `LOCK_WAIT_S`."""
        lock = self._of(workspace).lock
        if not lock.acquire(timeout=LOCK_WAIT_S):
            message = f"the workspace {workspace} is being changed for more than {LOCK_WAIT_S:.0f} s"
            raise CohortError("WORKSPACE_BUSY", message, retry=Retry.SAFE, hint="Repeat it in a moment.")
        try:
            yield
        finally:
            lock.release()

    def room(self, workspace: WorkspaceId) -> Used:
        kept = self._of(workspace).kept
        return self._backend.room(kept.directory, kept.size)

    def spent(self, workspace: WorkspaceId, change: Used | None) -> None:
        self._backend.spent(self._of(workspace).kept.directory, change)

    def find(self, workspace: str) -> Kept:
        """By its id or its agent's name. Errors: WORKSPACE_UNKNOWN."""
        return self._rows.find(workspace)

    def listed(self, states: Sequence[str] = ("ready",)) -> Sequence[Kept]:
        """Oldest first."""
        return self._rows.listed(states)

    def set_restoring(self, workspace: WorkspaceId, target: str | None) -> None:
        """Note durably which snapshot is being put back; None: it is done."""
        self._rows.set(workspace, restoring=target)

    def record(self, kept: Kept, event: str, actor: str, reason: str, **more: Any) -> None:
        """Write what was, or is about to be, done into the audit log. Errors: AUDIT_UNAVAILABLE."""
        body = {"event": event, "workspace": kept.id, "actor": actor, "reason": reason, **more}
        self._audit.append(Record(RecordKind.WORKSPACE, body, agent=kept.agent))

    def _sweep(self) -> None:
        """Remove what nobody was given; what a row names is that row's, however far the process got that was killed."""
        rows = {kept.directory: kept for kept in self._rows.listed(("creating", "ready", "removing"))}
        for name in self._backend.spares():
            kept = rows.get(name)
            try:
                if kept is None:
                    self._backend.remove(name)
                elif kept.state == "ready":
                    self._backend.assign(name, kept.uid if self._private_uids else None)
            except CohortError as error:
                _log.warning("%s is left for the next start: %s", name, error)

    def _change_size(self, kept: Kept, size: Size, actor: str) -> None:
        before = {"bytes_max": kept.size.bytes_max, "files_max": kept.size.files_max}
        name = self._larger(kept, size) if self._backend.hard else kept.directory
        try:
            self.record(kept, "resized", actor, "", before=before, bytes_max=size.bytes_max, files_max=size.files_max)
        except CohortError:
            if name != kept.directory:
                self._backend.remove(name)
            raise
        if name != kept.directory:
            self._close(self.place(kept.id))
            self._backend.release(kept.directory)
        # Commit point. Before this line the old one is the workspace; after it, the new one; a start removes the other.
        self._rows.set(kept.id, directory=name, bytes_max=size.bytes_max, files_max=size.files_max)
        if name != kept.directory:
            self._backend.assign(name, kept.uid if self._private_uids else None)
            self._backend.remove(kept.directory)
        self._attached(kept.id)

    def _larger(self, kept: Kept, size: Size) -> str:
        """A copy with another quota, spare until a row names it."""
        name = new_name(self._entropy)
        self._backend.make(name, size)
        try:
            with in_our_words("the workspace"):
                copy_tree(self.place(kept.id).root, self._backend.attach(name, size), self._opener)
        except CohortError:
            self._backend.remove(name)
            raise
        return name

    def _finish_or_undo(self, kept: Kept, actor: str) -> None:
        try:
            self._finish(kept, actor)
        except CohortError as error:
            if error.retry is not Retry.CHECK_FIRST:
                self._rows.set(kept.id, state="removing")
                self._finish_removal(kept)
            raise

    def _finish(self, kept: Kept, actor: str) -> None:
        if not self._backend.made(kept.directory):
            self._backend.remove(kept.directory)
            self._backend.make(kept.directory, kept.size)
        self._backend.assign(kept.directory, kept.uid if self._private_uids else None)
        held = self._attach(kept)
        size = {"bytes_max": kept.size.bytes_max, "files_max": kept.size.files_max}
        self.record(kept, "created", actor, "", backend=kept.backend, uid=kept.uid, **size)
        # Commit point. Before this line the workspace exists for nobody; after it, for everybody.
        self._rows.set(kept.id, state="ready")
        self._held[kept.id] = held

    def _finish_removal(self, kept: Kept) -> None:
        self._backend.remove(kept.directory)
        self._rows.set(kept.id, state="removed")

    def _of(self, workspace: WorkspaceId) -> _Held:
        return self._held.get(workspace) or self._attached(workspace)

    def _attached(self, workspace: WorkspaceId) -> _Held:
        with self._attaching:
            kept = self.find(workspace)
            if kept.id != workspace:
                raise CohortError("WORKSPACE_UNKNOWN", f"{workspace[:80]!r} is no workspace's id", hint="Use the id, `ws_...`.")
            fresh = self._attach(kept)
            known = self._held.get(workspace)
            if known is not None:  # whoever holds the lock keeps it
                fresh.lock, fresh.alone = known.lock, known.alone
            self._held[workspace] = fresh
            return fresh

    def _attach(self, kept: Kept) -> _Held:
        if kept.backend != self._backend.name:
            message = f"the workspace {kept.id} was made as {kept.backend}; here is {self._backend.name}"
            raise CohortError("WORKSPACE_UNAVAILABLE", message, hint="Start control as the user that made it.")
        root = self._backend.attach(kept.directory, kept.size)
        uid, gid = (kept.uid, kept.uid) if self._private_uids else (os.geteuid(), os.getegid())
        return _Held(kept, Place(kept.id, root, uid, gid, self._backend.hard, self._backend.read_only))
