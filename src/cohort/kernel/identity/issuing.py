"""New tokens: what every one of them carries, whoever asked for it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.base.ids import AgentId, AgentSessionId, Entropy, TokenId, new_id
from cohort.kernel.face import TokenPair
from cohort.kernel.identity.rows import shown
from cohort.kernel.identity.time import Steady
from cohort.kernel.identity.tokens import Claims, Jwts
from cohort.kernel.model import Agent, Scope
from cohort.kernel.ports import AUDIENCE
from cohort.kernel.scopes import all_inside, own_scope, shown_scope

TOKEN_LIFE_S = 900
TOKEN_LIFE_S_MAX = 3600
SESSION_LIFE_S = 24 * 3600
"""How long a session can be refreshed."""
AUDIENCE_CHARS_MAX = 200
BOUND_CHARS_MAX = 128
SECRET_BYTES = 32
KEY_PREFIX = "ak_"
REFRESH_PREFIX = "ar_"


@dataclass(frozen=True, slots=True)
class Issue:
    """What a token is made of. `expires_us`: not beyond this; the token's own life may end sooner."""

    agent: Agent
    session: AgentSessionId
    scopes: tuple[Scope, ...]
    audience: str
    expires_us: int
    actors: tuple[AgentId, ...] = ()
    bound_to: str | None = None
    life_s: int | None = None


class Issuer:
    """Draws secrets and writes tokens; records and keeps nothing."""

    def __init__(self, jwts: Jwts, time: Steady, entropy: Entropy, life_s_max: int) -> None:
        self._jwts = jwts
        self._time = time
        self._entropy = entropy
        self.life_s_max = min(life_s_max, TOKEN_LIFE_S_MAX)

    def token(self, issue: Issue, refresh: str | None) -> TokenPair:
        """Errors: FIELD_INVALID: more scopes than a token can carry; TOKEN_EXPIRED: no second of `expires_us` is left."""
        now_s = self._time.now_us() // 1_000_000
        life_s = min(issue.life_s or TOKEN_LIFE_S, self.life_s_max)
        expires_s = min(now_s + life_s, issue.expires_us // 1_000_000)
        if expires_s <= now_s:
            raise CohortError("TOKEN_EXPIRED", "the session ends now", hint="Sign in again with the agent's key.")
        claims = Claims(
            token=TokenId(new_id("tk", self._entropy)),
            agent=issue.agent.id,
            session=issue.session,
            workspace=issue.agent.workspace,
            audiences=audiences(issue.audience),
            scopes=issue.scopes,
            issued_s=now_s,
            expires_s=expires_s,
            actors=issue.actors,
            bound_to=issue.bound_to,
        )
        texts = shown(issue.scopes, issue.agent.workspace)
        return TokenPair(self._jwts.write(claims), refresh, issue.session, texts, claims.expires_us)

    def session_id(self) -> AgentSessionId:
        return AgentSessionId(new_id("se", self._entropy))

    def secret(self, prefix: str) -> str:
        """`prefix` and 43 characters that are safe in URLs and shells: 256 random bits."""
        return prefix + base64.urlsafe_b64encode(self._entropy(SECRET_BYTES)).decode().rstrip("=")


def audiences(audience: str) -> tuple[str, ...]:
    """The place asked for, and the kernel behind it. Errors: FIELD_INVALID."""
    if not 0 < len(audience) <= AUDIENCE_CHARS_MAX or not audience.isascii() or not audience.isprintable() or " " in audience:
        raise CohortError("FIELD_INVALID", f"{audience[:100]!r}: not an audience", field="audience", hint="Use the address of the place.")
    return (AUDIENCE,) if audience == AUDIENCE else (audience, AUDIENCE)


def check_bound(bound_to: str | None) -> None:
    """Errors: FIELD_INVALID."""
    if bound_to is not None and not (0 < len(bound_to) <= BOUND_CHARS_MAX and bound_to.isascii() and bound_to.isprintable()):
        raise CohortError("FIELD_INVALID", "not a name of a connection", field="bound_to", hint="Use 1 to 128 printable ASCII characters.")


def chosen(agent: Agent, texts: Sequence[str] | None, held: tuple[Scope, ...]) -> tuple[Scope, ...]:
    """The scopes asked for, written from `agent`'s workspace, each inside one of `held`; all of `held` when none are named.

    Raises:
        CohortError SCOPE_REFUSED, SCOPE_UNKNOWN, FIELD_INVALID.
    """
    if texts is None:
        return held
    if agent.workspace is None:
        raise CohortError("WORKSPACE_UNKNOWN", f"the agent {agent.name} has no workspace yet", hint="Register it again to finish.")
    workspace = agent.workspace
    scopes = tuple(dict.fromkeys(own_scope(text, workspace) for text in texts))
    beyond = all_inside(scopes, held)
    if beyond is not None:
        have = ", ".join(shown(held, workspace)) or "none"
        raise CohortError(
            "SCOPE_REFUSED", f"{shown_scope(beyond, workspace)} is more than may be given; there is: {have}", hint="Ask for less."
        )
    return scopes
