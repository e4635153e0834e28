"""Commands on a real terminal: ruled tables, a live picture, and a question before what is dangerous."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.delivery.face import Act
from cohort.surfaces.cli.progress import line
from support_delivery import House, house
from support_server import serving
from support_terminal import Terminal

RUNNING = "ro_k3v9q2m7x4c8b5nt"


@pytest.fixture
def home() -> House:
    return house()


@pytest.fixture
def url(home: House) -> Iterator[str]:
    with serving(home.control) as address:
        yield address


def test_a_table_is_ruled(url: str, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "service", "list")
    terminal.until("support")
    assert terminal.close() == 0
    assert "──" in terminal.shown


def test_a_promotion_is_asked_about_and_no_changes_nothing(url: str, home: House, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "rollout", "promote", RUNNING, "--reason", "late")
    terminal.until("Go on? [y/N]")
    terminal.type("n\n")
    terminal.until("nothing was changed")
    assert terminal.close() == 3
    assert home.rollouts.acts == []


def test_a_yes_is_for_the_revision_that_was_seen(url: str, home: House, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "rollout", "abort", RUNNING)
    terminal.until("Go on? [y/N]")
    home.rollouts.pause(RUNNING, Act("somebody", "else"))
    terminal.type("y\n")
    terminal.until("error: ")
    assert terminal.close() == 1
    assert [verb for verb, _, _ in home.rollouts.acts] == ["pause"]


def test_watching_draws_the_ladder_and_ends_quietly_with_ctrl_c(url: str, tmp_path: Path) -> None:
    terminal = Terminal(url, tmp_path, "rollout", "watch", RUNNING)
    terminal.until("towards harmful")
    terminal.until("█")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.close() == 130
    assert "Traceback" not in terminal.shown


def test_a_long_verification_shows_how_far_it_is_and_then_only_what_was_found(url: str, home: House, tmp_path: Path) -> None:
    home.kernel.audit.held, home.kernel.audit.under_way = threading.Event(), (410_000, 1_000_000)
    terminal = Terminal(url, tmp_path, "audit", "verify")
    terminal.until("verifying: 41 % of 1,000,000 records")
    home.kernel.audit.held.set()
    terminal.until("integrity")
    terminal.close()


def test_ctrl_c_ends_a_verification_quietly(url: str, home: House, tmp_path: Path) -> None:
    home.kernel.audit.held, home.kernel.audit.under_way = threading.Event(), (1, 10)
    terminal = Terminal(url, tmp_path, "audit", "verify")
    terminal.until("verifying: 10 % of 10 records")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.close() == 130
    home.kernel.audit.held.set()
    assert "Traceback" not in terminal.shown


def test_for_a_program_nothing_is_shown_but_the_answer(url: str, home: House, tmp_path: Path) -> None:
    home.kernel.audit.under_way = (1, 10)
    terminal = Terminal(url, tmp_path, "audit", "verify", "--json")
    terminal.close()
    assert json.loads(terminal.shown)["integrity"] in ("no data", "verified")


@pytest.mark.parametrize(
    ("done", "spent_s", "words"),
    [
        (0, 5.0, "verifying: 0 % of 200 records"),
        (50, 5.0, "verifying: 25 % of 200 records, 15 s to go"),
        (200, 9.0, "verifying: 100 % of 200 records, 0 s to go"),
    ],
)
def test_the_line_says_how_much_is_left(done: int, spent_s: float, words: str) -> None:
    assert line("verifying", done, 200, spent_s) == words
