"""An anchor that is a time-stamping authority (RFC 3161): its token says that the checkpoint existed at a moment, and was not made up later.

The authority keeps nothing. Its token is the receipt, and stands in the log's own database: who can roll that back rolls the token back too.
What a token shows for good, offline, to anybody who trusts the authority's certificate, is since when the records under it are what they are.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder, VerificationError, VerifierBuilder, decode_timestamp_response

from cohort.base.errors import CohortError
from cohort.kernel.audit.anchoring import Prove, Sent, failed

ANSWER_WAIT_S = 10.0
TOKEN_BYTES_MAX = 24 << 10
CERTIFICATES_BYTES_MAX = 256 << 10
PAUSE_S = 3600.0
"""Stamps are for good and often cost something: one an hour is enough to say when."""
QUERY, REPLY = "application/timestamp-query", "application/timestamp-reply"

Receipts = Callable[[], Sequence[str]]
"""The newest receipts of this anchor, oldest first."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """The authority's certificates, from a PEM file: those that sign themselves are believed, the others lead to them."""

    roots: tuple[x509.Certificate, ...]
    others: tuple[x509.Certificate, ...]

    def stamped(self, token: bytes, note: str, nonce: int | None = None) -> datetime:
        """When the token says that `note` existed. Errors: ValueError: it says nothing that can be believed."""
        response = decode_timestamp_response(token)
        builder = VerifierBuilder(roots=list(self.roots), intermediates=list(self.others), nonce=nonce)
        try:
            builder.build().verify_message(response, note.encode())
        except VerificationError as error:
            raise ValueError(str(error)) from error
        return response.tst_info.gen_time.astimezone(UTC)


def read_certificates(path: Path) -> Trusted:
    """Errors: ValueError."""
    try:
        with path.open("rb") as file:
            found = x509.load_pem_x509_certificates(file.read(CERTIFICATES_BYTES_MAX))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    roots = tuple(one for one in found if one.issuer == one.subject)
    if not roots:
        raise ValueError(f"{path} holds no certificate that signs itself")
    return Trusted(roots, tuple(one for one in found if one.issuer != one.subject))


class StampAnchor:
    """`name` is as configured, `rfc3161:https://host/path`."""

    pause_s = PAUSE_S

    def __init__(self, name: str, url: str, trusted: Trusted, receipts: Receipts) -> None:
        self.name = name
        self._url = urlsplit(url)
        self._trusted = trusted
        self._receipts = receipts

    def send(self, note: str, _size: int, _prove: Prove) -> Sent:
        """Errors: ANCHOR_FAILED, also for a token that does not verify."""
        request = TimestampRequestBuilder().data(note.encode()).hash_algorithm(HashAlgorithm.SHA256).nonce(nonce=True).build()
        token = self._ask(request.as_bytes())
        try:
            at = self._trusted.stamped(token, note, request.nonce)
        except ValueError as error:
            raise failed(self.name, f"gave no time stamp to believe: {error}", "Look at its certificate in the settings.") from error
        receipt = json.dumps({"note": note, "token": base64.b64encode(token).decode()}, ensure_ascii=False)
        return Sent(f"stamped at {_text(at)}", receipt, f"sha256:{sha256(token).hexdigest()}")

    def notes(self) -> Sequence[str]:
        """The checkpoints that tokens kept here are for. Errors: ANCHOR_FAILED: one of them does not verify."""
        return [note for note, _ in self._stamps()]

    def said(self) -> str:
        """Since when the newest one is stamped. Errors: as `notes`."""
        stamps = self._stamps()
        return (
            f"{self.name} has stamped nothing yet"
            if not stamps
            else f"{self.name} stamped {_size(stamps[-1][0])} records at {_text(stamps[-1][1])}"
        )

    def _stamps(self) -> list[tuple[str, datetime]]:
        return [self._stamp(receipt) for receipt in self._receipts()]

    def _stamp(self, receipt: str) -> tuple[str, datetime]:
        try:
            said = json.loads(receipt)
            note, token = str(said["note"]), base64.b64decode(said["token"], validate=True)
            return note, self._trusted.stamped(token, note)
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            what = f"has a token here that does not verify: {error}"
            raise failed(
                self.name, what, "Give the settings the certificate it was made under, or look who has changed the token."
            ) from error

    def _ask(self, query: bytes) -> bytes:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        channel = kind(self._url.hostname or "", self._url.port, timeout=ANSWER_WAIT_S)
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            channel.request("POST", path, query, {"Content-Type": QUERY, "Accept": REPLY})
            answer = channel.getresponse()
            token = answer.read(TOKEN_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            raise failed(self.name, f"cannot be reached: {error}", "Correct its address, or wait until it answers.") from error
        finally:
            channel.close()
        if answer.status != 200 or len(token) > TOKEN_BYTES_MAX:
            raise self._refused(answer.status, len(token))
        return token

    def _refused(self, status: int, length: int) -> CohortError:
        return failed(
            self.name, f"answered {status} with {length} bytes", f"It has to answer with a token of at most {TOKEN_BYTES_MAX} bytes."
        )


def _size(note: str) -> str:
    return note.split("\n")[1]


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
