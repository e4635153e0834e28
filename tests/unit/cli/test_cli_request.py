"""`cohort request`: lists, follows and shows calls. Control is the real application over delivery in memory."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.delivery.clients import Terms
from cohort.gateway.contract import Call, Result
from cohort.gateway.contract_trace import Attempt
from support_command import Command
from support_delivery import VIEWER_KEY, House, house
from support_server import serving
from support_views import NOW_US

CALL = Call("call", "gw-1", 7, 1, NOW_US, "support", "rel_x", "ab" * 16, total_us=900_000, first_us=200_000, route="main", status=200)
TRIED = dataclasses.replace(
    CALL,
    seq=2,
    run="nightly-7",
    degraded=True,
    attempts=2,
    route="backup",
    held_usd_micro=900,
    cost_usd_micro=500,
    budgets=("all",),
    tries=(Attempt(1, "main", 0, 450_000, "status", 503), Attempt(2, "backup", 450_000, 450_000, "ok", 200)),
)


@pytest.fixture
def home() -> House:
    made = house()
    made.control.accounts.recent.take([CALL, TRIED])
    return made


@pytest.fixture
def url(home: House) -> Iterator[str]:
    with serving(home.control) as address:
        yield address


@pytest.fixture
def cohort(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, {"COHORT_URL": url, "COHORT_KEY": VIEWER_KEY}, capsys)


def test_calls_are_listed_and_filtered(cohort: Command) -> None:
    answer = cohort("request", "list")
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == ["gw-1/7/2", "gw-1/7/1"]
    for filters in (("--run", "nightly-7"), ("--degraded",), ("--route", "backup"), ("--result", "ok", "--run", "nightly-7")):
        assert [call["seq"] for call in json.loads(cohort("request", "list", "--json", *filters).out)["items"]] == [2], filters
    nothing = cohort("request", "list", "--failed")
    assert (nothing.code, nothing.out) == (3, "no call that fits\n")


def test_one_call_is_shown_step_by_step(cohort: Command) -> None:
    answer = cohort("request", "show", "gw-1/7/2")
    assert answer.code == 0
    for words in ("backup (degraded)", "run nightly-7", "$0.000900 held on all", "1. main", "status 503", "████"):
        assert words in answer.out, words
    rows = {line.split("  ")[0]: line for line in answer.out.splitlines()}
    assert rows["1. main"].index("█") < rows["2. backup"].index("█")
    assert cohort("request", "show", "gw-1/7/9").err.startswith("error: the call gw-1/7/9 is not among those kept")
    assert cohort("request", "show", "gw-1").code == 2


def test_the_newest_calls_come_oldest_first_and_then_those_that_follow(cohort: Command, url: str, home: House, tmp_path: Path) -> None:
    lines = cohort("request", "tail", "-n", "2").out.splitlines()
    assert [line.split()[-1] for line in lines] == ["gw-1/7/1", "gw-1/7/2"]
    command = [sys.executable, "-m", "cohort.surfaces.cli", "request", "tail", "-n", "1", "-f", "--json", "--degraded"]
    environment = {**os.environ, "COHORT_URL": url, "COHORT_KEY": VIEWER_KEY, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["seq"] == 2
        home.control.accounts.recent.take([dataclasses.replace(CALL, seq=3), dataclasses.replace(TRIED, seq=4, result=Result.TIMEOUT)])
        assert json.loads(following.stdout.readline())["seq"] == 4
        following.terminate()


def test_a_release_and_a_key_are_called_by_their_names(cohort: Command, home: House) -> None:
    release, made = home.registry.releases[0], home.control.clients.create("shop", Terms(), "anna").client
    held = dataclasses.replace(TRIED, seq=5, release=str(release.digest), key=made.id, budgets=(f"key:{made.id}", "team:web", "all"))
    home.control.accounts.recent.take([held])
    shown = cohort("request", "show", "gw-1/7/5").out
    for words in (f"{release.version} ({str(release.digest)[:16]}), route backup", "key shop", "held on key shop, team web, all"):
        assert words in shown
