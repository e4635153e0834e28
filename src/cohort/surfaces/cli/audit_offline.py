"""Verifying the audit log: by control, or from the log's own files when control does not run."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import Any

from cohort.base.errors import CohortError
from cohort.surfaces.cli.api import Api
from cohort.surfaces.cli.progress import polled, quiet, shown
from cohort.surfaces.cli.session import Session

VERIFY_S = 600.0
WHAT = "verifying"


def verified(session: Session, full: bool, offline: bool) -> dict[str, Any]:
    """What was found. Another installation than the one here is only ever asked, never opened."""
    if offline:
        return _from_files(session, full)
    try:
        return _by_control(session, full)
    except CohortError as error:
        if error.code != "NOT_RUNNING" or session.url or session.environment.get("COHORT_URL"):
            raise
    session.say("nothing runs here; verifying the log's own files")
    return _from_files(session, full)


def _by_control(session: Session, full: bool) -> dict[str, Any]:
    asking = Api(session)

    def done() -> tuple[int, int] | None:
        found = asking.get("/audit/verify")
        return (found["done"], found["size"]) if found["running"] else None

    with shown(session, WHAT) as show, polled(done, show) if show is not quiet else nullcontext():
        found: dict[str, Any] = Api(session).post("/audit/verify", {"full": full}, answer_s=VERIFY_S)
    return found


def _from_files(session: Session, full: bool) -> dict[str, Any]:
    from cohort.compose.offline import audit_offline

    with audit_offline(session.settings(), session.environment) as log, shown(session, WHAT) as show:
        return dataclasses.asdict(log.verify(full=full, progress=show))
