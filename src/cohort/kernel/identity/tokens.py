"""Tokens as text: JWTs signed with EdDSA. Nothing here knows whether a session is still in force; `identities.py` asks the database for that."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId, TokenId, WorkspaceId
from cohort.kernel.identity.signing import SigningKeys
from cohort.kernel.model import Scope
from cohort.kernel.scopes import parse_scope, stored_scope

TOKEN_BYTES_MAX = 8192
LEEWAY_S = 5
"""How far a token's issue may lie in the future: clocks of machines that share a database differ."""
KNOWN_MAX = 4096
"""Tokens whose signature was found good a moment ago; nothing but the signature is remembered."""
TYPE = "at+jwt"

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADER = {"alg", "kid", "typ"}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. `actors`: the chain of delegation, nearest first. Times in whole seconds, as in the token."""

    token: TokenId
    agent: AgentId
    session: AgentSessionId
    workspace: WorkspaceId | None
    audiences: tuple[str, ...]
    scopes: tuple[Scope, ...]
    issued_s: int
    expires_s: int
    actors: tuple[AgentId, ...] = ()
    bound_to: str | None = None

    @property
    def expires_us(self) -> int:
        return self.expires_s * 1_000_000


class Jwts:
    """Writes and reads tokens of one trust domain. Safe to use from many threads."""

    def __init__(self, keys: SigningKeys, trust_domain: str) -> None:
        self._keys = keys
        self._issuer = f"spiffe://{trust_domain}"
        self._jws = jwt.PyJWS(algorithms=["EdDSA"])
        self._known = _Known()

    def write(self, claims: Claims) -> str:
        """The signed token. Errors: FIELD_INVALID: it would be larger than `TOKEN_BYTES_MAX`."""
        key = self._keys.newest()
        payload = json.dumps(self._payload(claims), separators=(",", ":")).encode()
        text = self._jws.encode(payload, key.private, "EdDSA", {"kid": key.kid, "typ": TYPE})
        if len(text) > TOKEN_BYTES_MAX:
            hint = "Ask for fewer scopes, or shorter patterns."
            raise CohortError("FIELD_INVALID", f"the token would have {len(text)} bytes", field="scopes", hint=hint)
        return text

    def read(self, token: str) -> Claims:
        """What `token` says, when it is ours and whole; times and audience are the caller's to judge. Errors: TOKEN_INVALID."""
        if len(token) > TOKEN_BYTES_MAX:
            _refuse(f"it is longer than {TOKEN_BYTES_MAX} bytes")
        if not _SHAPE.fullmatch(token):
            _refuse("it does not have the form of a token")
        mark = hashlib.sha256(token.encode()).digest()
        kid, claims = self._known.get(mark)
        if claims is None or self._keys.find(kid) is None:
            kid, claims = self._verified(token)
            self._known.put(mark, kid, claims)
        return claims

    def _verified(self, token: str) -> tuple[str, Claims]:
        try:
            header = self._jws.get_unverified_header(token)
            kid = self._judged(header)
            key = self._keys.find(kid)
            if key is None:
                _refuse("it is signed with a key that is not in force")
            payload = self._jws.decode(token, key.public, algorithms=["EdDSA"])
        except (jwt.InvalidTokenError, jwt.InvalidKeyError) as error:
            raise _invalid(f"its signature does not hold ({type(error).__name__})") from error
        return kid, self._claims(payload)

    def _judged(self, header: Mapping[str, Any]) -> str:
        kid = header.get("kid")
        if header.get("alg") != "EdDSA":
            _refuse("it is not signed with EdDSA")
        if header.get("typ") != TYPE:
            _refuse(f"its type is not {TYPE}")
        if not isinstance(kid, str) or not set(header) <= _HEADER:
            _refuse("its header is not one of ours")
        return kid

    def _payload(self, claims: Claims) -> dict[str, Any]:
        chain = (claims.agent, *claims.actors)
        payload: dict[str, Any] = {
            "iss": self._issuer,
            "sub": self._name(chain[-1]),
            "aud": list(claims.audiences),
            "iat": claims.issued_s,
            "nbf": claims.issued_s,
            "exp": claims.expires_s,
            "jti": claims.token,
            "sid": claims.session,
            "scope": " ".join(stored_scope(scope) for scope in claims.scopes),
            "ws": claims.workspace,
        }
        acting = self._acting(chain[:-1])
        if acting is not None:
            payload["act"] = acting
        if claims.bound_to is not None:
            payload["cnf"] = {"cohort": claims.bound_to}
        return payload

    def _acting(self, chain: tuple[AgentId, ...]) -> dict[str, Any] | None:
        """RFC 8693: the one who acts outermost, who acted before it inside; whom they act for is `sub`."""
        acting: dict[str, Any] | None = None
        for agent in reversed(chain):
            acting = {"sub": self._name(agent)} | ({} if acting is None else {"act": acting})
        return acting

    def _claims(self, payload: bytes) -> Claims:
        """Signed by us, so it should be whole; it is not when the same key signs elsewhere."""
        try:
            said = json.loads(payload)
            if said["iss"] != self._issuer:
                _refuse("it was issued by another trust domain")
            return self._read(said)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _invalid("it does not say what a token of ours says") from error

    def _read(self, said: Mapping[str, Any]) -> Claims:
        nested: list[str] = []
        acting = said.get("act")
        while acting is not None:
            nested.append(acting["sub"])
            acting = acting.get("act")
        chain = [self._agent(name) for name in (*nested, said["sub"])]
        return Claims(
            token=TokenId(_text(said["jti"])),
            agent=chain[0],
            session=AgentSessionId(_text(said["sid"])),
            workspace=WorkspaceId(_text(said["ws"])) if said["ws"] is not None else None,
            audiences=tuple(_text(audience) for audience in said["aud"]),
            scopes=tuple(_scope(text) for text in said["scope"].split()),
            issued_s=_seconds(said["iat"]),
            expires_s=_seconds(said["exp"]),
            actors=tuple(chain[1:]),
            bound_to=said["cnf"]["cohort"] if "cnf" in said else None,
        )

    def _name(self, agent: AgentId) -> str:
        return f"{self._issuer}/agent/{agent}"

    def _agent(self, name: str) -> AgentId:
        prefix = f"{self._issuer}/agent/"
        if not name.startswith(prefix):
            raise ValueError(f"{name!r} is not an agent of this trust domain")
        return AgentId(name.removeprefix(prefix))


class _Known:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: OrderedDict[bytes, tuple[str, Claims]] = OrderedDict()

    def get(self, mark: bytes) -> tuple[str, Claims | None]:
        with self._lock:
            return self._claims.get(mark, ("", None))

    def put(self, mark: bytes, kid: str, claims: Claims) -> None:
        with self._lock:
            self._claims[mark] = (kid, claims)
            while len(self._claims) > KNOWN_MAX:
                self._claims.popitem(last=False)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _scope(text: str) -> Scope:
    try:
        return parse_scope(text)
    except CohortError as error:
        raise ValueError(error.message) from error


def _seconds(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("not a number of seconds")
    return value


def _refuse(why: str) -> NoReturn:
    raise _invalid(why)


def _invalid(why: str) -> CohortError:
    return CohortError("TOKEN_INVALID", f"the token is not valid: {why}", hint="Sign in again with the agent's key.")
