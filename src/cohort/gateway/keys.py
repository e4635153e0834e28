"""Upstream keys: references resolved when they are needed. Never logged, never in an error, never in a release.

`env:NAME`: a variable. `file:/path`: a file. `credential:NAME`: one of systemd's (`LoadCredential=`). `keyring:SERVICE/USER`: the operating
system's keyring, where the optional package `keyring` is installed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cohort.base.clock import Clock

KEY_BYTES_MAX = 16 << 10
HIDDEN = b"[key]"
HIDDEN_BYTES_MIN = 8
"""A shorter key would be found in words."""
OWN_PREFIX = "COHORT_"
"""Variables of Cohort itself, some of which hold secrets: no release may have one sent to its upstream."""
BEARER = "authorization: Bearer {}\r\n"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
FORMS = "env:NAME, file:/path, credential:NAME or keyring:SERVICE/USER"
_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


class KeyMissing(Exception):
    """A reference leads to no usable key. The message names the reference only."""


class Keys:
    """Resolved keys, looked up again after `fresh_s` so that a replaced one is noticed.

    Whoever may create a release chooses both the reference and the server that its key is sent to. So Cohort's own variables and
    credentials, and `own` (its own secrets: files, or folders with all that is in them), are never a key.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        clock: Clock,
        fresh_s: float,
        own: Sequence[Path] = (),
        keyring: Callable[[str, str], str | None] | None = None,
    ) -> None:
        self._environment = environment
        self._clock = clock
        self._fresh_s = fresh_s
        self._own = [folder.resolve() for folder in own]
        self._keyring = Keyring(keyring or ask_keyring)
        self._lines: dict[tuple[str, str], tuple[bytes, float]] = {}

    def authorization(self, reference: str | None, key_line: str = BEARER) -> bytes:
        """The header line that gives an upstream the key of a reference; empty when there is none.

        Raises:
            KeyMissing: nothing there, or not a key.
        """
        if reference is None:
            return b""
        known = self._lines.get((key_line, reference))
        now_s = self._clock.monotonic_s()
        if known is not None and now_s - known[1] < self._fresh_s:
            return known[0]
        line = key_line.format(self._resolve(reference)).encode()
        self._lines[key_line, reference] = (line, now_s)
        return line

    def hidden(self, reference: str | None, key_line: str, said: bytes) -> bytes:
        """What an upstream said, without the key that it was sent: some repeat the headers of a request in their errors."""
        known = self._lines.get((key_line, reference)) if reference is not None else None
        if known is None:
            return said
        key = known[0].split()[-1]
        return said.replace(key, HIDDEN) if len(key) >= HIDDEN_BYTES_MIN else said

    def warm(self, references: Iterable[str]) -> None:
        """Read from the keyring what these references name. May block for as long as the keyring does: for a thread."""
        for reference in references:
            kind, _, name = reference.partition(":")
            if kind == "keyring":
                self._keyring.read(name)

    def _resolve(self, reference: str) -> str:
        kind, _, name = reference.partition(":")
        if (kind == "env" and name.startswith(OWN_PREFIX)) or (kind == "credential" and name.lower().startswith("cohort")):
            raise KeyMissing(f"{reference} is Cohort's own and never sent to an upstream")
        if kind == "env":
            key = self._environment.get(name, "").strip()
        elif kind == "file":
            key = self._read(reference, Path(name))
        elif kind == "credential":
            key = self._credential(reference, name)
        elif kind == "keyring":
            key = self._keyring.known(reference, name)
        else:
            raise KeyMissing(f"the key of an upstream is written as {FORMS}")
        if not key or not key.isascii() or not key.isprintable():
            raise KeyMissing(f"{reference} holds no usable key")
        return key

    def _credential(self, reference: str, name: str) -> str:
        folder = self._environment.get(CREDENTIALS)
        if not folder:
            raise KeyMissing(f"{reference}: the service was given no credentials (LoadCredential= of its systemd unit)")
        if not _CREDENTIAL.fullmatch(name):
            raise KeyMissing(f"{reference} is not the name of a credential")
        return self._read(reference, Path(folder) / name)

    def _read(self, reference: str, path: Path) -> str:
        try:
            real = path.resolve(strict=True)
            if any(real.is_relative_to(folder) for folder in self._own):
                raise KeyMissing(f"{reference} is Cohort's own and never sent to an upstream")
            if not real.is_file():  # a pipe or a device could be waited for
                raise KeyMissing(f"{reference} is not a file")
            with real.open(encoding="ascii") as file:
                return file.read(KEY_BYTES_MAX).strip()
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise KeyMissing(f"{reference} cannot be read") from error


class Keyring:
    """What was read from the operating system's keyring. It may ask a person first, so calls never wait for it: a thread reads."""

    def __init__(self, ask: Callable[[str, str], str | None]) -> None:
        self._ask = ask
        self._known: dict[str, tuple[str | None, str]] = {}
        self._reading: set[str] = set()
        self._lock = threading.Lock()

    def known(self, reference: str, name: str) -> str:
        """The key as it was read last; asks for it to be read again."""
        self._read_soon(name)
        with self._lock:
            key, why = self._known.get(name, (None, "is being read from the keyring"))
        if key is None:
            raise KeyMissing(f"{reference} {why}")
        return key

    def read(self, name: str) -> None:
        """Ask the keyring, however long it takes. What was known stays when it does not answer."""
        service, _, user = name.rpartition("/")
        found: str | None = None
        try:
            found = self._ask(service, user)
            why = "is not in the keyring"
        except KeyMissing as error:
            why = str(error)
        with self._lock:
            kept = self._known.get(name)
            if found is not None or kept is None or why == "is not in the keyring":
                self._known[name] = (found, why)
            self._reading.discard(name)

    def _read_soon(self, name: str) -> None:
        with self._lock:
            if name in self._reading:
                return
            self._reading.add(name)
        threading.Thread(target=self.read, args=(name,), name="keyring", daemon=True).start()


def ask_keyring(service: str, user: str) -> str | None:
    """The keyring of this user's session; raises KeyMissing when there is none that can be asked."""
    try:
        import keyring
        import keyring.errors
    except ImportError as error:
        raise KeyMissing("needs the package keyring: in Cohort's checkout, pip install -c requirements.lock keyring") from error
    try:
        return keyring.get_password(service, user)
    except keyring.errors.KeyringLocked as error:
        raise KeyMissing("cannot be read: the keyring is locked; unlock it in its session") from error
    except keyring.errors.NoKeyringError as error:
        raise KeyMissing("cannot be read: this session has no keyring; a service has credential:NAME") from error
    except (keyring.errors.KeyringError, RuntimeError, OSError) as error:
        raise KeyMissing(f"cannot be read: the keyring says {type(error).__name__}") from error
