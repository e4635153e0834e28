"""Everything that the workers of a machine share besides budgets, in one directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cohort.base.clock import Clock
from cohort.gateway.log import Log
from cohort.gateway.shared.erasures import Erasures
from cohort.gateway.shared.fingerprints import Fingerprints
from cohort.gateway.spend.book import Book, BookUnavailable
from cohort.gateway.spend.lockout import WORDS, Lockout

_T = TypeVar("_T")
GIVEN_MAX = 1 << 18
"""Ids of upstreams' responses and of what is in them, of which is known whose they are."""
CONVERSATIONS_MAX = 1 << 17
"""Conversations of which is known whether they got the strong model."""
TRUSTED_MAX = 1 << 14
"""Keys that were good, with the address they came from."""


@dataclass(frozen=True, slots=True)
class Shared:
    """`erasures`: None where the file cannot be had; each worker then knows only what it was told itself."""

    directory: Path
    erasures: Erasures | None
    lockout: Lockout
    given: Fingerprints
    conversations: Fingerprints


def open_shared(directory: Path, clock: Clock, log: Log) -> Shared:
    """Open what every worker looks at; the rest when it is first needed. What cannot be opened is said in the log."""
    folder = directory / "shared"

    def opened(name: str, make: Callable[[Path], _T]) -> _T | None:
        try:
            return make(folder / name)
        except BookUnavailable as error:
            log.write("not_shared", what=name, reason=str(error))
            return None

    trusted = Fingerprints(folder / "trusted", TRUSTED_MAX, clock)
    lockout = Lockout(clock, opened("lockout", lambda path: Book(path, WORDS)), trusted)
    erasures = opened("erasures", lambda path: Erasures(path, clock))
    given, conversations = (
        Fingerprints(folder / "given", GIVEN_MAX, clock),
        Fingerprints(folder / "conversations", CONVERSATIONS_MAX, clock),
    )
    return Shared(directory, erasures, lockout, given, conversations)
