"""Who may call control: keys for programs, sessions for browsers.

A key is 256 random bits, shown once and stored as its SHA-256: with that much entropy a slow hash would protect nothing more.
Every secret is looked up by its hash and compared in constant time, so that an answer's duration tells nothing about a stored one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy, KeyId, new_id
from cohort.kernel.attempts import Attempts
from cohort.storage.database import Database
from cohort.storage.schema import keys, sessions

SECRET_BYTES = 32
SECRET_CHARACTERS_MAX = 200
KEY_PREFIX = "ck_"
VERDICTS_MAX = 1024
VERDICT_LIFE_S = 5.0
"""How long another process may go on taking a key that was revoked here."""
SESSION_IDLE_US = 12 * 3_600_000_000
SESSION_LIFE_US = 7 * 24 * 3_600_000_000
SESSION_SLIDE_US = 60_000_000
"""A session is prolonged when that would move its end by this much: one write a minute, not one per page."""
SESSIONS_PER_KEY_MAX = 50
REVOKE_LOCK = "people's keys"
"""Held while a key is revoked: of two administrators who revoke each other, one stays."""

_log = logging.getLogger(__name__)


class Right(StrEnum):
    """One thing that a person may be allowed to do. Every surface asks for one of these, never for a role."""

    VIEW = "view"  # services, rollouts, agents, approvals, workspaces
    AUDIT = "audit"  # read, verify, prove and export the audit log
    OPERATE = "operate"  # releases, rollouts, rollback
    REGISTER = "register"  # agents: register, grant, suspend, revoke, keys; their workspaces
    EXECUTE = "execute"  # act by hand as an agent
    APPROVE = "approve"  # answer what agents ask; revoke standing rules
    KEYS = "keys"  # make and revoke people's keys; change the keys that sign


class Role(StrEnum):
    """What a key's holder may do: a set of rights, not a rank. Who acts and who approves are different people where that is wanted."""

    VIEWER = "viewer"
    AUDITOR = "auditor"
    APPROVER = "approver"
    OPERATOR = "operator"
    MANAGER = "manager"
    ADMIN = "admin"

    @property
    def rights(self) -> frozenset[Right]:
        return _RIGHTS[self]

    def may(self, right: Right) -> bool:
        return right in _RIGHTS[self]


_RIGHTS: dict[Role, frozenset[Right]] = {
    Role.VIEWER: frozenset({Right.VIEW}),
    Role.AUDITOR: frozenset({Right.VIEW, Right.AUDIT}),
    Role.APPROVER: frozenset({Right.VIEW, Right.APPROVE}),
    Role.OPERATOR: frozenset({Right.VIEW, Right.OPERATE, Right.REGISTER, Right.EXECUTE}),
    Role.MANAGER: frozenset(Right) - {Right.KEYS},
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose key it is."""

    key_id: KeyId
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Key:
    """A key as listed; its text is known only to its holder."""

    id: KeyId
    name: str
    role: Role
    created_us: int
    revoked_us: int | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the only moment its text can be shown. The text is not part of the value's representation."""

    text: str
    key: Key

    def __repr__(self) -> str:
        return f"NewKey({self.key!r})"


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. `cookie` is the browser's secret; `csrf` must come back with every change."""

    cookie: str
    csrf: str
    principal: Principal
    created_us: int
    expires_us: int

    def __repr__(self) -> str:
        return f"Session({self.principal!r}, expires_us={self.expires_us})"


def fingerprint(text: str) -> str:
    """What is stored of a key or a cookie: the SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def new_key_text(entropy: Entropy = secrets.token_bytes) -> str:
    """`ck_` and 43 characters that are safe in URLs and shells."""
    return KEY_PREFIX + _random_text(entropy)


class Access:
    """Keys and sessions. Safe to use from many threads; every method may raise the errors of `Database`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy = secrets.token_bytes,
        record: Callable[[Mapping[str, Any]], object] | None = None,
        ended: Callable[[Connection, KeyId], object] | None = None,
    ) -> None:
        """`record`: writes into the audit log who makes and revokes keys, before it is done; when it raises, nothing is done. None: there is no log.
        `ended`: ends, in the transaction that revokes a key, what was made with it elsewhere.
        """
        self._record = record or _unrecorded
        self._ended = ended or _nothing_made
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._attempts = Attempts(clock)
        self._verdicts = _Verdicts(clock)

    def import_key(self, name: str, role: Role, sha256: str) -> KeyId:
        """Take in a key made elsewhere, by its fingerprint. The same one again changes nothing, not even that it was revoked.

        Errors: FIELD_INVALID, AUDIT_UNAVAILABLE: nothing was taken in.
        """
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise CohortError(
                "FIELD_INVALID", "not a fingerprint", field="sha256", hint="Give the SHA-256 of the key, 64 hexadecimal digits."
            )
        with self._database.read() as connection:
            known = connection.execute(select(keys.c.id).where(keys.c.sha256 == sha256)).scalar_one_or_none()
        if known is not None:
            return KeyId(known)
        key = self._key(name, role)
        self._record({"event": "person_key_imported", "key": key.id, "name": name, "role": key.role.value, "actor": "control"})
        with self._database.write() as connection:
            row = {"id": key.id, "name": name, "role": key.role.value, "sha256": sha256, "created_us": key.created_us}
            connection.execute(self._database.upsert(keys).values(row).on_conflict_do_nothing(index_elements=["sha256"]))
            return KeyId(connection.execute(select(keys.c.id).where(keys.c.sha256 == sha256)).scalar_one())

    def create_key(self, name: str, role: Role, actor: str = "") -> NewKey:
        """A new key. Its text is in the answer and nowhere else. `actor`: who has it made. Errors: FIELD_INVALID, AUDIT_UNAVAILABLE."""
        text, key = new_key_text(self._entropy), self._key(name, role)
        row = {"id": key.id, "name": name, "role": key.role.value, "sha256": fingerprint(text), "created_us": key.created_us}
        self._record({"event": "person_key", "key": key.id, "name": name, "role": key.role.value, "actor": actor})
        with self._database.write() as connection:
            connection.execute(keys.insert().values(row))
        return NewKey(text, key)

    def list_keys(self) -> Sequence[Key]:
        """Every key ever made, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_us, keys.c.id)).all()
        return [Key(KeyId(row.id), row.name, Role(row.role), row.created_us, row.revoked_us) for row in rows]

    def revoke_key(self, key_id: KeyId, actor: str = "") -> None:
        """End a key, its browsers' sessions and the agents' sessions it made; as a key here at once, in other processes within `VERDICT_LIFE_S`.

        Raises:
            CohortError NOT_FOUND: there is no such key. LAST_ADMIN: nobody could make keys any more. AUDIT_UNAVAILABLE: nothing was changed.
        """
        with self._database.read() as connection:
            found = _revocable(connection, key_id)
        self._record({"event": "person_key_revoked", "key": key_id, "name": found.name, "role": found.role, "actor": actor})
        with self._database.write() as connection:
            self._database.lock(connection, REVOKE_LOCK)
            _revocable(connection, key_id)
            still = keys.c.revoked_us.is_(None)
            connection.execute(update(keys).where(keys.c.id == key_id, still).values(revoked_us=self._clock.now_us()))
            connection.execute(delete(sessions).where(sessions.c.key_id == key_id))
            self._ended(connection, key_id)
        self._verdicts.forget()

    def check_key(self, text: str) -> Principal | None:
        """Whose key this is; None when it is nobody's, or revoked."""
        if not 0 < len(text) <= SECRET_CHARACTERS_MAX:
            return None
        wanted = fingerprint(text)
        known = self._verdicts.get(wanted)
        if known is not None:
            return known
        generation = self._verdicts.generation
        with self._database.read() as connection:
            found = _principal(connection, wanted)
        if found is not None:
            self._verdicts.put(wanted, found, generation)
        return found

    def sign_in(self, key: str, source: str = "") -> Session:
        """A session for the holder of `key`. `source` says where the attempt came from, such as the client's address.

        Raises:
            CohortError KEY_INVALID: not a key in force.
            CohortError TOO_MANY_ATTEMPTS: this source gave too many wrong ones; says when to try again.
        """
        self._attempts.check(source)
        principal = self.check_key(key.strip())
        if principal is None:
            self._attempts.failed(source)
            raise CohortError("KEY_INVALID", "this is not a key in force", hint="Use a key that `cohort up` printed, or ask for a new one.")
        session = self._open(principal)
        self._attempts.succeeded(source)
        return session

    def session(self, cookie: str) -> Session | None:
        """The session of `cookie`, prolonged; None when there is none, it has expired, or its key was revoked."""
        if not 0 < len(cookie) <= SECRET_CHARACTERS_MAX:
            return None
        with self._database.read() as connection:
            row = connection.execute(_sessions().where(sessions.c.sha256 == fingerprint(cookie))).one_or_none()
        if row is None or not hmac.compare_digest(row.sha256, fingerprint(cookie)) or row.expires_us <= self._clock.now_us():
            return None
        principal = Principal(KeyId(row.key_id), row.name, Role(row.role))
        return self._prolonged(Session(cookie, row.csrf, principal, row.created_us, row.expires_us))

    def sign_out(self, cookie: str) -> None:
        """End the session of `cookie`, if there is one."""
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.sha256 == fingerprint(cookie)))

    def _key(self, name: str, role: Role) -> Key:
        if not 0 < len(name) <= 63 or not name.isprintable():
            raise CohortError("FIELD_INVALID", "not the name of a key", field="name", hint="Use 1 to 63 printable characters.")
        return Key(KeyId(new_id("key", self._entropy)), name, Role(role), self._clock.now_us(), None)

    def _open(self, principal: Principal) -> Session:
        now_us = self._clock.now_us()
        cookie, csrf = _random_text(self._entropy), _random_text(self._entropy)
        session = Session(cookie, csrf, principal, now_us, now_us + SESSION_IDLE_US)
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.expires_us <= now_us))
            _keep_newest(connection, principal.key_id, SESSIONS_PER_KEY_MAX - 1)
            row = {"sha256": fingerprint(cookie), "key_id": principal.key_id, "csrf": csrf, "created_us": now_us}
            connection.execute(sessions.insert().values(**row, expires_us=session.expires_us))
        return session

    def _prolonged(self, session: Session) -> Session:
        """`session` with a later end. When that cannot be written the session still holds until the end it had."""
        expires_us = min(self._clock.now_us() + SESSION_IDLE_US, session.created_us + SESSION_LIFE_US)
        if expires_us < session.expires_us + SESSION_SLIDE_US:
            return session
        try:
            with self._database.write() as connection:
                connection.execute(update(sessions).where(sessions.c.sha256 == fingerprint(session.cookie)).values(expires_us=expires_us))
        except CohortError as error:
            _log.warning("a session could not be prolonged: %s", error)
            return session
        return replace(session, expires_us=expires_us)


def _unrecorded(_body: Mapping[str, Any]) -> None:
    """Where there is no audit log."""


def _nothing_made(_connection: Connection, _key: KeyId) -> None:
    """Where keys open nothing but browsers."""


def _revocable(connection: Connection, key_id: KeyId) -> Row[Any]:
    """Errors: NOT_FOUND, LAST_ADMIN."""
    found = connection.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
    if found is None:
        raise CohortError("NOT_FOUND", f"there is no key {key_id[:100]!r}", hint="List the keys to see their ids.")
    others = select(keys.c.id).where(keys.c.role == Role.ADMIN.value, keys.c.revoked_us.is_(None), keys.c.id != key_id).limit(1)
    last = found.role == Role.ADMIN.value and found.revoked_us is None and connection.execute(others).first() is None
    if last:
        what = f"{key_id} is the last key with the role admin: without it nobody could make or revoke keys"
        raise CohortError("LAST_ADMIN", what, hint="Make another one first: `cohort key create NAME --role admin`.")
    return found


class _Verdicts:
    """Keys found good a moment ago, so that a busy client does not cost a query per call. Wrong keys are never kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Principal, float]] = OrderedDict()
        self.generation = 0

    def get(self, sha256: str) -> Principal | None:
        with self._lock:
            principal, until_s = self._known.get(sha256, (None, 0.0))
        return principal if self._clock.monotonic_s() < until_s else None

    def put(self, sha256: str, principal: Principal, generation: int) -> None:
        """Keep what was read in `generation`, unless something was revoked since."""
        with self._lock:
            if generation != self.generation:
                return
            self._known[sha256] = (principal, self._clock.monotonic_s() + VERDICT_LIFE_S)
            self._known.move_to_end(sha256)
            while len(self._known) > VERDICTS_MAX:
                self._known.popitem(last=False)

    def forget(self) -> None:
        with self._lock:
            self.generation += 1
            self._known.clear()


def _principal(connection: Connection, sha256: str) -> Principal | None:
    row = connection.execute(select(keys).where(keys.c.sha256 == sha256, keys.c.revoked_us.is_(None))).one_or_none()
    if row is None or not hmac.compare_digest(row.sha256, sha256):
        return None
    return Principal(KeyId(row.id), row.name, Role(row.role))


def _sessions() -> Any:
    """Sessions whose key is in force."""
    return select(sessions, keys.c.name, keys.c.role).join(keys, keys.c.id == sessions.c.key_id).where(keys.c.revoked_us.is_(None))


def _keep_newest(connection: Connection, key_id: KeyId, count: int) -> None:
    old = select(sessions.c.sha256).where(sessions.c.key_id == key_id).order_by(sessions.c.created_us.desc()).offset(count)
    found: Sequence[Row[Any]] = connection.execute(old).all()
    if found:
        connection.execute(delete(sessions).where(sessions.c.sha256.in_([row.sha256 for row in found])))


def _random_text(entropy: Entropy) -> str:
    return base64.urlsafe_b64encode(entropy(SECRET_BYTES)).decode().rstrip("=")
