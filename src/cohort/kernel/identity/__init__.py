"""Agents, their sessions and tokens. `open_identity` puts the room together."""

from __future__ import annotations

from collections.abc import Callable
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
from cohort.kernel.model import Agent
from cohort.kernel.ports import AuditLog
from cohort.storage.database import Database

__all__ = ["IdentityRoom", "Workrooms", "open_identity"]


def _nobody(_: Agent) -> None:
    """Nothing runs."""


@dataclass(frozen=True, slots=True)
class IdentityRoom:
    identities: SqlIdentities
    agents: SqlAgents
    tokens: SqlTokens


def open_identity(
    database: Database,
    clock: Clock,
    entropy: Entropy,
    audit: AuditLog,
    key_dir: Path,
    trust_domain: str,
    token_life_max_s: int,
    workrooms: Workrooms,
    stopped: Callable[[Agent], None] = _nobody,
) -> IdentityRoom:
    """The room on a migrated database; makes the first key to sign tokens with when `key_dir` holds none.

    `stopped` is told of an agent after it was suspended or revoked, to end what still runs for it; it must not raise.

    Raises:
        CohortError CONFIG_INVALID: a key's file can be read by others, or is damaged; AUDIT_UNAVAILABLE, DISK_FULL: no key was made.
    """
    time = Steady(clock)
    keys = SigningKeys(key_dir, entropy)
    journal = Journal(audit)
    jwts = Jwts(keys, trust_domain)
    issuer = Issuer(jwts, time, entropy, token_life_max_s)
    identities = SqlIdentities(database, jwts, time)
    tokens = SqlTokens(database, identities, jwts, issuer, keys, journal, time)
    if keys.empty:
        tokens.rotate("control")
    return IdentityRoom(identities, SqlAgents(database, issuer, journal, time, entropy, workrooms, stopped), tokens)
