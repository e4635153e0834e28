"""Upstream keys: references (`env:NAME`, `file:/path`) resolved when they are needed. Never logged, never in an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cohort.base.clock import Clock
from cohort.gateway.dialects.operations import KEY_LINES

KEY_BYTES_MAX = 16 << 10
OWN_PREFIX = "COHORT_"
"""Variables of Cohort itself, some of which hold secrets: no release may have one sent to its upstream."""


class KeyMissing(Exception):
    """A reference leads to no usable key. The message names the reference only."""


class Keys:
    """Resolved keys, looked up again after `fresh_s` so that a replaced file is noticed.

    Whoever may create a release chooses both the reference and the server that its key is sent to. So Cohort's own variables, and the
    files in the folders `own` (its own secrets), are never a key.
    """

    def __init__(self, environment: Mapping[str, str], clock: Clock, fresh_s: float, own: Sequence[Path] = ()) -> None:
        self._environment = environment
        self._clock = clock
        self._fresh_s = fresh_s
        self._own = [folder.resolve() for folder in own]
        self._lines: dict[tuple[str, str], tuple[bytes, float]] = {}

    def authorization(self, reference: str | None, provider: str = "openai") -> bytes:
        """The header line that gives a provider the key of a reference; empty when there is none.

        Raises:
            KeyMissing: nothing there, or not a key.
        """
        if reference is None:
            return b""
        known = self._lines.get((provider, reference))
        now_s = self._clock.monotonic_s()
        if known is not None and now_s - known[1] < self._fresh_s:
            return known[0]
        line = KEY_LINES[provider].format(self._resolve(reference)).encode()
        self._lines[provider, reference] = (line, now_s)
        return line

    def _resolve(self, reference: str) -> str:
        kind, _, name = reference.partition(":")
        if kind == "env" and name.startswith(OWN_PREFIX):
            raise KeyMissing(f"{reference} is Cohort's own and never sent to an upstream")
        if kind == "env":
            key = self._environment.get(name, "").strip()
        elif kind == "file":
            key = self._read(reference, Path(name))
        else:
            raise KeyMissing("the key of an upstream is written as env:NAME or file:/path")
        if not key or not key.isascii() or not key.isprintable():
            raise KeyMissing(f"{reference} holds no usable key")
        return key

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
