"""C2SP tlog-proof: one file that shows that one entry is in the log, without the log."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.kernel.audit.merkle import HASH_BYTES, PROOF_HASHES_MAX, leaf_hash, root_from_inclusion
from cohort.kernel.audit.notes import Checkpoint, Verifier, base64_bytes, open_checkpoint

FIRST_LINE = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """`entry`: the leaf's data, in the file's `extra` line. `note`: the signed checkpoint the path leads to."""

    index: int
    entry: bytes
    path: tuple[bytes, ...]
    note: str

    @property
    def text(self) -> str:
        lines = [FIRST_LINE, f"extra {base64.b64encode(self.entry).decode()}", f"index {self.index}"]
        lines += [base64.b64encode(hashed).decode() for hashed in self.path]
        return "\n".join(lines) + "\n\n" + self.note


def parse_proof(text: str) -> TlogProof:
    """Nothing is verified. Errors: DOCUMENT_INVALID."""
    top, _, note = text.partition("\n\n")
    lines = top.split("\n")
    if len(lines) < 3 or lines[0] != FIRST_LINE or not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        raise _wrong(f"it does not begin with {FIRST_LINE}, `extra` and `index`")
    number = lines[2].removeprefix("index ")
    if not (number.isascii() and number.isdigit()) or len(number) > 19 or str(int(number)) != number:
        raise _wrong("its index is not a number")
    path = tuple(base64_bytes(line) for line in lines[3:])
    if len(path) > PROOF_HASHES_MAX or any(len(hashed) != HASH_BYTES for hashed in path):
        raise _wrong("its path is not made of hashes")
    return TlogProof(int(number), base64_bytes(lines[1].removeprefix("extra ")), path, note)


def verify_proof(text: str, verifier: Verifier) -> Checkpoint:
    """The checkpoint that the entry in `text` is proven to be under. Errors: DOCUMENT_INVALID: it proves nothing."""
    proof = parse_proof(text)
    checkpoint = open_checkpoint(proof.note, verifier)
    if root_from_inclusion(leaf_hash(proof.entry), proof.index, checkpoint.size, proof.path) != checkpoint.root:
        raise _wrong(f"entry {proof.index} is not in the log of {checkpoint.size} records that was signed")
    return checkpoint


def _wrong(what: str) -> CohortError:
    return CohortError("DOCUMENT_INVALID", f"not a proof: {what}", hint="Use the file exactly as `cohort audit prove` wrote it.")
