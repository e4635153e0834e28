"""The plans' smoke test, as it was written, and what its words mean."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.kernel import AuditTrail, Identity, Workspace


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, so that nothing is there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COHORT_DATA_DIR", raising=False)
    return tmp_path


def test_the_smoke_test_of_the_plans_passes_as_it_was_written() -> None:
    async def smoke() -> None:
        workspace = Workspace("smoke-1")
        assert workspace.root.exists()
        identity = Identity("smoke-1")
        await identity.request_scope("files.read")
        token = await identity.generate_token(["files.read"])
        assert token.is_valid()
        audit = AuditTrail("smoke-1")
        await audit.log_action("smoke_test", risk_level="low")
        assert audit.verify_integrity()

    asyncio.run(smoke())


def test_an_empty_trail_is_no_data_and_not_verified() -> None:
    found = AuditTrail("smoke-1").verify_integrity()
    assert (found.answer, bool(found)) == ("no data", False)


def test_an_edited_trail_is_broken(here: Path) -> None:
    trail = AuditTrail("smoke-1")
    position = asyncio.run(trail.log_action("smoke_test"))
    database = sqlite3.connect(here / ".cohort" / "standalone" / "audit.db")
    database.execute("UPDATE audit_entries SET entry = replace(entry, 'smoke_test', 'other_test') WHERE idx = ?", (position.index,))
    database.commit()
    database.close()
    found = trail.verify_integrity()
    assert (found.answer, bool(found), found.verification.first_bad) == ("broken", False, position.index)


def test_a_scope_of_high_risk_is_not_given_for_the_asking() -> None:
    identity = Identity("smoke-1")
    assert asyncio.run(identity.request_scope("system.execute")) is False
    with pytest.raises(CohortError) as caught:
        asyncio.run(identity.generate_token(["system.execute"]))
    assert caught.value.code == "SCOPE_REFUSED"


def test_the_workspace_keeps_its_files_within_its_root() -> None:
    workspace = Workspace("smoke-1")
    workspace.write("notes.txt", b"kept")
    assert workspace.read("notes.txt") == b"kept"
    assert (workspace.root / "notes.txt").read_bytes() == b"kept"
    with pytest.raises(CohortError) as caught:
        workspace.write("../outside.txt", b"lost")
    assert caught.value.code == "PATH_ESCAPES"


def test_a_risk_level_that_is_none_names_the_field() -> None:
    with pytest.raises(CohortError) as caught:
        asyncio.run(AuditTrail("smoke-1").log_action("smoke_test", risk_level="scary"))
    assert (caught.value.code, caught.value.field) == ("FIELD_INVALID", "risk_level")
