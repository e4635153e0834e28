"""Signed notes and checkpoints: C2SP signed-note, tlog-checkpoint and the Ed25519 part of tlog-cosignature.

A key as text is a vkey, `NAME+KEYID+BASE64`; a secret one has `PRIVATE+KEY+` before it, as the Go tools write it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cohort.base.errors import CohortError

ED25519 = 0x01
COSIGNATURE = 0x04
NOTE_BYTES_MAX = 64 << 10
SIGNATURES_MAX = 32
NAME_CHARACTERS_MAX = 200
SECRET_PREFIX = "PRIVATE+KEY+"  # noqa: S105
SIGNATURE_MARK = "— "


def wrong(what: str) -> CohortError:
    """DOCUMENT_INVALID, in the words of this module."""
    return CohortError("DOCUMENT_INVALID", f"not a signed note: {what}", hint="Use the text exactly as the log wrote it.")


def base64_bytes(text: str) -> bytes:
    """Strict standard Base 64. Errors: DOCUMENT_INVALID."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong("it holds something that is not Base 64") from error
    if base64.b64encode(data).decode() != text:
        raise wrong("it holds Base 64 with stray bits")
    return data


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """The first four bytes of SHA-256 over name, newline, kind and public key."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def check_name(name: str) -> str:
    """A key name or origin that every tool can read. Errors: FIELD_INVALID."""
    if not name or len(name) > NAME_CHARACTERS_MAX or "+" in name or not name.isprintable() or any(mark.isspace() for mark in name):
        what = f"{name!r} cannot name a log or a witness"
        raise CohortError("FIELD_INVALID", what, field="origin", hint="Use a name like example.com/audit: no spaces, no plus sign.")
    return name


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. `value`: what follows the key id; a cosignature begins with its time."""

    name: str
    id: bytes
    value: bytes

    @property
    def line(self) -> str:
        return f"{SIGNATURE_MARK}{self.name} {base64.b64encode(self.id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """`text` is what the signatures are over; it ends with a newline."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(signature.line for signature in self.signatures)


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key. `kind`: ED25519 for a log's own signatures, COSIGNATURE for a witness's."""

    name: str
    kind: int
    public: bytes
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", key_id(self.name, self.kind, self.public))

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    def signs(self, signature: Signature) -> bool:
        """Whether the line claims to be by this key."""
        return signature.name == self.name and signature.id == self.id

    def verify(self, text: str, signature: Signature) -> bool:
        message, value = text.encode(), signature.value
        if self.kind == COSIGNATURE:
            message, value = cosigned(text, int.from_bytes(value[:8], "big")), value[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(value, message)
        except InvalidSignature:
            return False
        return self.signs(signature)


def cosigned(text: str, at_s: int) -> bytes:
    """What a witness signs: the checkpoint's text with the time before it."""
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()


def _key(text: str) -> tuple[str, int, bytes]:
    name, _, rest = text.strip().partition("+")
    said, _, encoded = rest.partition("+")
    data = base64_bytes(encoded)
    if len(data) != 33 or data[0] not in (ED25519, COSIGNATURE) or not name:
        raise wrong("the key is not an Ed25519 key of the form NAME+KEYID+BASE64")
    if len(said) != 8:
        raise wrong("the key's id does not have 8 hexadecimal digits")
    return name, data[0], data[1:]


def parse_vkey(text: str) -> Verifier:
    """Errors: DOCUMENT_INVALID."""
    verifier = Verifier(*_key(text))
    if verifier.vkey != text.strip():
        raise wrong("the key's id does not belong to its name and bytes")
    return verifier


@dataclass(frozen=True, slots=True)
class Signer:
    """A secret key with its name."""

    verifier: Verifier
    _secret: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, seed: bytes, kind: int = ED25519) -> Signer:
        secret = Ed25519PrivateKey.from_private_bytes(seed)
        public = secret.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return cls(Verifier(check_name(name), kind, public), secret)

    @property
    def text(self) -> str:
        """The secret key as text. Keep it private."""
        seed = self._secret.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        encoded = base64.b64encode(bytes([self.verifier.kind]) + seed).decode()
        return f"{SECRET_PREFIX}{self.verifier.name}+{self.verifier.id.hex()}+{encoded}"

    def sign(self, text: str) -> Signature:
        """A log's signature over a note's text."""
        return Signature(self.verifier.name, self.verifier.id, self._secret.sign(text.encode()))

    def cosign(self, text: str, at_s: int) -> Signature:
        """A witness's signature over a checkpoint's text, with the time."""
        value = at_s.to_bytes(8, "big") + self._secret.sign(cosigned(text, at_s))
        return Signature(self.verifier.name, self.verifier.id, value)


def parse_signer(text: str) -> Signer:
    """The secret key in `text`. Errors: DOCUMENT_INVALID; the text is never part of the message."""
    if not text.startswith(SECRET_PREFIX):
        raise wrong("not a secret key: it does not begin with PRIVATE+KEY+")
    name, kind, seed = _key(text.removeprefix(SECRET_PREFIX))
    signer = Signer.of(name, seed, kind)
    if signer.text != text.strip():
        raise wrong("the secret key's id does not belong to its name and bytes")
    return signer


def parse_note(text: str) -> Note:
    """Text and signature lines; no signature is verified. Errors: DOCUMENT_INVALID."""
    if len(text.encode(errors="replace")) > NOTE_BYTES_MAX:
        raise wrong(f"it is longer than {NOTE_BYTES_MAX} bytes")
    if any(mark < " " and mark != "\n" for mark in text):
        raise wrong("it holds control characters")
    body, blank, signed = text.rpartition("\n\n")
    if not blank or not signed.endswith("\n"):
        raise wrong("it has no signatures")
    lines = signed[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise wrong(f"it has more than {SIGNATURES_MAX} signatures")
    return Note(body + "\n", tuple(parse_signature(line) for line in lines))


def parse_signature(line: str) -> Signature:
    """Errors: DOCUMENT_INVALID."""
    name, _, encoded = line.removeprefix(SIGNATURE_MARK).partition(" ")
    if not line.startswith(SIGNATURE_MARK) or not name or "+" in name:
        raise wrong(f"{line[:40]!r} is not a signature line")
    data = base64_bytes(encoded)
    if len(data) < 5:
        raise wrong("a signature is too short")
    return Signature(name, data[:4], data[4:])


def signed_by(note: Note, verifiers: Sequence[Verifier]) -> tuple[Verifier, ...]:
    """Which of the keys have signed; a wrong signature by one of them spoils the whole note.

    Raises:
        CohortError DOCUMENT_INVALID: a line claims a key of ours and its signature is wrong.
    """
    found = []
    for signature in note.signatures:
        for verifier in verifiers:
            if not verifier.signs(signature):
                continue
            if not verifier.verify(note.text, signature):
                raise wrong(f"the signature by {verifier.name} is wrong")
            found.append(verifier)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How large a log was, and its root then."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def signed(self, *signers: Signer) -> Note:
        text = self.text
        return Note(text, tuple(signer.sign(text) for signer in signers))


def parse_checkpoint(text: str) -> Checkpoint:
    """A checkpoint's text, without signatures; extension lines are ignored. Errors: DOCUMENT_INVALID."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise wrong("a checkpoint has at least three lines, none of them empty")
    origin, size, root = lines[:3]
    if not (size.isascii() and size.isdigit()) or str(int(size[:20])) != size or int(size) >= 1 << 63:
        raise wrong(f"{size[:20]!r} is not a size")
    hashed = base64_bytes(root)
    if len(hashed) != 32:
        raise wrong("the root does not have 32 bytes")
    return Checkpoint(origin, int(size), hashed)


def open_checkpoint(text: str, verifier: Verifier) -> Checkpoint:
    """The checkpoint in a note that `verifier` has signed and whose origin is the key's name.

    Raises:
        CohortError DOCUMENT_INVALID: anything about it is wrong.
    """
    note = parse_note(text)
    if verifier not in signed_by(note, [verifier]):
        names = ", ".join(sorted({f"{signature.name} ({signature.id.hex()})" for signature in note.signatures}))
        raise wrong(f"it is not signed by the log's key {verifier.name} ({verifier.id.hex()}) but by {names}")
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != verifier.name:
        raise wrong(f"its origin is {checkpoint.origin}, not {verifier.name}")
    return checkpoint
