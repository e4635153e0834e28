"""One encoding for everything that is hashed: RFC 8785 canonical JSON, SHA-256."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from cohort.base.errors import CohortError


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 encoding of plain JSON values.

    Raises:
        CohortError VALUE_NOT_CANONICAL: a value has no canonical form (a NaN, an integer beyond 2**53, a non-string key).
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:  # the latter: a key with half of a surrogate pair
        raise CohortError("VALUE_NOT_CANONICAL", f"cannot be written as canonical JSON: {error}", hint="Use plain JSON values.") from error


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
