"""`system.read`, and `agent.delegate`: looking at the machine, and giving a narrower token to another agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cohort.kernel.actions.clearance import Cleared, Executed, Executor
from cohort.kernel.face import TokenPair


class Monitor(Protocol):
    """The machine's figures."""

    def read(self, what: str) -> Mapping[str, Any]:
        """Plain JSON values about `cpu`, `memory`, `disk`, `network` or `processes`."""
        ...


class Exchange(Protocol):
    """The part of `face.Tokens` that delegates."""

    def exchange(self, token: str, agent: str, scopes: Sequence[str], audience: str, *, bound_to: str | None = None) -> TokenPair: ...


def system_read(monitor: Monitor) -> Executor:
    def read(cleared: Cleared) -> Executed:
        return Executed(dict(monitor.read(cleared.action.resource)))

    return read


def delegate(tokens: Exchange) -> Executor:
    """The child token is in the answer and nowhere else."""

    def give(cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        pair = tokens.exchange(cleared.token, arguments["agent"], arguments["scopes"], arguments["audience"], bound_to=cleared.bound_to)
        result = {"token": pair.token, "session": pair.session, "scopes": list(pair.scopes), "expires_us": pair.expires_us}
        return Executed(result, secrets=frozenset({"token"}))

    return give
