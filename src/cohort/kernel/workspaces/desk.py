"""People's side of workspaces: look at what an agent changed, keep it, throw it away, take it back."""

from __future__ import annotations

import builtins
import difflib
import logging
from collections.abc import Sequence

from cohort.base.errors import CohortError
from cohort.base.ids import SnapshotId
from cohort.kernel.face import WorkspaceView
from cohort.kernel.model import Change, Snapshot
from cohort.kernel.workspaces.collecting import Collected
from cohort.kernel.workspaces.manifests import Item, Manifest, difference, least_used
from cohort.kernel.workspaces.paths import canonical, neutral, shown
from cohort.kernel.workspaces.rows import Kept
from cohort.kernel.workspaces.snapshots import Snapshots
from cohort.kernel.workspaces.workspaces import SqlWorkspaces

TEXT_BYTES_MAX = 512 << 10
TEXT_LINES_MAX = 5000
"""Of each side of a text difference: finding the shortest one can take the product of both."""

_log = logging.getLogger(__name__)


class Desk:
    """The face `WorkspaceDesk`. Safe to use from many threads."""

    def __init__(self, workspaces: SqlWorkspaces, snapshots: Snapshots) -> None:
        self._workspaces = workspaces
        self._snapshots = snapshots

    def start(self) -> None:
        """Finish what a killed process was restoring. Call it after the workspaces' own `start`."""
        for kept in self._workspaces.listed():
            if kept.restoring is not None:
                try:
                    self._apply(kept, self._wanted(kept, kept.restoring))
                except CohortError as error:
                    _log.warning("the workspace %s is restored in part only: %s", kept.id, error)

    def collect(self) -> Collected | None:
        """Take away the content of snapshots that nobody can reach; None when one is being made, and it is to be asked again later."""
        return self._snapshots.collect()

    def list(self) -> Sequence[WorkspaceView]:
        """Without the number of changes, which takes reading every file; `show` has it."""
        return [self._view(kept, None) for kept in self._workspaces.listed()]

    def show(self, workspace: str) -> WorkspaceView:
        kept = self._workspaces.find(workspace)
        return self._view(kept, len(self._changes(kept)))

    def diff(self, workspace: str) -> Sequence[Change]:
        """Against the last commit, or against nothing. May be taken while something runs; then it is of some moment for each file."""
        return self._changes(self._workspaces.find(workspace))

    def text_diff(self, workspace: str, path: str) -> str:
        """Control sequences and bidi marks are written out.

        Raises:
            CohortError PATH_MISSING: it is neither there nor in the last commit.
            CohortError PATH_WRONG_KIND: it is not a text file in UTF-8.
            CohortError FILE_TOO_LARGE: more than `TEXT_BYTES_MAX` or `TEXT_LINES_MAX`.
        """
        kept, path = self._workspaces.find(workspace), canonical(path)
        place = self._workspaces.place(kept.id)
        before, now = self._base(kept).get(path), self._snapshots.scan(place).get(path)
        if before is None and now is None:
            raise CohortError("PATH_MISSING", f"{shown(path)} is neither there nor in the last commit", hint="Ask for what changed.")
        for item in (before, now):
            _check_comparable(path, item)
        old = _lines(path, b"".join(map(self._snapshots.content, before.parts)) if before else b"")
        new = _lines(path, self._snapshots.current(place, path) if now else b"")
        names = (f"a/{path}" if before else "/dev/null", f"b/{path}" if now else "/dev/null")
        return neutral("\n".join(difflib.unified_diff(old, new, *names, lineterm="")), keep="\n\t")

    def commit(self, workspace: str, actor: str, reason: str) -> Snapshot:
        """Accept what is there: later differences are to it. Errors: WORKSPACE_BUSY."""
        return self._keep(self._workspaces.find(workspace), "commit", actor, reason, as_base=True)

    def snapshot(self, workspace: str, actor: str, reason: str) -> Snapshot:
        """Keep what is there without accepting it. Errors: WORKSPACE_BUSY."""
        return self._keep(self._workspaces.find(workspace), "snapshot", actor, reason, as_base=False)

    def snapshots(self, workspace: str) -> Sequence[Snapshot]:
        return self._snapshots.listed(self._workspaces.find(workspace).id)

    def discard(self, workspace: str, actor: str, reason: str) -> Snapshot:
        """Go back to the last commit, or to an empty workspace. The answer is a snapshot of what was thrown away, to take it back.

        Errors: WORKSPACE_BUSY.
        """
        kept = self._workspaces.find(workspace)
        return self._go_back(kept, "discard", kept.base, actor, reason)

    def restore(self, workspace: str, snapshot: SnapshotId, actor: str, reason: str) -> Snapshot:
        """Go back to a snapshot; the answer is that snapshot. What was there is in a snapshot of its own, and the last commit stays.

        Errors: SNAPSHOT_UNKNOWN, WORKSPACE_BUSY, QUOTA_EXCEEDED.
        """
        kept = self._workspaces.find(workspace)
        wanted = self._snapshots.find(kept.id, snapshot)
        self._go_back(kept, "restore", snapshot, actor, reason)
        return wanted

    def remove(self, workspace: str, actor: str, reason: str) -> None:
        """Errors: WORKSPACE_BUSY."""
        self._workspaces.remove(self._workspaces.find(workspace).id, actor, reason)

    def _keep(self, kept: Kept, event: str, actor: str, reason: str, *, as_base: bool) -> Snapshot:
        with self._workspaces.alone(kept.id):
            return self._keep_alone(kept, event, actor, reason, as_base=as_base)

    def _keep_alone(self, kept: Kept, event: str, actor: str, reason: str, *, as_base: bool) -> Snapshot:
        with self._snapshots.under_way():
            prepared = self._snapshots.prepare(self._workspaces.place(kept.id), reason)
            found = prepared.snapshot
            facts = {"snapshot": found.id, "digest": found.digest, "files": found.files, "bytes": found.bytes}
            self._workspaces.record(kept, event, actor, reason, **facts)
            # Commit point. Before this line the snapshot exists for nobody; after it, for everybody.
            self._snapshots.keep(prepared, actor, as_base=as_base)
        return found

    def _go_back(self, kept: Kept, event: str, target: SnapshotId | None, actor: str, reason: str) -> Snapshot:
        with self._workspaces.alone(kept.id):
            wanted = self._wanted(kept, target or "")
            _check_fits(kept, wanted)
            saved = self._keep_alone(kept, "snapshot", actor, f"before {event}: {reason}" if reason else f"before {event}", as_base=False)
            self._workspaces.record(kept, event, actor, reason, snapshot=target, saved=saved.id)
            # Commit point. From here on the workspace goes back, if need be at the next start.
            self._workspaces.set_restoring(kept.id, target or "")
            self._apply(kept, wanted)
        return saved

    def _apply(self, kept: Kept, wanted: Manifest) -> None:
        self._snapshots.apply(self._workspaces.place(kept.id), wanted)
        self._workspaces.spent(kept.id, None)
        self._workspaces.set_restoring(kept.id, None)

    def _wanted(self, kept: Kept, target: str) -> Manifest:
        return self._snapshots.manifest(self._snapshots.find(kept.id, SnapshotId(target)) if target else None)

    def _base(self, kept: Kept) -> Manifest:
        return self._wanted(kept, kept.base or "")

    def _changes(self, kept: Kept) -> builtins.list[Change]:
        return difference(self._base(kept), self._snapshots.scan(self._workspaces.place(kept.id)))

    def _view(self, kept: Kept, changes: int | None) -> WorkspaceView:
        committed_us = self._snapshots.find(kept.id, kept.base).created_us if kept.base is not None else None
        place, usage = self._workspaces.place(kept.id), self._workspaces.usage(kept.id)
        return WorkspaceView(kept.id, kept.agent, place.root, kept.backend, usage, changes, committed_us, kept.created_us)


def _check_fits(kept: Kept, wanted: Manifest) -> None:
    least = least_used(wanted)
    if least.bytes > kept.size.bytes_max or least.files > kept.size.files_max:
        message = f"the snapshot takes {least.bytes} bytes and {least.files} files, more than the quota of {kept.id}"
        raise CohortError("QUOTA_EXCEEDED", message, hint="Make the quota larger first.")


def _check_comparable(path: str, item: Item | None) -> None:
    if item is not None and item.kind != "file":
        raise CohortError("PATH_WRONG_KIND", f"{shown(path)} is a {item.kind}", hint="Ask for what changed.", field="path")
    if item is not None and item.size > TEXT_BYTES_MAX:
        message = f"{shown(path)} has {item.size} bytes; a text difference is of at most {TEXT_BYTES_MAX}"
        raise CohortError("FILE_TOO_LARGE", message, hint="Read both versions and compare them yourself.", field="path")


def _lines(path: str, data: bytes) -> list[str]:
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise CohortError("PATH_WRONG_KIND", f"{shown(path)} is not text in UTF-8", hint="Ask for what changed.", field="path") from error
    if len(lines) > TEXT_LINES_MAX:
        message = f"{shown(path)} has {len(lines)} lines; a text difference is of at most {TEXT_LINES_MAX}"
        raise CohortError("FILE_TOO_LARGE", message, hint="Read both versions and compare them yourself.", field="path")
    return lines[:-1] if lines[-1] == "" else lines
