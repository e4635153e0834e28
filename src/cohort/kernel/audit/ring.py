"""The keys of one log over time: which checkpoints each of them has to have signed.

A key signs the checkpoints whose size lies in its term. The terms follow from records of the log itself: a key that record `i` adds signs
from size `i + 1` on, and one that record `i` retires signed up to size `i`. A checkpoint is trusted when every key in whose term it lies has
signed it, so that one key alone, stolen while two are active or after it was retired, makes no checkpoint that is believed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cohort.base.errors import CohortError
from cohort.kernel.audit.notes import Checkpoint, Verifier, parse_checkpoint, parse_note, signed_by, wrong

ACTIVE_MAX = 2
"""One that signs, and its successor while people write that down."""
KEYS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Term:
    """A public key, and the sizes it signs: from `since` to `until`, both included; None while it is active."""

    verifier: Verifier
    since: int = 0
    until: int | None = None

    @property
    def active(self) -> bool:
        return self.until is None

    def holds(self, size: int) -> bool:
        return self.since <= size and (self.until is None or size <= self.until)

    @property
    def text(self) -> str:
        """`VKEY`, `VKEY since N`, `VKEY until M` or `VKEY since N until M`."""
        since = f" since {self.since}" if self.since else ""
        return f"{self.verifier.vkey}{since}" + ("" if self.until is None else f" until {self.until}")


@dataclass(frozen=True, slots=True)
class Ring:
    """Every key the log ever had, oldest first; at least one. All of one name, which is the log's."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, verifier: Verifier) -> Ring:
        """The ring of a log whose key was never changed."""
        return cls((Term(verifier),))

    @property
    def name(self) -> str:
        return self.terms[0].verifier.name

    @property
    def newest(self) -> Verifier:
        """The key to write down."""
        return self.terms[-1].verifier

    @property
    def active(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.active)

    @property
    def size_min(self) -> int:
        """How many records the log had when its keys were last changed. A log with fewer was rolled back, whoever has signed it."""
        return max(max(term.since, 0 if term.until is None else term.until + 1) for term in self.terms)

    @property
    def text(self) -> str:
        """One line for each key, the newest first."""
        return "".join(f"{term.text}\n" for term in reversed(self.terms))

    def find(self, key_id: str) -> Term | None:
        return next((term for term in self.terms if term.verifier.id.hex() == key_id), None)

    def added(self, verifier: Verifier, index: int) -> Ring:
        """With the key that record `index` adds."""
        return Ring((*self.terms, Term(verifier, index + 1)))

    def retired(self, verifier: Verifier, index: int) -> Ring:
        """With the key that record `index` retires."""
        return Ring(tuple(replace(term, until=index) if term.verifier == verifier else term for term in self.terms))

    def open(self, text: str) -> Checkpoint:
        """The checkpoint in a note that is signed by everyone who has to.

        Raises:
            CohortError DOCUMENT_INVALID: anything about it is wrong.
        """
        note = parse_note(text)
        signers = signed_by(note, [term.verifier for term in self.terms])
        checkpoint = parse_checkpoint(note.text)
        if checkpoint.origin != self.name:
            raise wrong(f"its origin is {checkpoint.origin}, not {self.name}")
        needed = [term for term in self.terms if term.holds(checkpoint.size)]
        if (missing := next((term for term in needed or self.terms[-1:] if term.verifier not in signers), None)) is not None:
            raise wrong(f"it is not signed by the log's key {_named(missing.verifier)} but by {self._those(text)}")
        if (stranger := self._stranger(text)) is not None:
            raise wrong(f"it is signed by a key that is not known here, {stranger}: were the log's keys changed elsewhere?")
        return checkpoint

    def _those(self, text: str) -> str:
        """Who has signed, in words."""
        words = []
        for signature in parse_note(text).signatures:
            term = self.find(signature.id.hex())
            retired = f", which was retired after {term.until} records" if term is not None and term.until is not None else ""
            words.append(f"{signature.name} ({signature.id.hex()}){retired}")
        return ", ".join(sorted(words))

    def _stranger(self, text: str) -> str | None:
        """The id of a key of the log's name that is not in the ring."""
        ids = (signature.id.hex() for signature in parse_note(text).signatures if signature.name == self.name)
        return next((key_id for key_id in ids if self.find(key_id) is None), None)


RingNow = Callable[[], Ring | None]
"""The log's ring at this moment; None when its key is missing. It waits while keys are being changed."""


def rolled_back(ring: Ring, size: int) -> str | None:
    """Why a log of `size` records is older than its keys; None when it is not."""
    if size >= ring.size_min:
        return None
    return f"its keys were changed when it had {ring.size_min} records, and it ends after {size}: it was rolled back or cut off"


def _named(verifier: Verifier) -> str:
    return f"{verifier.name} ({verifier.id.hex()})"


def refused(why: str, hint: str) -> CohortError:
    return CohortError("AUDIT_KEY_REFUSED", f"the log's keys stay as they are: {why}", hint=hint)
