"""Clients' keys: who calls, refused or let through before anything of the request is read.

The table holds the SHA-256 of every key in force. A key is 256 random bits, so its hash is found by looking it up, and what the lookup's
duration could tell is about a hash that nobody can choose. A wrong key costs a hash and a lookup; many from one address lock it out.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import orjson

from cohort.base.clock import Clock
from cohort.gateway.contract_spend import ClientKey
from cohort.gateway.dialects.face import Refused
from cohort.gateway.spend.lockout import Lockout

KEY_BYTES_MAX = 512
CHALLENGE = b"www-authenticate: Bearer\r\n"
_BEARER = b"bearer "


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who calls: a key in force. `record` is how it stands in the record of a call; no service named: all are allowed."""

    key: ClientKey
    digest: bytes
    services: frozenset[str]
    record: str

    def check(self, service: str) -> None:
        """Raises Refused 403 where this key may not call `service`."""
        if self.services and service not in self.services:
            words = f"the key `{self.key.name}` may not call {service[:100]!r}; it may call: {', '.join(sorted(self.services)[:20])}"
            raise Refused(403, words, "service_not_allowed", "model", kind="permission_error")

    def may(self, service: str) -> bool:
        return not self.services or service in self.services


Callers = Mapping[bytes, Caller]


def compile_keys(keys: Iterable[ClientKey]) -> dict[bytes, Caller]:
    """The keys of a table by their hash."""
    made = {}
    for key in keys:
        digest = bytes.fromhex(key.sha256)
        record = f',"key":{orjson.dumps(key.id).decode()}' + (f',"agent":{orjson.dumps(key.agent).decode()}' if key.agent else "")
        made[digest] = Caller(key, digest, frozenset(key.services), record)
    return made


class Guard:
    """Admits callers. `keys`: those of the table in force and whether one is required; None: there is no table yet.

    `exposed`: others than this machine's programs reach the gateway, so a key is required even where none was ever made.
    """

    def __init__(
        self, keys: Callable[[], tuple[Callers, bool] | None], clock: Clock, exposed: bool, lockout: Lockout | None = None
    ) -> None:
        self._keys = keys
        self._clock = clock
        self.exposed = exposed
        self.lockout = lockout or Lockout(clock)

    def admit(self, headers: Mapping[bytes, bytes], peer: str) -> Caller | None:
        """Whose key came; None where none is needed. `peer`: the client's address.

        Raises:
            Refused: 503 others reach the gateway and there is no table yet; 401 no key, a wrong or an expired one;
                429 with `retry-after` from an address that gave too many wrong ones.
        """
        known = self._keys()
        if known is None:
            if self.exposed:  # which keys are in force is not known
                words = "the gateway has no routing table yet; control pushes one when it starts"
                raise Refused(503, words, "not_ready", kind="server_error", headers=b"retry-after: 1\r\n")
            return None
        callers, required = known
        if not required and not self.exposed:
            return None
        text = _shown(headers)
        caller = self._find(callers, text) if text else None
        if self.lockout.any and (caller is None or not self.lockout.trusts(peer, caller.key.id)):
            self._check_locked(peer)
        if caller is None:
            raise self._refusal(text, callers, peer)
        if self._expired(caller):
            raise _unauthorized(f"the key `{caller.key.name}` has expired; ask for a new one", "key_expired")
        self.lockout.succeeded(peer, caller.key.id)
        return caller

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether `admit` would let this key in, from an address that is not locked out.

        Nothing is counted: a probe with a bearer of its own, for which no key is needed, locks nobody out.
        """
        known = self._keys()
        if known is None:
            return not self.exposed
        callers, required = known
        if not required and not self.exposed:
            return True
        text = _shown(headers)
        caller = self._find(callers, text) if text else None
        return caller is not None and not self._expired(caller)

    def _expired(self, caller: Caller) -> bool:
        return caller.key.expires_us is not None and self._clock.now_us() >= caller.key.expires_us

    def _find(self, callers: Callers, text: bytes) -> Caller | None:
        digest = hashlib.sha256(text).digest()
        caller = callers.get(digest)
        return caller if caller is not None and hmac.compare_digest(caller.digest, digest) else None

    def _refusal(self, text: bytes, callers: Callers, peer: str) -> Refused:
        if text:
            self.lockout.failed(peer)
            return _unauthorized("the API key is not valid, or was revoked", "invalid_api_key")
        if not callers:
            return _unauthorized("this gateway requires a key and there is none yet: `cohort gateway key create NAME`", "key_missing")
        return _unauthorized("send a key of this gateway: `Authorization: Bearer cgk_...`", "key_missing")

    def _check_locked(self, peer: str) -> None:
        wait_s = self.lockout.wait_s(peer)
        if wait_s:
            words = f"too many wrong keys from this address; wait {wait_s} s"
            raise Refused(429, words, "too_many_attempts", kind="rate_limit_error", headers=b"retry-after: %d\r\n" % wait_s)


def _shown(headers: Mapping[bytes, bytes]) -> bytes:
    """The key in a request, as each dialect's clients send it; empty when there is none."""
    value = headers.get(b"authorization")
    if value is not None and value[:7].lower() == _BEARER:
        return value[7:].strip()[:KEY_BYTES_MAX]
    return (headers.get(b"x-api-key") or headers.get(b"api-key") or b"")[:KEY_BYTES_MAX]


def _unauthorized(words: str, code: str) -> Refused:
    return Refused(401, words, code, kind="authentication_error", headers=CHALLENGE)
