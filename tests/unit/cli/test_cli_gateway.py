"""`cohort gateway` and `cohort flag`: what is said of keys, and of what was misspelt. Control is the real application over delivery in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.delivery.accounts import Balance
from support_command import Command
from support_delivery import ADMIN_KEY, house
from support_server import serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(house().control) as address:
        yield address


@pytest.fixture
def cohort(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, {"COHORT_URL": url, "COHORT_KEY": ADMIN_KEY}, capsys)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("gateway key create a --budget-usd-day nan", "budget_usd_per_day"),
        ("gateway key create a --budget-usd-day inf", "budget_usd_per_day"),
        ("gateway key create a --expires-days nan", "expires_days"),
        ("gateway budget set team web nan", "usd"),
        ("routing replay support --boundary nan", "boundaries[0]"),
        ("routing replay support --weight code=inf", "weights.code"),
    ],
)
def test_what_is_no_number_is_refused_with_its_field(cohort: Command, line: str, field: str) -> None:
    answer = cohort(*line.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {field}: ")
    assert "is no number\nhint: " in answer.err


def test_a_key_says_until_when_it_is_good_and_that_it_has_ended(cohort: Command) -> None:
    for name, more in (("always", ()), ("month", ("--expires-days", "30")), ("past", ("--expires-days", "0"))):
        assert cohort("gateway", "key", "create", name, *more).code == 0
    rows = {line.split()[1]: line for line in cohort("gateway", "key", "list").out.splitlines()[1:]}
    assert rows["always"].endswith("  active")
    assert "  active until " in rows["month"]
    assert "  expired " in rows["past"]
    cohort("gateway", "key", "revoke", "past")
    rows = {line.split()[1]: line for line in cohort("gateway", "key", "list").out.splitlines()[1:]}
    assert rows["past"].endswith("  revoked")


def test_a_service_that_is_not_there_is_taken_and_said(cohort: Command) -> None:
    made = cohort("gateway", "key", "create", "slip", "--service", "suport", "--service", "support")
    assert made.code == 0
    assert made.out.startswith("cgk_")
    assert len(made.out.split()) == 1
    assert "note: there is no service suport yet" in made.err
    assert "no service support " not in made.err
    assert "no service suport yet" in cohort("gateway", "budget", "set", "service", "suport", "1").err
    assert cohort("gateway", "budget", "set", "service", "*", "1").err == ""


def test_a_flag_that_is_nearly_the_gateways_is_pointed_at(cohort: Command) -> None:
    assert "did you mean `cohort flag kill routing.adaptive`?" in cohort("flag", "kill", "routing.adpative").err
    for flag in ("routing.adaptive", "self_improvement.auto_apply"):
        assert "did you mean" not in cohort("flag", "kill", flag).err


@pytest.mark.parametrize(("usd", "micro"), [("0.0000001", 1), ("0", 0), ("1.5", 1_500_000)])
def test_only_nothing_is_a_budget_of_nothing(cohort: Command, usd: str, micro: int) -> None:
    assert cohort("gateway", "budget", "set", "all", usd).code == 0
    (entry,) = [item for item in cohort("gateway", "budget", "list", "--json").json["items"] if item["budget"]["scope"] == "all"]
    assert entry["budget"]["usd_micro"] == micro


def test_budgets_are_listed_with_what_is_spent_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = house()
    accounts: Any = home.control.accounts
    with serving(home.control) as address:
        cohort = Command(tmp_path, {"COHORT_URL": address, "COHORT_KEY": ADMIN_KEY}, capsys)
        cohort("gateway", "budget", "set", "run", "*", "2")
        listed = cohort("gateway", "budget", "set", "team", "web", "50")
        assert [line.split()[:6] for line in listed.out.splitlines()[1:]] == [
            ["run", "*", "$2", "in", "all", "-"],
            ["team", "web", "$50", "a", "day", "-"],
        ]
        accounts.left = [Balance("team", "web", 50_000_000, 1_250_000, 4_000)]
        assert cohort("gateway", "budget", "list").out.splitlines()[2].split()[5:7] == ["$1.25", "$0.004"]
        cohort("gateway", "key", "create", "little", "--budget-usd-day", "0.00001")
        assert "  $0.00001/day  " in cohort("gateway", "key", "list").out
        assert "  $0.50 a day  " in cohort("gateway", "budget", "set", "all", "0.5").out
        assert "  $2,500,000 a day  " in cohort("gateway", "budget", "set", "all", "2500000").out
        cohort("gateway", "budget", "remove", "all")
        assert "no budget of team wbe\n" in cohort("gateway", "budget", "remove", "team", "wbe").err
        assert "no budget of all\n" in cohort("gateway", "budget", "remove", "all").err
