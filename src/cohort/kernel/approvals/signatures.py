"""Signed messages in the manner of Standard Webhooks 1.0: HMAC-SHA256 over id, time and body, in three headers.

https://github.com/standard-webhooks/standard-webhooks, specification, sections "Signature scheme" and "Verifying webhook authenticity".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from cohort.base.errors import CohortError

TOLERANCE_S = 300
"""How far a message's time may lie from ours, either way."""
SECRET_BYTES_MIN = 24
ID_CHARS_MAX = 128
SIGNATURES_MAX = 10
_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Secret:
    """The shared secret; never shown."""

    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Secret:
        """`whsec_` and base64, as Standard Webhooks writes it, or the secret's own text.

        Raises:
            CohortError CONFIG_INVALID: shorter than 24 bytes or not base64; the secret is not repeated.
        """
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else text.encode()
        except binascii.Error as error:
            raise _weak("what follows `whsec_` is not base64") from error
        if len(key) < SECRET_BYTES_MIN:
            raise _weak(f"it has fewer than {SECRET_BYTES_MIN} bytes")
        return cls(key)


def signed(secret: Secret, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a message sent at `at_s`, seconds since the epoch."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{_signature(secret, message_id, str(at_s), body)}",
    }


def check(secret: Secret, headers: Mapping[str, str], body: bytes, now_s: int) -> str:
    """The id of a message that really comes from somebody who knows the secret, and now. Names of headers in any case.

    Raises:
        CohortError KEY_INVALID: says what is wrong with it, never what would be right.
    """
    found = {name.lower(): value for name, value in headers.items()}
    message_id, at, signatures = (found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not 0 < len(message_id) <= ID_CHARS_MAX or not message_id.isascii() or not message_id.isprintable() or "." in message_id:
        raise _refused("it has no webhook-id")
    if not (at.isascii() and at.isdigit() and len(at) <= 12):
        raise _refused("it has no webhook-timestamp")
    wanted = _signature(secret, message_id, at, body).encode()
    given = [each.removeprefix("v1,").encode(errors="replace") for each in signatures.split(" ")[:SIGNATURES_MAX] if each.startswith("v1,")]
    if not any(hmac.compare_digest(each, wanted) for each in given):
        raise _refused("its signature does not belong to it")
    if abs(int(at) - now_s) > TOLERANCE_S:
        raise _refused(f"its time lies more than {TOLERANCE_S} s from ours")
    return message_id


def _signature(secret: Secret, message_id: str, at: str, body: bytes) -> str:
    content = f"{message_id}.{at}.".encode() + body
    return base64.b64encode(hmac.new(secret.key, content, hashlib.sha256).digest()).decode()


def _refused(why: str) -> CohortError:
    return CohortError("KEY_INVALID", f"the reply is refused: {why}", hint="Sign it with the shared secret, at the time it is sent.")


def _weak(why: str) -> CohortError:
    what = f"kernel.approval_webhook.secret cannot be used: {why}"
    return CohortError("CONFIG_INVALID", what, field="kernel.approval_webhook.secret", hint="Use 32 random bytes, as `whsec_` and base64.")
