"""The gateway's clients: who has a key, what each may call and spend, and the budgets of teams, services, agents and runs.

A key is 256 random bits, shown once and stored as its SHA-256: with that much entropy a slow hash would protect nothing more. Gateways
are told the hashes. Every change is in the audit log before it is made.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy, new_id
from cohort.delivery.routing import Spending
from cohort.gateway.contract_spend import EACH, Budget, ClientKey, Scope
from cohort.storage import schema as t
from cohort.storage.database import Database

KEY_PREFIX = "cgk_"
ID_PREFIX = "kid"
"""Of what a key is called in lists, records and logs; nothing that begins so lets anybody in."""
SECRET_BYTES = 32
KEYS_MAX = 10_000
"""Keys in force: each gateway holds all of them."""
BUDGETS_MAX = 1_000
SERVICES_PER_KEY_MAX = 256
USD_MICRO_MAX = 10**15
PER_MINUTE_MAX = 10**9
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@ -]{0,62}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key allows. Empty text: belongs to none; None: no limit; 0: nothing. Money in millionths of a dollar, days are UTC."""

    services: tuple[str, ...] = ()
    tenant: str = ""
    team: str = ""
    agent: str = ""
    budget_usd_micro_per_day: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_us: int | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A client's key as listed; its text is known only to its holder."""

    id: str
    name: str
    created_us: int
    created_by: str
    terms: Terms = field(default_factory=Terms)
    revoked_us: int | None = None


@dataclass(frozen=True, slots=True)
class NewClient:
    """A key at the only moment its text can be shown. The text is not part of the value's representation."""

    text: str
    client: Client

    def __repr__(self) -> str:
        return f"NewClient({self.client!r})"


@dataclass(frozen=True, slots=True)
class SetBudget:
    """A budget as listed."""

    budget: Budget
    changed_us: int
    changed_by: str


class Clients:
    """Keys and budgets. Safe to use from many threads; every method may raise the errors of `Database`.

    `record` writes into the audit log before anything is changed; when it raises, nothing is. `changed` has gateways told.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy = secrets.token_bytes,
        record: Callable[[Mapping[str, Any]], object] = lambda _body: None,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._record = record
        self._changed = changed

    def create(self, name: str, terms: Terms, actor: str) -> NewClient:
        """A new key; its text is in the answer and nowhere else.

        Raises:
            CohortError FIELD_INVALID: the name is taken or not one, or a term is. AUDIT_UNAVAILABLE: nothing was made.
        """
        _check_name(name, "name")
        _check_terms(terms)
        text = KEY_PREFIX + base64.urlsafe_b64encode(self._entropy(SECRET_BYTES)).decode().rstrip("=")
        client = Client(new_id(ID_PREFIX, self._entropy), name, self._clock.now_us(), actor, terms)
        self._refuse_taken(name)
        self._record({"event": "client_key", "key": client.id, "name": name, "actor": actor, **_told(terms)})
        with self._database.write() as connection:
            connection.execute(insert(t.client_keys).values(**_row(client), sha256=hashlib.sha256(text.encode()).hexdigest()))
        self._changed()
        return NewClient(text, client)

    def list_keys(self) -> Sequence[Client]:
        """Every key ever made, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(t.client_keys).order_by(t.client_keys.c.created_us, t.client_keys.c.id)).all()
        return [_client(row) for row in rows]

    def revoke(self, key: str, actor: str) -> None:
        """End a key; `key` is its id or the name of one in force. Gateways refuse it as soon as they are told, which is asked for at once.

        Raises:
            CohortError NOT_FOUND: there is no such key, or it was revoked before. AUDIT_UNAVAILABLE: nothing was changed.
        """
        named = or_(t.client_keys.c.id == key, t.client_keys.c.name == key)
        with self._database.read() as connection:
            rows = connection.execute(select(t.client_keys).where(named).order_by(t.client_keys.c.revoked_us)).all()
        found = next((row for row in rows if row.revoked_us is None), None)
        if found is None:
            raise _nothing_to_revoke(key, [row.revoked_us for row in rows])
        self._record({"event": "client_key_revoked", "key": found.id, "name": found.name, "actor": actor})
        with self._database.write() as connection:
            still = and_(t.client_keys.c.id == found.id, t.client_keys.c.revoked_us.is_(None))
            connection.execute(update(t.client_keys).where(still).values(revoked_us=self._clock.now_us()))
        self._changed()

    def set_budget(self, budget: Budget, actor: str) -> None:
        """Put a budget in force, or change it. Errors: FIELD_INVALID, AUDIT_UNAVAILABLE."""
        _check_budget(budget)
        if len(self.budgets()) >= BUDGETS_MAX:
            raise _invalid("scope", f"there are {BUDGETS_MAX} budgets already", "Remove one first.")
        told = {"scope": budget.scope.value, "name": budget.name, "usd_micro": budget.usd_micro}
        self._record({"event": "budget", **told, "actor": actor})
        row = {**told, "changed_us": self._clock.now_us(), "changed_by": actor}
        with self._database.write() as connection:
            connection.execute(delete(t.budgets).where(_same(budget.scope, budget.name)))
            connection.execute(insert(t.budgets).values(row))
        self._changed()

    def remove_budget(self, scope: Scope, name: str, actor: str) -> None:
        """Errors: NOT_FOUND, AUDIT_UNAVAILABLE."""
        if not any((entry.budget.scope, entry.budget.name) == (scope, name) for entry in self.budgets()):
            raise CohortError(
                "NOT_FOUND", f"there is no budget of {f'{scope.value} {name}'.strip()}", hint="See `cohort gateway budget list`."
            )
        self._record({"event": "budget_removed", "scope": scope.value, "name": name, "actor": actor})
        with self._database.write() as connection:
            connection.execute(delete(t.budgets).where(_same(scope, name)))
        self._changed()

    def budgets(self) -> Sequence[SetBudget]:
        """Those in force."""
        with self._database.read() as connection:
            rows = connection.execute(select(t.budgets).order_by(t.budgets.c.scope, t.budgets.c.name)).all()
        return [SetBudget(_budget(row), row.changed_us, row.changed_by) for row in rows]

    def _refuse_taken(self, name: str) -> None:
        with self._database.read() as connection:
            names = connection.execute(select(t.client_keys.c.name).where(t.client_keys.c.revoked_us.is_(None))).scalars().all()
        if name in names:
            raise _invalid("name", f"{name!r} has a key already", "Choose another name, or revoke the key first.")
        if len(names) >= KEYS_MAX:
            raise _invalid("name", f"there are {KEYS_MAX} keys in force already", "Revoke those that are not needed.")


def spending(connection: Connection) -> Spending:
    """What the gateway is told. Once there has been a key, one is required for good: revoking the last one opens nothing."""
    rows = connection.execute(select(t.client_keys).order_by(t.client_keys.c.id)).all()
    keys = tuple(_grant(row) for row in rows if row.revoked_us is None)
    budgets = connection.execute(select(t.budgets).order_by(t.budgets.c.scope, t.budgets.c.name)).all()
    return Spending(keys, bool(rows), tuple(_budget(row) for row in budgets))


def _grant(row: Row[Any]) -> ClientKey:
    return ClientKey(row.id, row.name, row.sha256, **asdict(_terms(row)))


def _client(row: Row[Any]) -> Client:
    return Client(row.id, row.name, row.created_us, row.created_by, _terms(row), row.revoked_us)


def _terms(row: Row[Any]) -> Terms:
    limits = (row.budget_usd_micro_per_day, row.requests_per_minute, row.tokens_per_minute, row.expires_us)
    return Terms(tuple(row.services), row.tenant, row.team, row.agent, *limits)


def _row(client: Client) -> dict[str, Any]:
    made = {"id": client.id, "name": client.name, "created_us": client.created_us, "created_by": client.created_by}
    return {**made, **asdict(client.terms), "services": list(client.terms.services), "revoked_us": None}


def _told(terms: Terms) -> dict[str, Any]:
    """What the audit log says of a key: the terms that say something."""
    body = {**asdict(terms), "services": list(terms.services)}
    return {name: value for name, value in body.items() if value not in ("", None, [])}


def _budget(row: Row[Any]) -> Budget:
    return Budget(Scope(row.scope), row.name, row.usd_micro)


def _same(scope: Scope, name: str) -> Any:
    return and_(t.budgets.c.scope == scope.value, t.budgets.c.name == name)


def _nothing_to_revoke(key: str, revoked_us: Sequence[int]) -> CohortError:
    what = f"there is no key {key[:80]!r} of a client"
    if revoked_us:
        since = datetime.fromtimestamp(max(revoked_us) // 1_000_000, UTC)
        what = f"the key {key[:80]!r} is revoked already, since {since:%Y-%m-%d %H:%M:%S} UTC"
    return CohortError("NOT_FOUND", what, hint="See `cohort gateway key list`.")


def _check_name(value: str, place: str) -> None:
    if not _NAME.fullmatch(value):
        raise _invalid(
            place, f"not a name: {value[:80]!r}", "Use 1 to 63 letters, digits, spaces or `._:@-`, beginning with a letter or digit."
        )


def _check_terms(terms: Terms) -> None:
    for place, value in (("tenant", terms.tenant), ("team", terms.team), ("agent", terms.agent)):
        if value:
            _check_name(value, place)
    if len(terms.services) > SERVICES_PER_KEY_MAX:
        raise _invalid("services", f"more than {SERVICES_PER_KEY_MAX}", "Leave it out to allow all services.")
    for name in terms.services:
        _check_name(name, "services")
    _check_limit(terms.budget_usd_micro_per_day, "budget_usd_per_day", USD_MICRO_MAX)
    _check_limit(terms.requests_per_minute, "requests_per_minute", PER_MINUTE_MAX)
    _check_limit(terms.tokens_per_minute, "tokens_per_minute", PER_MINUTE_MAX)


def _check_budget(budget: Budget) -> None:
    if budget.scope is Scope.ALL:
        if budget.name:
            raise _invalid("name", "the budget of everything has no name", "Leave the name out.")
    elif budget.name != EACH:
        _check_name(budget.name, "name")
    _check_limit(budget.usd_micro, "usd", USD_MICRO_MAX)


def _check_limit(value: int | None, place: str, most: int) -> None:
    if value is not None and not 0 <= value <= most:
        raise _invalid(place, f"must be from 0 to {most}, found {value}", "Correct it, or leave it out for no limit.")


def _invalid(place: str, what: str, hint: str) -> CohortError:
    return CohortError("FIELD_INVALID", f"{place}: {what}", field=place, hint=hint)
