"""Agents, their sessions and tokens. `open_identity` puts the room together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.base.ids import Entropy
from cohort.kernel.identity.agents import SqlAgents, Workrooms
from cohort.kernel.identity.endpoint import SqlTokens
from cohort.kernel.identity.identities import SqlIdentities
from cohort.kernel.identity.issuing import Issuer
from cohort.kernel.identity.journal import Journal
from cohort.kernel.identity.signing import SigningKeys
from cohort.kernel.identity.time import Steady
from cohort.kernel.identity.tokens import Jwts
from cohort.kernel.model import RecordKind
from cohort.kernel.ports import AuditLog
from cohort.storage.database import Database

__all__ = ["IdentityRoom", "Workrooms", "open_identity"]


@dataclass(frozen=True, slots=True)
class IdentityRoom:
    identities: SqlIdentities
    agents: SqlAgents
    tokens: SqlTokens
    _keys: SigningKeys
    _journal: Journal

    def rotate_keys(self, actor: str) -> str:
        """Sign with a new key from now on; its id. Tokens of the key before stay good, those of an older one do not.

        Raises:
            CohortError AUDIT_UNAVAILABLE, DISK_FULL: nothing changed.
        """
        key = self._keys.draw()
        with self._journal.change(RecordKind.KEY, {"event": "token_key", "kid": key.kid, "actor": actor}):
            self._keys.adopt(key)
        return key.kid


def open_identity(
    database: Database,
    clock: Clock,
    entropy: Entropy,
    audit: AuditLog,
    key_dir: Path,
    trust_domain: str,
    token_life_max_s: int,
    workrooms: Workrooms,
) -> IdentityRoom:
    """The room on a migrated database; makes the first key to sign tokens with when `key_dir` holds none.

    Raises:
        CohortError CONFIG_INVALID: a key's file can be read by others, or is damaged; AUDIT_UNAVAILABLE, DISK_FULL: no key was made.
    """
    time = Steady(clock)
    keys = SigningKeys(key_dir, entropy)
    journal = Journal(audit)
    jwts = Jwts(keys, trust_domain)
    issuer = Issuer(jwts, time, entropy, token_life_max_s)
    identities = SqlIdentities(database, jwts, time)
    tokens = SqlTokens(database, identities, issuer, keys, journal, time)
    room = IdentityRoom(identities, SqlAgents(database, issuer, journal, time, entropy, workrooms), tokens, keys, journal)
    if keys.empty:
        room.rotate_keys("control")
    return room
