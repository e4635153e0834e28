"""The token endpoint as surfaces have it: an exchange is the action `agent.delegate`, decided, counted and recorded by the gate like any other.

Without this, a policy that forbids or asks about delegation would hold for those who ask for the action, and not for those who ask OAuth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.actions.gate import Gate
from cohort.kernel.face import Request, TokenPair, Tokens
from cohort.kernel.model import ActionResult, Caller, Outcome
from cohort.kernel.ports import AUDIENCE


class GatedTokens:
    """The face `Tokens`. `tokens`: the real ones, which the executor of `agent.delegate` asks itself."""

    def __init__(self, tokens: Tokens, gate: Gate) -> None:
        self._tokens = tokens
        self._gate = gate

    def exchange(self, token: str, agent: str, scopes: Sequence[str], audience: str, *, bound_to: str | None = None) -> TokenPair:
        """As `Tokens.exchange`. Less of one's own is no delegation, and only recorded.

        Raises:
            CohortError: those of `Tokens.exchange` and of the gate: POLICY_DENIED, QUOTA_EXCEEDED; APPROVAL_NEEDED when a person has to say.
        """
        caller = self._tokens.check(token, AUDIENCE, bound_to=bound_to)
        if agent in (caller.agent.id, caller.agent.name):
            return self._tokens.exchange(token, agent, scopes, audience, bound_to=bound_to)
        wanted = {"agent": agent, "scopes": list(scopes), "audience": audience}
        return _pair(self._gate.perform(token, Request("agent.delegate", wanted), bound_to=bound_to))

    def sign_in(
        self,
        key: str,
        scopes: Sequence[str] | None,
        audience: str,
        *,
        task: str | None = None,
        source: str = "",
        bound_to: str | None = None,
        agent: str | None = None,
    ) -> TokenPair:
        return self._tokens.sign_in(key, scopes, audience, task=task, source=source, bound_to=bound_to, agent=agent)

    def refresh(self, refresh: str, *, bound_to: str | None = None) -> TokenPair:
        return self._tokens.refresh(refresh, bound_to=bound_to)

    def sign_out(self, token: str) -> None:
        self._tokens.sign_out(token)

    def rotate(self, actor: str) -> str:
        return self._tokens.rotate(actor)

    def check(self, token: str, audience: str, *, bound_to: str | None = None) -> Caller:
        return self._tokens.check(token, audience, bound_to=bound_to)

    def jwks(self) -> Mapping[str, Any]:
        return self._tokens.jwks()


def _pair(given: ActionResult) -> TokenPair:
    if given.outcome is not Outcome.DONE:
        raise CohortError(given.code or "OUTCOME_UNKNOWN", given.reason, hint=given.hint, action=given.action_id)
    result = given.result
    return TokenPair(result["token"], None, result["session"], tuple(result["scopes"]), result["expires_us"])
