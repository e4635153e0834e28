"""The part of the routing table that is about personal data in requests. Versioned with contract.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KINDS = ("card", "email", "iban", "ip", "phone", "secret", "ssn")
"""What can be found. See `personal/rules.py`."""
PASS, REDACT, REFUSE = "pass", "redact", "refuse"
SHADOW_WAYS, UPSTREAM_WAYS = (PASS, REDACT), (PASS, REDACT, REFUSE)


@dataclass(frozen=True, slots=True)
class PersonalPolicy:
    """What happens to personal data in requests of a release. A candidate's shadow copies are redacted unless it says otherwise."""

    upstream: str = PASS
    shadow: str = REDACT
    kinds: tuple[str, ...] = KINDS


def decode_personal(entry: dict[str, Any] | None) -> PersonalPolicy | None:
    """The policy in a routing table; raises ValueError or TypeError when it is none."""
    if entry is None:
        return None
    policy = PersonalPolicy(**{**entry, "kinds": tuple(entry.get("kinds", KINDS))})
    if policy.upstream not in UPSTREAM_WAYS or policy.shadow not in SHADOW_WAYS or not set(policy.kinds) <= set(KINDS):
        raise ValueError(f"personal_data: not a policy: {entry!r}"[:200])
    return policy
