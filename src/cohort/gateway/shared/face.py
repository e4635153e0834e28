"""Everything that the workers of a machine share besides budgets, in one directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.gateway.log import Log
from cohort.gateway.shared.erasures import Erasures
from cohort.gateway.shared.fingerprints import Fingerprints
from cohort.gateway.spend.book import BookUnavailable

GIVEN_MAX = 1 << 18
"""Ids of upstreams' responses and of what is in them, of which is known whose they are."""


@dataclass(frozen=True, slots=True)
class Shared:
    """`erasures`: None where the file cannot be had; each worker then knows only what it was told itself."""

    directory: Path
    erasures: Erasures | None
    given: Fingerprints


def open_shared(directory: Path, clock: Clock, log: Log) -> Shared:
    """Open what every worker looks at; the rest when it is first needed. What cannot be opened is said in the log."""
    try:
        erasures = Erasures(directory / "shared" / "erasures", clock)
    except BookUnavailable as error:
        erasures = None
        log.write("not_shared", what="erasures", reason=str(error))
    return Shared(directory, erasures, Fingerprints(directory / "shared" / "given", GIVEN_MAX, clock))
