"""The limits of a routing table, which of them a call counts in, and what it may cost. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from cohort.gateway.contract import Result, RoutingTable
from cohort.gateway.contract_price import Price
from cohort.gateway.contract_spend import EACH, Scope
from cohort.gateway.dialects.face import Chat, Refused, Usage, Withheld
from cohort.gateway.spend import estimates
from cohort.gateway.spend.accounts import Limit
from cohort.gateway.spend.ledger import Exceeded
from cohort.gateway.spend.pricing import bound_usd_micro, prices_keeping

if TYPE_CHECKING:
    from cohort.gateway.compiled import Target
    from cohort.gateway.records import Ongoing
    from cohort.gateway.spend.callers import Caller

DAY_US = 86_400_000_000
UNBILLED = frozenset({Result.UNREACHABLE, Result.UPSTREAM_ERROR})
"""How a call can end that no upstream charges for."""
TERMS_REMEMBERED = 1024
"""Of a table: callers, releases and labels of a day. Then all are forgotten, and made again as calls need them."""
_RUN, _AGENT = b"x-cohort-run", b"x-cohort-agent"
_LABEL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for each call of one caller to one release on one day.

    `limits`: the budgets that it counts in; `told`: how its record names them. `priced`: of the routes that may be asked each whose price no
    other has, all of them where `hedged`: they are asked side by side. `keeping`: what a prompt says of being kept may make a difference.
    """

    limits: tuple[Limit, ...]
    told: str
    priced: tuple[tuple[Target, Price], ...]
    hedged: bool
    keeping: bool


Place = tuple["Caller | None", "Target", str, bytes | None, bytes | None, int]
"""Caller, release, service, agent, run and day."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a routing table. `budgets`: by scope, then by name; millionths of a dollar. `releases`, `keys`: a day's budget by digest and by id."""

    budgets: Mapping[Scope, Mapping[str, int]]
    releases: Mapping[str, int]
    keys: Mapping[str, int]
    agents: bool = False  # some of the budgets are of agents
    runs: bool = False
    terms: dict[Place, Terms] = field(default_factory=dict, compare=False)


def compile_rules(table: RoutingTable) -> Rules | None:
    """None where nothing is limited: then no call costs anything here."""
    budgets: dict[Scope, dict[str, int]] = {}
    for budget in table.budgets:
        budgets.setdefault(budget.scope, {})[budget.name] = budget.usd_micro
    releases = {d: r.budget_usd_micro_per_day for d, r in table.releases.items() if r.budget_usd_micro_per_day is not None}
    keys = {k.id: k.budget_usd_micro_per_day for k in table.keys if k.budget_usd_micro_per_day is not None}
    paced = any((k.requests_per_minute, k.tokens_per_minute) != (None, None) for k in table.keys)
    rules = Rules(budgets, releases, keys, Scope.AGENT in budgets, Scope.RUN in budgets)
    return rules if budgets or releases or keys or paced else None


def terms_of(rules: Rules, ongoing: Ongoing, headers: Mapping[bytes, bytes], now_us: int) -> Terms:
    """Made once and remembered. Raises Refused: 400 a label that is none; 402 the price of a route is not known."""
    agent, run = headers.get(_AGENT) if rules.agents else None, headers.get(_RUN) if rules.runs else None
    place = (ongoing.caller, ongoing.target, ongoing.service.name, agent, run, now_us // DAY_US)
    terms = rules.terms.get(place)
    if terms is None:
        if len(rules.terms) >= TERMS_REMEMBERED:
            rules.terms.clear()
        terms = rules.terms[place] = _terms(ongoing.target, limits_of(rules, ongoing, headers, now_us))
    return terms


def _terms(target: Target, limits: Sequence[Limit]) -> Terms:
    names = [":".join(limit.name.split("\0")[:2]).rstrip(":") for limit in limits]
    hedged = target.reliability.hedge_after_s is not None
    priced = _priced((target, *target.others)) if limits else ()
    if not hedged:
        priced = tuple(pair for number, pair in enumerate(priced) if all(pair[1] != other for _, other in priced[:number]))
    keeping = any(prices_keeping(price) for _, price in priced)
    return Terms(tuple(limits), f',"budgets":{orjson.dumps(names).decode()}', priced, hedged, keeping)


def _priced(targets: Sequence[Target]) -> tuple[tuple[Target, Price], ...]:
    """Raises Refused 402: the price of one is not known."""
    found = []
    for target in targets:
        if target.price is None:
            raise _price_unknown(target, "")
        found.append((target, target.price))
    return tuple(found)


def limits_of(rules: Rules, ongoing: Ongoing, headers: Mapping[bytes, bytes], now_us: int) -> list[Limit]:
    """The budgets that a call counts in; raises Refused 400 for a label that is none."""
    caller, day = ongoing.caller, now_us // DAY_US
    key = caller.key if caller is not None else None
    found = []
    if key is not None and key.budget_usd_micro_per_day is not None:
        found.append(Limit(account("key", key.id, day), key.budget_usd_micro_per_day, f"the key `{key.name}` per day"))
    if rules.releases and (most := rules.releases.get(ongoing.target.digest)) is not None:
        found.append(Limit(account("release", ongoing.target.digest, day), most, f"release {ongoing.target.version} per day"))
    for scope, budgets in rules.budgets.items():
        name = _whose(scope, ongoing, headers)
        most_of = budgets.get(name, budgets.get(EACH)) if name is not None else None
        if most_of is not None and name is not None:
            told = "all calls per day" if scope is Scope.ALL else f"{scope.value} `{name}`" + ("" if scope is Scope.RUN else " per day")
            chosen = name not in budgets and (scope is Scope.RUN or (scope is Scope.AGENT and not (key is not None and key.agent)))
            opener = (key.id if key is not None else "") if chosen else None
            found.append(Limit(account(scope.value, name, 0 if scope is Scope.RUN else day), most_of, told, opener))
    return found


def account(scope: str, name: str, day: int) -> str:
    """The name of an account. The day is part of it: each day's spending is kept by itself."""
    return f"{scope}\0{name}\0{day}"


def _whose(scope: Scope, ongoing: Ongoing, headers: Mapping[bytes, bytes]) -> str | None:
    """Which team, service, agent or run a call is of; None: of none."""
    key = ongoing.caller.key if ongoing.caller is not None else None
    match scope:
        case Scope.ALL:
            return ""
        case Scope.SERVICE:
            return ongoing.service.name
        case Scope.TEAM:
            return (key.team or None) if key is not None else None
        case Scope.AGENT:
            return (key.agent if key is not None else "") or label(headers, _AGENT)
        case Scope.RUN:
            return label(headers, _RUN)


def label(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    """A name that the caller gives; raises Refused 400 where it is none."""
    value = headers.get(name)
    if value is None:
        return None
    if not _LABEL.fullmatch(value):
        words = f"{name.decode()} must be 1 to 63 letters, digits or `._:@-`, beginning with a letter or digit"
        raise Refused(400, words, "label_invalid", name.decode())
    return value.decode()


def bound(terms: Terms, chat: Chat, tokens_in: int, tokens_out: int) -> int:
    """The dearest of the routes that may be asked, all of them where they are asked side by side. Raises Refused 402: the price of a tier is not known."""
    release = terms.priced[0][0]  # prompt and parameters are those of the release, whatever the route
    tier = estimates.tier_asked(chat, release.parameters)
    kept_long = terms.keeping and estimates.may_be_kept_long(chat, release.parameters)
    if release.rewriting.prompt is not None:
        tokens_in += len(release.rewriting.prompt) // estimates.BYTES_PER_TOKEN_MIN
    bounds = []
    for target, price in terms.priced:
        most = bound_usd_micro(price, tokens_in, tokens_out, tier=tier, kept_long=kept_long)
        if most is None:
            raise _price_unknown(target, tier)
        bounds.append(most)
    return sum(bounds) if terms.hedged else max(bounds)


def _price_unknown(target: Target, tier: str) -> Refused:
    place = f"route {target.route} of release {target.version}"
    if tier:
        known = ", ".join(sorted((target.price and target.price.tiers) or ())) or "the standard one alone"
        words = f"a budget applies, and what the service tier `{tier[:40]}` of {place} costs is not known: known is {known}"
        return Withheld(402, words, "price_unknown", "service_tier", kind="insufficient_quota")
    words = f"a budget applies, and what a call by {place} costs is not known: write `routes.{target.route}.price` into a release"
    return Withheld(402, words, "price_unknown", kind="insufficient_quota")


def charged(ongoing: Ongoing, body_bytes: int, events: int, tokens_out_max: int) -> int:
    """What a call is taken to have cost whose usage nobody said; `events`: pieces of a streamed answer."""
    price: Price | None = ongoing.target.price
    if price is None or (ongoing.result in UNBILLED and ongoing.first_us is None):
        return 0
    tokens_out = min(max(events, 1), tokens_out_max) if ongoing.stream else tokens_out_max
    return estimates.charged_usd_micro(price, body_bytes, tokens_out)


def broken_off(ongoing: Ongoing, events: int, tokens_out_max: int) -> Usage | None:
    """The usage of a stream that ended before its end, where the upstream said less than it had streamed; `events`: pieces that came.

    An upstream that says at the beginning that nothing is written yet says no more to a client that leaves before the end.
    """
    tokens_in, tokens_out, detail = ongoing.usage
    if not ongoing.stream or ongoing.result is Result.OK or ongoing.first_us is None or tokens_in is None or tokens_out is None:
        return None
    fewest = min(events, tokens_out_max)
    return Usage(tokens_in, fewest, detail) if tokens_out < fewest else None


def given_up(ongoing: Ongoing, body_bytes: int) -> int:
    """What attempts are taken to have cost that were given up although an upstream may charge for them: their prompt."""
    return sum(estimates.charged_usd_micro(target.price, body_bytes, 0) for target in ongoing.beside if target.price is not None)


def exceeded(error: Exceeded, amount: int, now_us: int) -> Refused:
    """What the caller is told."""
    most, spent, held = (value / 1e6 for value in (error.limit.most, error.spent, error.held))
    left = f"{_usd(spent)} spent, {_usd(held)} held by calls under way"
    smaller = "; a smaller `max_tokens` holds less" if error.spent < error.limit.most else ""
    until = f"; a new day begins in {(DAY_US - now_us % DAY_US) // 1_000_000} s" if most and error.limit.told.endswith("per day") else ""
    words = f"this call may cost {_usd(amount / 1e6)}, which the budget of {_limit(most)} for {error.limit.told} does not have: {left}{smaller}{until}"
    kind = Refused if error.limit.name.startswith("release\0") else Withheld
    return kind(402, words, "budget_exceeded", kind="insufficient_quota")


def _limit(dollars: float) -> str:
    """As people write it: no more digits than it has."""
    return f"${dollars:.6f}".rstrip("0").rstrip(".")


def _usd(dollars: float) -> str:
    """To a hundredth of a cent; less than a cent to a millionth of a dollar, the least there is."""
    return f"${dollars:.6f}" if 0 < dollars < 0.01 else f"${dollars:.4f}"
