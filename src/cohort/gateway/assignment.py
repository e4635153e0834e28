"""Which unit a request belongs to, and which release the unit gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cohort.gateway.contract import Arm, Split, bucket

UNIT_CHARS_MAX = 1024
SHADOW = b"shadow"


@dataclass(frozen=True, slots=True)
class Salts:
    """A split's salt, decoded; `shadow` chooses the units whose calls are copied, independently of the arms."""

    arms: bytes
    shadow: bytes


def salts(split: Split) -> Salts:
    """Raises ValueError when the salt is not hexadecimal."""
    arms = bytes.fromhex(split.salt)
    return Salts(arms, arms + SHADOW)


def raw_unit(header: bytes | None, fields: Mapping[str, Any]) -> str | None:
    """The unit as the client names it: the `X-Cohort-Unit` header, the conversation, the user. None: the request is its own unit."""
    if header:
        return header.decode("utf-8", "replace")[:UNIT_CHARS_MAX]
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
    return Arm.CANDIDATE if split.share > 0 and bucket(salt.arms, unit) < split.share else Arm.STABLE


def is_shadowed(split: Split, salt: Salts, unit: str) -> bool:
    """Whether calls of this unit are copied to the candidate."""
    return split.shadow_share > 0 and bucket(salt.shadow, unit) < split.shadow_share


def _name(value: Any) -> str | None:
    return value[:UNIT_CHARS_MAX] if isinstance(value, str) and value else None
