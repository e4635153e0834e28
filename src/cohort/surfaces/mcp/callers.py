"""Who calls over MCP: the holder of the token that came with this very request."""

from __future__ import annotations

from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext

from cohort.base.errors import CohortError
from cohort.kernel.model import Caller


class Holder(AuthenticatedUser):
    """As the SDK wants it, which ties an MCP session to `client_id` and `subject`. `base`: the address that the client reached us by."""

    def __init__(self, token: str, caller: Caller, base: str) -> None:
        scopes = [str(scope) for scope in caller.scopes]
        super().__init__(AccessToken(token=token, client_id=caller.agent.id, scopes=scopes, subject=caller.session))
        self.token = token
        self.caller = caller
        self.base = base


def holder_of(context: ServerRequestContext[Any, Any]) -> Holder:
    """Errors: TOKEN_INVALID: the request did not come through the door that checks tokens."""
    user = context.request.scope.get("user") if context.request is not None else None
    if not isinstance(user, Holder):
        raise CohortError("TOKEN_INVALID", "nobody is known to ask", hint="Connect with an agent's token.")
    return user
