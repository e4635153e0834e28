"""The part of the routing table that is about samples of what calls asked and were answered. Versioned with contract.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

CONTENT_FLAG = "trace.content"
CONTENT_BYTES_DEFAULT, CONTENT_BYTES_MAX = 4096, 16384


@dataclass(frozen=True, slots=True)
class ContentPolicy:
    """`share`: of the conversations; `bytes_max`: of what was asked, and of the answer, each."""

    share: float
    bytes_max: int = CONTENT_BYTES_DEFAULT


def decode_content(entry: dict[str, Any] | None) -> ContentPolicy | None:
    """The policy in a routing table; raises ValueError or TypeError when it is none."""
    if entry is None:
        return None
    policy = ContentPolicy(**entry)
    number = isinstance(policy.share, int | float) and not isinstance(policy.share, bool) and math.isfinite(policy.share)
    if not number or not 0 <= policy.share <= 1 or type(policy.bytes_max) is not int or not 1 <= policy.bytes_max <= CONTENT_BYTES_MAX:
        raise ValueError(f"content_samples: not a policy: {entry!r}"[:200])
    return policy
