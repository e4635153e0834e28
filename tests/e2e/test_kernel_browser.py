"""The pages about agents in a real browser: a live inbox that leaves alone what somebody writes, and proofs checked in the page."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_dashboard_browser import Visit, browser, visit

from cohort.base.clock import SystemClock
from cohort.kernel.audit.room import AuditRoom, open_audit
from cohort.kernel.face import Sign
from cohort.kernel.model import ApprovalState
from cohort.storage.database import open_database
from support_audit import fill
from support_delivery import House, house
from support_kernel import asked

__all__ = ["browser"]
FIRST, SECOND = "ap_0000000000000001", "ap_0000000000000002"


@contextmanager
def logged(folder: Path) -> Iterator[tuple[House, AuditRoom, Path]]:
    """A house whose audit log is the real one, on a file."""
    file = folder / "audit.db"
    database = open_database(f"sqlite:///{file}")
    database.migrate()
    room = open_audit(database, SystemClock(), secrets.token_bytes, key_file=folder / "audit.key", origin="test.example/audit")
    made = house()
    face = replace(made.kernel.face, audit=room.desk)
    made.control = replace(made.control, kernel=face)
    try:
        yield made, room, file
    finally:
        room.stop()
        database.close()


def decided(there: Visit, approval: str) -> Sign:
    """The answer, once the page has come back from giving it."""
    there.wait_for_text(".notice", "in the workspace of scribe")
    assert there.home.kernel.approvals.find(approval).state is not ApprovalState.PENDING  # type: ignore[arg-type]
    return there.home.kernel.approvals.signs[-1]


def test_a_question_comes_in_while_another_is_being_answered(browser: Any) -> None:
    with visit(browser) as there:
        asked(there.home.kernel)
        there.open("/approvals")
        there.wait_for_text("#link", "Live")
        there.page.fill(f"#note-{FIRST}", "half a sen")
        there.page.evaluate(f"document.getElementById('note-{FIRST}').focus()")
        asked(there.home.kernel, path="second.csv")
        there.wait_for_text("#inbox", "second.csv")
        assert there.page.input_value(f"#note-{FIRST}") == "half a sen"
        assert there.page.evaluate("document.activeElement.id") == f"note-{FIRST}"
        there.wait_for_text("h1", "2 questions wait for a person")
        assert there.text("#badge").strip().startswith("2")
        there.home.kernel.approvals.deny(SECOND, Sign("ana"))  # type: ignore[arg-type]
        there.wait_for_text("#decided", "second.csv")
        assert there.page.query_selector(f'[data-key="{SECOND}"]') is None
        assert there.page.input_value(f"#note-{FIRST}") == "half a sen"
        assert there.complaints == []


def test_an_answer_says_how_long_the_question_was_looked_at(browser: Any) -> None:
    with visit(browser) as there:
        asked(there.home.kernel)
        there.open("/approvals")
        there.page.wait_for_function("() => performance.now() > 400")
        there.page.fill(f"#note-{FIRST}", "seen")
        there.page.click(f"#approve-{FIRST}")
        sign = decided(there, FIRST)
        assert (sign.approver, sign.note) == ("first-key", "seen")
        assert sign.looked_ms is not None
        assert 0 < sign.looked_ms < 60_000


def test_enter_in_a_field_answers_nothing_and_without_scripts_the_buttons_work(browser: Any) -> None:
    with visit(browser, java_script_enabled=False) as there:
        asked(there.home.kernel)
        there.open("/approvals")
        there.page.press(f"#note-{FIRST}", "Enter")
        assert there.home.kernel.approvals.find(FIRST).state is ApprovalState.PENDING  # type: ignore[arg-type]
        there.page.click(f"#deny-{FIRST}")
        assert "Denied" in there.text(".notice")
        assert there.home.kernel.approvals.signs[-1].looked_ms is None


def test_entries_are_proven_in_the_page_and_a_changed_one_is_not(browser: Any, tmp_path: Path) -> None:
    with logged(tmp_path) as (home, room, file):
        fill(room, 30)
        with visit(browser, home) as there:
            there.open("/audit?text=nothing-is-like-this")
            there.wait_for_text("#entries", "No entry fits")
            assert not there.page.is_visible("#prove-all")
            there.open("/audit")
            there.wait_for_text(".verification", "All 30 entries hash to the signed root")
            there.page.click("#prove-all")
            there.wait_for_text("#prove-said", "30 of 30 proven")
            there.page.click('.entry[data-index="7"] summary')
            steps = there.text('.entry[data-index="7"] .steps')
            assert "hash to the leaf" in steps
            assert "The root is signed by test.example/audit" in steps
            assert there.complaints == []
            edit(file)
            there.open("/audit/7")
            there.page.click(".prove")
            there.wait_for_text(".steps", "does not lead to the signed root")
            there.wait_for_text(".seen", "Not proven")
            there.open("/audit")
            there.page.click(".verification button")
            there.wait_for_text(".verification", "The log is broken at entry 7")
            there.wait_for_text(".verification", "Look at entry 7")


def edit(file: Path) -> None:
    """Entry 7 and its leaf, changed behind the product's back so that they fit each other."""
    import hashlib
    import sqlite3

    with sqlite3.connect(file) as connection:
        (entry,) = connection.execute("SELECT entry FROM audit_entries WHERE idx = 7").fetchone()
        forged = entry.replace(b"number 7", b"number 8")
        assert forged != entry
        leaf = hashlib.sha256(b"\x00" + forged).digest()
        connection.execute("UPDATE audit_entries SET entry = ?, leaf = ? WHERE idx = 7", (forged, leaf))
    connection.close()


@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen(browser: Any, size: tuple[int, int]) -> None:
    with visit(browser, viewport={"width": size[0], "height": size[1]}) as there:
        asked(there.home.kernel, path="a-very-long-name-" * 12)
        for path in ("/agents", "/agents/scribe", "/approvals", "/audit", "/audit/1", "/containment", "/agents/scribe/revoke"):
            there.open(path)
            assert there.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert there.complaints == []
