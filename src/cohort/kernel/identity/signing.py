"""The Ed25519 keys that tokens are signed with: one file each in a private folder; the newest signs, the one before it is still believed."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cohort.base.canonical import canonical_json
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy

KEYS_ACTIVE_MAX = 2
SEED_BYTES = 32

_FILE = re.compile(r"(\d{10})-([A-Za-z0-9_-]{43})\.pem")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`kid`: the RFC 7638 thumbprint of the public half. `number`: grows with every rotation."""

    kid: str
    number: int
    private: Ed25519PrivateKey
    public: Ed25519PublicKey

    def jwk(self) -> dict[str, Any]:
        return {**_public_jwk(self.public), "kid": self.kid, "alg": "EdDSA", "use": "sig"}


class SigningKeys:
    """Safe to use from many threads, and from many processes that share the folder: a change of the folder is seen at the next use."""

    def __init__(self, folder: Path, entropy: Entropy) -> None:
        """Opens the folder, or makes it, with no key in it. Errors: CONFIG_INVALID: others may read it, or a key in it is damaged."""
        self._folder = folder
        self._entropy = entropy
        self._lock = threading.Lock()
        self._seen_ns = -1
        self._keys: tuple[SigningKey, ...] = ()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._load()

    @property
    def empty(self) -> bool:
        return not self._current()

    def newest(self) -> SigningKey:
        """The key that signs. Errors: CONFIG_INVALID: there is none."""
        keys = self._current()
        if not keys:
            raise CohortError(
                "CONFIG_INVALID",
                f"{self._folder} holds no key to sign tokens with",
                hint="Restart control; it makes one when there is none.",
            )
        return keys[0]

    def find(self, kid: str) -> SigningKey | None:
        """The active key called `kid`."""
        return next((key for key in self._current() if key.kid == kid), None)

    def draw(self) -> SigningKey:
        """A new key, not in force yet: only `adopt` makes it so."""
        private = Ed25519PrivateKey.from_private_bytes(self._entropy(SEED_BYTES))
        keys = self._current()
        return _key(private, keys[0].number + 1 if keys else 1)

    def adopt(self, key: SigningKey) -> None:
        """Sign with `key` from now on; the one before stays believed, older ones do not. Errors: DISK_FULL."""
        name = f"{key.number:010d}-{key.kid}.pem"
        _write(self._folder / name, key.private)
        with self._lock:
            self._load()
        for old in _names(self._folder)[KEYS_ACTIVE_MAX:]:
            (self._folder / old).unlink(missing_ok=True)

    def jwks(self) -> Mapping[str, Any]:
        """The public halves in force, RFC 7517, the one that signs first."""
        return {"keys": [key.jwk() for key in self._current()]}

    def _current(self) -> tuple[SigningKey, ...]:
        with self._lock:
            if self._folder.stat().st_mtime_ns != self._seen_ns:
                self._load()
            return self._keys

    def _load(self) -> None:
        seen_ns = self._folder.stat().st_mtime_ns
        known = {key.kid: key for key in self._keys}
        names = _names(self._folder)[:KEYS_ACTIVE_MAX]
        self._keys = tuple(known.get(_split(name)[1]) or _read(self._folder / name) for name in names)
        self._seen_ns = seen_ns


def thumbprint(public: Ed25519PublicKey) -> str:
    """RFC 7638: SHA-256 over the required members in canonical JSON, base64url."""
    return _base64url(hashlib.sha256(canonical_json(_public_jwk(public))).digest())


def _public_jwk(public: Ed25519PublicKey) -> dict[str, str]:
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}


def _key(private: Ed25519PrivateKey, number: int) -> SigningKey:
    public = private.public_key()
    return SigningKey(thumbprint(public), number, private, public)


def _names(folder: Path) -> list[str]:
    """The files of keys, newest first."""
    return sorted((entry.name for entry in folder.iterdir() if _FILE.fullmatch(entry.name)), reverse=True)


def _split(name: str) -> tuple[int, str]:
    found = _FILE.fullmatch(name)
    if found is None:
        raise ValueError(f"{name} is not the name of a key's file")
    return int(found[1]), found[2]


def _read(path: Path) -> SigningKey:
    number, kid = _split(path.name)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise _unusable(path, "others may read it", f"Run `chmod 600 {path}`, and rotate it if somebody did.")
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise _unusable(path, "it is damaged", "Restore it from a backup, or remove it: its tokens are then refused.") from error
    if not isinstance(private, Ed25519PrivateKey) or _key(private, number).kid != kid:
        raise _unusable(path, "its contents are not what its name says", "Restore it from a backup, or remove it.")
    return _key(private, number)


def _unusable(path: Path, why: str, hint: str) -> CohortError:
    return CohortError("CONFIG_INVALID", f"the key {path} cannot be used: {why}", hint=hint)


def _write(path: Path, private: Ed25519PrivateKey) -> None:
    data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Commit point: before this line the key signs nothing, after it everything.
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CohortError("DISK_FULL", f"the key {path} cannot be written: {error.strerror}", hint="Free space on its disk.") from error
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
