"""`cohort gateway`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

if TYPE_CHECKING:
    from cohort.surfaces.cli.api import Api

SCOPES = ("all", "team", "service", "agent", "run")
DAY_US = 86_400_000_000


@click.group(
    "gateway",
    cls=Verbs,
    epilog=examples("cohort gateway key create shop --service support --rpm 60\ncohort gateway budget set team payments 50"),
)
def command() -> None:
    """The keys and budgets of the programs that call models through the gateway."""


@command.group("key", cls=Verbs, epilog=examples("cohort gateway key create shop --service support\ncohort gateway key revoke shop"))
def key() -> None:
    """Keys of clients. From the first one on, the gateway requires a key."""


@key.command("create", epilog=examples("cohort gateway key create shop --service support --budget-usd-day 5 --rpm 60"))
@click.argument("name")
@click.option("--service", "services", multiple=True, metavar="NAME", help="A service it may call; may be repeated.  [default: all]")
@click.option("--tenant", default="", help="Tenants never share a cached answer.")
@click.option("--team", default="", help="Whose budget its calls count in too.")
@click.option("--agent", default="", help="The agent whose calls these are.")
@click.option("--budget-usd-day", type=click.FloatRange(0), metavar="USD", help="At most so much a day (UTC); 0 refuses all.")
@click.option("--rpm", type=click.IntRange(0), help="Requests per minute.")
@click.option("--tpm", type=click.IntRange(0), help="Tokens per minute, in and out.")
@click.option("--expires-days", type=click.FloatRange(0, 36_500), metavar="DAYS", help="Refused after so many days.")
@api_options
@with_session
def create(session: Session, /, name: str, expires_days: float | None, **terms: Any) -> int:
    """A key for the program or team NAME. It is shown once, on standard output."""
    from cohort.base.clock import SystemClock
    from cohort.surfaces.cli.api import Api

    if expires_days is not None and math.isnan(expires_days):  # every comparison with it is false: no range refuses it
        raise CohortError("FIELD_INVALID", "expires_days: nan is no number", field="expires_days", hint="Write a number, such as 2.5.")
    body = {
        "name": name,
        "services": list(terms["services"]),
        **{place: terms[place] for place in ("tenant", "team", "agent")},
        "budget_usd_per_day": terms["budget_usd_day"],
        "requests_per_minute": terms["rpm"],
        "tokens_per_minute": terms["tpm"],
        "expires_us": None if expires_days is None else SystemClock().now_us() + int(expires_days * DAY_US),
    }
    api = Api(session)
    made = api.post("/gateway/keys", body)
    if session.json:
        session.data(made)
    else:
        _note_unknown(session, api, body["services"])
        session.say(f"key {made['client']['id']} for {name}; its text is shown this once:")
        session.text(made["text"])
    return Exit.DONE


@key.command("list", epilog=examples("cohort gateway key list"))
@api_options
@with_session
def list_(session: Session) -> int:
    """Every key ever made, oldest first; never its text."""
    from cohort.surfaces.cli.api import Api

    return _show_keys(session, Api(session).get("/gateway/keys"))


@key.command("revoke", epilog=examples("cohort gateway key revoke shop"))
@click.argument("name")
@api_options
@with_session
def revoke(session: Session, name: str) -> int:
    """End the key NAME, also by its id. Gateways are told at once."""
    from cohort.surfaces.cli.api import Api, part

    return _show_keys(session, Api(session).post(f"/gateway/keys/{part(name)}/revoke", {}))


@command.group("budget", cls=Verbs, epilog=examples("cohort gateway budget set team payments 50\ncohort gateway budget list"))
def budget() -> None:
    """Dollars per day (UTC) of everything, a team, a service, an agent; of a run in all. Those of one key belong to the key."""


@budget.command(
    "set",
    epilog=examples("cohort gateway budget set team payments 50\ncohort gateway budget set run '*' 2\ncohort gateway budget set all 500"),
)
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("name_and_usd", nargs=-1, required=True, metavar="[NAME] USD")
@api_options
@with_session
def set_(session: Session, scope: str, name_and_usd: tuple[str, ...]) -> int:
    """At most USD for NAME; `*`: for each. `all` takes no name. 0 refuses all."""
    from cohort.surfaces.cli.api import Api

    *name, usd = name_and_usd
    try:
        amount = float(usd)
    except ValueError as error:
        raise click.UsageError(f"{usd!r} is not an amount of dollars") from error
    if len(name) != (0 if scope == "all" else 1):
        raise click.UsageError("give one NAME and the amount; for `all` only the amount")
    api = Api(session)
    page = api.post("/gateway/budgets", {"scope": scope, "name": "".join(name), "usd": amount})
    if scope == "service" and not session.json:
        _note_unknown(session, api, [each for each in name if each != "*"])
    return _show_budgets(session, api, page)


@budget.command("list", epilog=examples("cohort gateway budget list"))
@api_options
@with_session
def list_budgets(session: Session) -> int:
    """Those in force, with what is spent (of a day: today) and held by calls under way, as the gateway has it."""
    from cohort.surfaces.cli.api import Api

    api = Api(session)
    return _show_budgets(session, api, api.get("/gateway/budgets"))


@budget.command("remove", epilog=examples("cohort gateway budget remove team payments"))
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("name", default="")
@api_options
@with_session
def remove(session: Session, scope: str, name: str) -> int:
    """Take a budget away."""
    from cohort.surfaces.cli.api import Api

    api = Api(session)
    return _show_budgets(session, api, api.post("/gateway/budgets/remove", {"scope": scope, "name": name}))


def _note_unknown(session: Session, api: Api, services: Iterable[str]) -> None:
    """A service may be made later than its keys and budgets; one that was misspelt never is."""
    known = {item["name"] for item in api.get("/services")["items"]}
    for name in services:
        if name not in known:
            session.say(f"note: there is no service {name} yet; `cohort service list` shows those there are")


def _show_keys(session: Session, page: dict[str, list[dict[str, Any]]]) -> int:
    from cohort.base.clock import SystemClock
    from cohort.surfaces.cli.render import moment, table

    if session.json:
        session.data(page)
        return Exit.DONE
    now_us = SystemClock().now_us()
    rows = [
        (
            item["id"],
            item["name"],
            ", ".join(item["terms"]["services"]) or "all",
            item["terms"]["team"] or "-",
            _limits(item["terms"]),
            moment(int(item["created_us"])),
            _state(item, now_us),
        )
        for item in page["items"]
    ]
    table(session, ("key", "name", "services", "team", "limits", "made", "state"), rows)
    return Exit.DONE


def _state(key: dict[str, Any], now_us: int) -> str:
    expires_us = key["terms"]["expires_us"]
    if key["revoked_us"]:
        return "revoked"
    if expires_us is None:
        return "active"
    from cohort.surfaces.cli.render import moment

    return f"active until {moment(expires_us)}" if expires_us > now_us else f"expired {moment(expires_us)}"


def _limits(terms: dict[str, Any]) -> str:
    said = []
    if terms["budget_usd_micro_per_day"] is not None:
        said.append(f"{_usd(terms['budget_usd_micro_per_day'])}/day")
    if terms["requests_per_minute"] is not None:
        said.append(f"{terms['requests_per_minute']} rpm")
    if terms["tokens_per_minute"] is not None:
        said.append(f"{terms['tokens_per_minute']} tpm")
    return ", ".join(said) or "none"


def _show_budgets(session: Session, api: Api, page: dict[str, list[dict[str, Any]]]) -> int:
    from cohort.surfaces.cli.render import table

    if session.json:
        session.data(page)
        return Exit.DONE
    balances = {(each["scope"], each["name"]): each for each in api.get("/gateway/balances")["items"] or ()}
    rows = [_budget_row(entry, balances.get((entry["budget"]["scope"], entry["budget"]["name"]))) for entry in page["items"]]
    table(session, ("scope", "name", "at most", "spent", "held", "set by"), rows)
    return Exit.DONE


def _usd(micro: int) -> str:
    """Whole dollars, cents, or as many digits as it has; never an exponent."""
    dollars, millionths = divmod(micro, 1_000_000)
    return f"${dollars:,}" + (f".{millionths:06d}".rstrip("0").ljust(3, "0") if millionths else "")


def _budget_row(entry: dict[str, Any], balance: dict[str, Any] | None) -> tuple[str, ...]:
    budget = entry["budget"]
    most = f"{_usd(budget['usd_micro'])} {'in all' if budget['scope'] == 'run' else 'a day'}"
    spent, held = (_usd(balance[place]) if balance else "-" for place in ("spent", "held"))
    return budget["scope"], budget["name"] or "-", most, spent, held, entry["changed_by"]
