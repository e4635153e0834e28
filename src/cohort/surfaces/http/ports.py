"""What the HTTP surface asks of the rooms below, and the limits it sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cohort.base.clock import Clock
from cohort.base.ids import KeyId
from cohort.delivery.accounts import Accounts
from cohort.delivery.clients import Clients
from cohort.delivery.face import Caching, Flags, Registry, Rollouts, Routing
from cohort.kernel.access import Key, NewKey, Role
from cohort.kernel.face import KernelFace

BODY_BYTES_MAX = 1 << 20
RELEASE_BODY_BYTES_MAX = 5 << 20
"""A manifest of 1 MiB and 4 MiB of the files it names."""
ACTION_BODY_BYTES_MAX = 25 << 20
"""Of an action: the 2 Mi characters that its arguments may have, at the 12 bytes that JSON may need for one, and 1 MiB for what is around them."""
LARGE_BODIES_AT_ONCE = 4
"""Bodies whose rest beyond `BODY_BYTES_MAX` is read at the same time; others wait in line, for as long as a body may take."""
BODY_READ_S_MAX = 30.0
THREADS_MAX = 16
"""Calls into the rooms below at the same time; the rest wait in line."""
STREAMS_MAX = 128
"""Live streams at the same time; one more is refused with TOO_MANY_STREAMS."""
REASON_CHARS_MAX = 2000
IDEMPOTENCY_KEY_CHARS_MAX = 128
PAGE_ROWS_MAX = 200
NUMBER_MAX = 2**63 - 1
"""The largest number that both databases hold."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Principal(Protocol):
    """Whose key it is. `role`: one of the kernel's six."""

    @property
    def key_id(self) -> KeyId: ...
    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...


class Session(Protocol):
    """A signed-in browser. `csrf` must come back with every change."""

    @property
    def principal(self) -> Principal: ...
    @property
    def csrf(self) -> str: ...


class SignedIn(Protocol):
    """`cookie` is the secret the browser keeps until `expires_us`."""

    @property
    def cookie(self) -> str: ...
    @property
    def expires_us(self) -> int: ...


class Access(Protocol):
    def check_key(self, text: str) -> Principal | None:
        """Whose key this is; None when it is nobody's, or revoked."""
        ...

    def sign_in(self, key: str, source: str = "") -> SignedIn:
        """`source`: the client's address, by which attempts are counted. Errors: KEY_INVALID, TOO_MANY_ATTEMPTS."""
        ...

    def session(self, cookie: str) -> Session | None:
        """None when there is none, it has expired, or its key was revoked."""
        ...

    def sign_out(self, cookie: str) -> None: ...
    def create_key(self, name: str, role: Role, actor: str = "") -> NewKey:
        """`actor`: who has it made, for the audit log. Errors: FIELD_INVALID, AUDIT_UNAVAILABLE."""
        ...

    def list_keys(self) -> Sequence[Key]: ...
    def revoke_key(self, key_id: KeyId, actor: str = "") -> None:
        """From at most 5 s later on, everywhere. Errors: NOT_FOUND, AUDIT_UNAVAILABLE."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that readiness depends on, and how it is; `detail` is in words."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Ingest:
    """How the taking of outcomes goes, since control started. `lag_s`: age of the newest record taken, None before the first.

    `damages`: places of the gateway's spool that could not be read and were passed over. `waiting_bytes`: in the spool, not taken yet.
    """

    outcomes_taken: int
    lag_s: float | None
    damages: int = 0
    waiting_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ControlFace:
    """Everything the surface calls. `parts`: readiness, part by part (database, controller, gateway, outcomes); must answer within a second."""

    registry: Registry
    rollouts: Rollouts
    access: Access
    clock: Clock
    parts: Callable[[], Sequence[Part]]
    ingest: Callable[[], Ingest]
    kernel: KernelFace
    flags: Flags
    clients: Clients
    accounts: Accounts
    routing: Routing
    caches: Caching
