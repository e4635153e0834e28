"""Which unit a request belongs to, and which release the unit gets. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.gateway.contract import BUCKET_BITS, Arm, Split

UNIT_CHARS_MAX = 1024
SHADOW = b"shadow"
HMAC_BLOCK_BYTES = 64
_UNUSED_BITS, _BUCKETS = 64 - BUCKET_BITS, 1 << BUCKET_BITS
_TWO_NUMBERS = struct.Struct(">QQ")
_STABLE, _CANDIDATE = Arm.STABLE, Arm.CANDIDATE  # a member of an enum takes 60 ns to look up in its class, 3 ns in the module
_UNIT_FIELDS = frozenset({"metadata", "conversation", "user", "safety_identifier", "prompt_cache_key"})


class Salt:
    """contract.bucket for one salt, with HMAC's two keyed states begun once: half the time for each unit (RFC 2104, section 4)."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, salt: bytes) -> None:
        key = salt if len(salt) <= HMAC_BLOCK_BYTES else hashlib.sha256(salt).digest()
        block = key.ljust(HMAC_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def bucket(self, unit: str) -> float:
        """The same number as contract.bucket gives for this salt and unit."""
        return (int.from_bytes(self._digest(unit)[:8], "big") >> _UNUSED_BITS) / _BUCKETS

    def two_buckets(self, unit: str) -> tuple[float, float]:
        """`bucket`, and another number that has nothing to do with it, for the price of one."""
        first, second = _TWO_NUMBERS.unpack_from(self._digest(unit))
        return (first >> _UNUSED_BITS) / _BUCKETS, (second >> _UNUSED_BITS) / _BUCKETS

    def _digest(self, unit: str) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(unit.encode())
        outer.update(inner.digest())
        return outer.digest()


@dataclass(frozen=True, slots=True, eq=False)
class Salts:
    """A split's salt, decoded; `shadow` chooses the units whose calls are copied, independently of the arms."""

    arms: Salt
    shadow: Salt


def salts(split: Split) -> Salts:
    """Raises ValueError when the salt is not hexadecimal."""
    arms = bytes.fromhex(split.salt)
    return Salts(Salt(arms), Salt(arms + SHADOW))


def raw_unit(header: bytes | None, fields: Mapping[str, Any]) -> str | None:
    """The unit as the client names it: the `X-Cohort-Unit` header, the conversation, the user. None: the request is its own unit."""
    if header:
        return header.decode("utf-8", "replace")[:UNIT_CHARS_MAX]
    if _UNIT_FIELDS.isdisjoint(fields):
        return None
    metadata = fields.get("metadata")
    if isinstance(metadata, dict) and (found := _name(metadata.get("conversation_id"))):
        return found
    conversation = fields.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    for value in (conversation, fields.get("user"), fields.get("safety_identifier"), fields.get("prompt_cache_key")):
        if found := _name(value):
            return found
    return None


def arm_of(split: Split, salt: Salts, unit: str) -> Arm:
    """The arm of a unit: candidate when its bucket is below the share."""
    return _CANDIDATE if split.share > 0 and salt.arms.bucket(unit) < split.share else _STABLE


def is_shadowed(split: Split, salt: Salts, unit: str) -> bool:
    """Whether calls of this unit are copied to the candidate."""
    return split.shadow_share > 0 and salt.shadow.bucket(unit) < split.shadow_share


def _name(value: Any) -> str | None:
    return value[:UNIT_CHARS_MAX] if isinstance(value, str) and value else None
