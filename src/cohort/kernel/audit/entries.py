"""Entries of the log: the canonical JSON that a leaf is the hash of.

The keys, in the order in which RFC 8785 sorts them:

| Key | Value |
| --- | --- |
| `action`, `agent` | ids, or null |
| `at_us` | when the log took the record, microseconds since the Unix epoch |
| `body` | the record's body |
| `kind` | the record's kind |
| `prev` | the leaf hash of the entry before, hexadecimal; 64 zeros in the first |
| `private` | payloads kept beside the log: name to salted commitment |
| `session` | an id, or null |
| `v` | 1, the version of this format |

`prev` adds nothing that the tree does not prove. It says which of 256 records was changed when entry and leaf were changed together, and
the order of the log without its tree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from cohort.base.canonical import canonical_json
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy
from cohort.kernel.model import Record

ENTRY_VERSION = 1
ENTRY_BYTES_MAX = (64 << 10) - 1
"""What fits the two bytes of length that an entry has in a bundle of tlog-tiles."""
PAYLOAD_BYTES_MAX = 1 << 20
PAYLOADS_MAX = 16
PAYLOAD_NAME_CHARACTERS_MAX = 63
SUBJECT_CHARACTERS_MAX = 64
ID_CHARACTERS_MAX = 40
SALT_BYTES = 32
NO_LEAF = bytes(32)
_TIME_DIGITS = 20
_PREVIOUS_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Payload:
    """What is kept beside the log. `commitment`: SHA-256 over salt and data, hexadecimal."""

    name: str
    commitment: str
    salt: bytes
    data: bytes
    subject: str | None


class Prepared(NamedTuple):
    """An entry but for its time and its predecessor, which are known when it is its turn. A tuple because one is made for every record."""

    kind: str
    agent: str | None
    action: str | None
    payloads: tuple[Payload, ...]
    head: bytes
    middle: bytes
    tail: bytes

    @property
    def bytes_max(self) -> int:
        return len(self.head) + len(self.middle) + len(self.tail) + _TIME_DIGITS + _PREVIOUS_DIGITS

    def sealed(self, at_us: int, previous: bytes) -> bytes:
        """The entry."""
        return b"%b%d%b%b%b" % (self.head, at_us, self.middle, previous.hex().encode(), self.tail)


def prepare(record: Record, entropy: Entropy) -> Prepared:
    """The entry of `record`, as far as it can be made before its turn.

    Raises:
        CohortError RECORD_TOO_LARGE: the entry, or a payload.
        CohortError VALUE_NOT_CANONICAL, FIELD_INVALID: it cannot be written at all.
    """
    for value in (record.agent, record.session, record.action):
        _check_length("id", value, ID_CHARACTERS_MAX)
    payloads = commit(record.private, record.subject, entropy) if record.private else ()
    private = canonical_json({payload.name: payload.commitment for payload in payloads}) if payloads else b"{}"
    kind = record.kind.value
    prepared = Prepared(
        kind=kind,
        agent=record.agent,
        action=record.action,
        payloads=payloads,
        head=b'{"action":%b,"agent":%b,"at_us":' % (canonical_json(record.action), canonical_json(record.agent)),
        middle=b',"body":%b,"kind":"%b","prev":"' % (canonical_json(dict(record.body)), kind.encode()),
        tail=b'","private":%b,"session":%b,"v":%d}' % (private, canonical_json(record.session), ENTRY_VERSION),
    )
    if prepared.bytes_max > ENTRY_BYTES_MAX:
        raise _too_large(f"a record of {prepared.bytes_max} bytes; an entry holds {ENTRY_BYTES_MAX}")
    return prepared


def commit(private: Mapping[str, str], subject: str | None, entropy: Entropy) -> tuple[Payload, ...]:
    """Each payload with a salt of its own, so that equal payloads have unequal commitments and none can be guessed."""
    if len(private) > PAYLOADS_MAX:
        raise _too_large(f"{len(private)} private payloads; a record has at most {PAYLOADS_MAX}")
    _check_length("subject", subject, SUBJECT_CHARACTERS_MAX)
    payloads = []
    for name, text in private.items():
        _check_length("name of a private payload", name, PAYLOAD_NAME_CHARACTERS_MAX)
        data, salt = _utf8(text), entropy(SALT_BYTES)
        if len(data) > PAYLOAD_BYTES_MAX:
            raise _too_large(f"the private payload {name!r} of {len(data)} bytes; one has at most {PAYLOAD_BYTES_MAX}")
        payloads.append(Payload(name, commitment(salt, data), salt, data, subject))
    return tuple(payloads)


def commitment(salt: bytes, data: bytes) -> str:
    return sha256(salt + data).hexdigest()


def parse(entry: bytes) -> dict[str, Any]:
    """The value of an entry. Errors: DOCUMENT_INVALID."""
    try:
        value = json.loads(entry)
    except ValueError as error:
        raise CohortError("DOCUMENT_INVALID", f"an entry is not JSON: {error}", hint="Verify the log.") from error
    if not isinstance(value, dict):
        raise CohortError("DOCUMENT_INVALID", "an entry is not a JSON object", hint="Verify the log.")
    return value


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CohortError("VALUE_NOT_CANONICAL", "a private payload is not UTF-8", hint="Send plain text.") from error


def _check_length(what: str, text: str | None, most: int) -> None:
    if text is not None and len(text) > most:
        raise CohortError("FIELD_INVALID", f"{what} of {len(text)} characters", field=what, hint=f"Use at most {most} characters.")


def _too_large(what: str) -> CohortError:
    return CohortError("RECORD_TOO_LARGE", f"the log was asked to take {what}; nothing was written", hint="Put less into the record.")
