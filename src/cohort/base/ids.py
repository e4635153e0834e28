"""Identifiers with a prefix that people can read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import NewType

RolloutId = NewType("RolloutId", str)  # ro_ + 16 letters and digits
ReleaseDigest = NewType("ReleaseDigest", str)  # rel_ + 64 hexadecimal digits: the identity of a release
UnitId = NewType("UnitId", str)  # pseudonym of a unit: 32 hexadecimal digits
KeyId = NewType("KeyId", str)  # key_ + 16
AgentId = NewType("AgentId", str)  # ag_ + 16
AgentSessionId = NewType("AgentSessionId", str)  # se_ + 16
TokenId = NewType("TokenId", str)  # tk_ + 16
WorkspaceId = NewType("WorkspaceId", str)  # ws_ + 16
SnapshotId = NewType("SnapshotId", str)  # sn_ + 16
ActionId = NewType("ActionId", str)  # act_ + 16
ApprovalId = NewType("ApprovalId", str)  # ap_ + 16
GrantRuleId = NewType("GrantRuleId", str)  # gr_ + 16
ProcessId = NewType("ProcessId", str)  # pr_ + 16

Entropy = Callable[[int], bytes]
"""Gives that many unpredictable bytes (`secrets.token_bytes` outside tests)."""


def new_id(prefix: str, entropy: Entropy) -> str:
    """`prefix_` and 16 lower-case letters and digits: 80 random bits."""
    return f"{prefix}_{base64.b32encode(entropy(10)).decode().lower()}"


def short(digest: str) -> str:
    """A digest as shown to people: the prefix and 12 hexadecimal digits."""
    prefix, _, rest = digest.partition("_")
    return f"{prefix}_{rest[:12]}" if rest else digest[:12]
