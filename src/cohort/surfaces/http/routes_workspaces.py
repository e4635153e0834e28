"""Workspaces of agents, what this machine can contain, and the counts of safety."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import SnapshotId
from cohort.kernel.face import Containment, SafetyCounts, WorkspaceDesk, WorkspaceView
from cohort.kernel.model import Snapshot
from cohort.surfaces.http.bodies_kernel import (
    Changes,
    MaybeReason,
    RestoreBody,
    Snapshots,
    TextDiff,
    Workspaces,
    reason_of,
)
from cohort.surfaces.http.callers import Idempotency, Kernel, Reader, Registrar
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.paging import Cursor, Rows, paged
from cohort.surfaces.http.repeats import once

router = APIRouter()

PATH_CHARS_MAX = 4096
PathOf = Annotated[str, Query(min_length=1, max_length=PATH_CHARS_MAX, description="Relative to the workspace.")]


class WorkspaceVerb(StrEnum):
    COMMIT = "commit"
    DISCARD = "discard"
    SNAPSHOT = "snapshot"


def workspace_verb(desk: WorkspaceDesk, verb: WorkspaceVerb) -> Callable[[str, str, str], Snapshot]:
    return {WorkspaceVerb.COMMIT: desk.commit, WorkspaceVerb.DISCARD: desk.discard, WorkspaceVerb.SNAPSHOT: desk.snapshot}[verb]


@router.get("/workspaces", responses={200: {"model": Workspaces}}, summary="Workspaces and what they use")
def workspaces(kernel: Kernel, _: Reader, limit: Rows = 50, cursor: Cursor = None) -> Response:
    rows, following = paged(kernel.workspaces.list(), limit, cursor)
    return json_response(Workspaces(rows, following))


@router.get("/workspaces/{workspace}", responses={200: {"model": WorkspaceView}}, summary="One workspace, by its id or its agent's name")
def workspace(workspace: str, kernel: Kernel, _: Reader) -> Response:
    return json_response(kernel.workspaces.show(workspace))


@router.get("/workspaces/{workspace}/diff", responses={200: {"model": Changes}}, summary="What changed since the last commit")
def diff(workspace: str, kernel: Kernel, _: Reader) -> Response:
    return json_response(Changes(tuple(kernel.workspaces.diff(workspace))))


@router.get(
    "/workspaces/{workspace}/diff/text", responses={200: {"model": TextDiff}}, summary="How one text file changed, as a unified diff"
)
def text_diff(workspace: str, kernel: Kernel, _: Reader, path: PathOf) -> Response:
    return json_response(TextDiff(path, kernel.workspaces.text_diff(workspace, path)))


@router.get("/workspaces/{workspace}/snapshots", responses={200: {"model": Snapshots}}, summary="Snapshots, newest first")
def snapshots(workspace: str, kernel: Kernel, _: Reader) -> Response:
    return json_response(Snapshots(tuple(kernel.workspaces.snapshots(workspace))))


@router.post("/workspaces/{workspace}/restore", responses={200: {"model": Snapshot}}, summary="Put a workspace back as a snapshot holds it")
def restore(
    request: Request, workspace: str, body: Annotated[RestoreBody, Body()], kernel: Kernel, caller: Registrar, key: Idempotency = None
) -> Response:
    def change() -> Response:
        return json_response(kernel.workspaces.restore(workspace, SnapshotId(body.snapshot), caller.name, body.reason))

    return once(request, caller, key, body, change)


@router.post("/workspaces/{workspace}/remove", status_code=204, summary="Remove a workspace and everything in it, for good")
def remove(
    request: Request,
    workspace: str,
    kernel: Kernel,
    caller: Registrar,
    body: MaybeReason = None,
    key: Idempotency = None,
) -> Response:
    def change() -> Response:
        kernel.workspaces.remove(workspace, caller.name, reason_of(body))
        return Response(status_code=204)

    return once(request, caller, key, body, change)


@router.post("/workspaces/{workspace}/{verb}", responses={200: {"model": Snapshot}}, summary="Commit, discard or snapshot")
def turn(
    request: Request,
    workspace: str,
    verb: WorkspaceVerb,
    kernel: Kernel,
    caller: Registrar,
    body: MaybeReason = None,
    key: Idempotency = None,
) -> Response:
    """`discard` goes back to the last commit; what is lost by it is kept in the snapshot that is the answer."""
    return once(
        request, caller, key, body, lambda: json_response(workspace_verb(kernel.workspaces, verb)(workspace, caller.name, reason_of(body)))
    )


@router.get("/containment", responses={200: {"model": Containment}}, summary="What this machine can hold, as probed by attack")
def containment(kernel: Kernel, _: Reader) -> Response:
    found = kernel.containment()
    if found is None:
        raise CohortError("SANDBOX_UNAVAILABLE", "the sandbox has not been probed yet", retry=Retry.SAFE, hint="Ask again in a moment.")
    return json_response(found)


@router.get("/safety", responses={200: {"model": SafetyCounts}}, summary="Bypasses, violations and unauthorised actions, as counted")
def safety(kernel: Kernel, _: Reader) -> Response:
    """null is not compared yet, which is never healthy."""
    return json_response(kernel.safety())
