"""Frozen baselines over restarts: one small file, written whole beside its place and renamed."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

import orjson

from cohort.gateway.cache.semantic.drift import Counts

BASELINES_MAX = 1024
DIGEST_CHARS = 32


class Baselines:
    """Counts by service, release and measure, the newest BASELINES_MAX. What is damaged is taken again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, list[int]] = {}
        self._unwritten = False

    def load(self) -> None:
        """Take in what a former process froze. Raises OSError."""
        try:
            digest, _, text = self._path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return
        if digest.decode("ascii", "replace") == _digest(text):
            self._held = orjson.loads(text)

    def find(self, service: str, release: str, measure: str) -> Counts | None:
        found = self._held.get(_name(service, release, measure))
        return Counts(*found) if found is not None else None

    def freeze(self, service: str, release: str, measure: str, counts: Counts) -> None:
        """Kept from the next `sync` on."""
        held = {**self._held, _name(service, release, measure): [counts.count, counts.total]}
        self._held = dict(list(held.items())[-BASELINES_MAX:])
        self._unwritten = True

    def sync(self) -> None:
        """Bring what was frozen to disk, from any thread. Raises OSError: it is tried again with the next call."""
        if not self._unwritten:
            return
        self._unwritten = False
        try:
            self._write(orjson.dumps(self._held))
        except OSError:
            self._unwritten = True
            raise

    def _write(self, text: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".fresh")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_digest(text).encode() + b"\n" + text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)  # Commit point.


def _name(service: str, release: str, measure: str) -> str:
    return "\n".join((service, release, measure))


def _digest(text: bytes) -> str:
    return blake2b(text, digest_size=DIGEST_CHARS // 2, person=b"cohort base").hexdigest()
