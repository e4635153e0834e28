"""Acting as an agent by hand: one session per person and agent for as long as its token lasts.

An approval is for an action of one session, so a person who asks again after somebody approved has to come back in the same session; also
after control was restarted, so that a repeated request meets what the first one began.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import KeyId
from cohort.kernel.face import KernelFace, Request, TokenPair
from cohort.kernel.model import ActionResult, Agent
from cohort.surfaces.http.callers import Caller

TOKENS_MAX = 256
LEFT_US_MIN = 120_000_000
"""A token that ends sooner is not begun with: an action may wait and run for so long."""
GONE = frozenset({"TOKEN_INVALID", "TOKEN_EXPIRED", "SESSION_REVOKED"})

_Name = tuple[str, KeyId | None, Agent]


class Hands:
    """Safe to use from many threads."""

    def __init__(self, clock: Clock) -> None:
        self._tokens = _Tokens(clock)

    def perform(self, kernel: KernelFace, agent: str, person: Caller, request: Request) -> ActionResult:
        """The person's name is on the token and so in the audit log; with the person's key the token ends.

        Errors: AGENT_UNKNOWN, AGENT_SUSPENDED, AGENT_REVOKED, and those of `Actions.perform`.
        """
        name = (person.name, person.key, kernel.agents.find(agent))
        held = self._tokens.get(name)
        if held is not None:
            try:
                return kernel.actions.perform(held.token, request)
            except CohortError as error:
                if error.code not in GONE:
                    raise
                self._tokens.forget(name)
        minted = kernel.agents.mint(name[2].id, None, person.name, again=True, key=person.key)
        self._tokens.put(name, minted)
        return kernel.actions.perform(minted.token, request)


class _Tokens:
    """Of a whole `Agent`: a changed one, such as with another scope, begins a new session."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[_Name, TokenPair] = OrderedDict()

    def get(self, name: _Name) -> TokenPair | None:
        with self._lock:
            held = self._held.get(name)
            if held is not None and held.expires_us - self._clock.now_us() < LEFT_US_MIN:
                del self._held[name]
                return None
            return held

    def put(self, name: _Name, pair: TokenPair) -> None:
        with self._lock:
            self._held[name] = pair
            while len(self._held) > TOKENS_MAX:
                self._held.popitem(last=False)

    def forget(self, name: _Name) -> None:
        with self._lock:
            self._held.pop(name, None)
