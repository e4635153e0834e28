"""Verifies an exported audit log, or a proof of one entry, without Cohort. Needs Python 3.9 or newer and the package `cryptography`.

    python verifier.py FOLDER [--key VKEY]      a folder written by `cohort audit export`
    python verifier.py --proof FILE --key VKEY  a proof written by `cohort audit prove`

VKEY is the log's public key as you know it from elsewhere. Without it, the key in the folder is used, and who could change the folder
could have changed that key too. `--key` can be repeated, and names a key of a log whose keys were changed together with the sizes that it
signs, as `cohort audit key` prints it: --key 'VKEY since 1205'. Each one that signs at a checkpoint's size has to have signed it.
Exit status: 0 whole, 3 not whole, 2 the command was wrong.

Formats: C2SP signed-note, tlog-checkpoint, tlog-tiles, tlog-proof; hashes of RFC 6962.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import base64
import binascii
import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WHOLE, WRONG, USAGE = 0, 3, 2
TILE = 256
ED25519 = 1
PROOF = "c2sp.org/tlog-proof@v1"
NO_LEAF = "0" * 64


class Wrong(Exception):
    """What is not whole, in one sentence."""


class Key(NamedTuple):
    """A public key of the log. `id`: the first four bytes of its hash, as signatures name it. It signs sizes from `since` to `until`."""

    name: str
    id: bytes
    public: bytes
    text: str
    since: int = 0
    until: int | None = None

    def signs(self, size: int) -> bool:
        return self.since <= size and (self.until is None or size <= self.until)


class Checkpoint(NamedTuple):
    """What the log's key has signed."""

    origin: str
    size: int
    root: bytes


def decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong(f"{text[:40]!r} is not Base 64") from None


def parse_key(line: str) -> Key:
    """`VKEY`, `VKEY since SIZE`, `VKEY until SIZE` or `VKEY since SIZE until SIZE`."""
    text, *rest = line.split()
    sizes = dict(zip(rest[::2], rest[1::2]))  # noqa: B905 - Python 3.9
    if len(rest) != 2 * len(sizes) or not set(sizes) <= {"since", "until"} or not all(size.isdigit() for size in sizes.values()):
        raise Wrong(f"{line.strip()[:200]!r}: behind a key stands `since SIZE`, `until SIZE`, both or nothing")
    key, until = parse_vkey(text), sizes.get("until")
    return key._replace(since=int(sizes.get("since", 0)), until=None if until is None else int(until))


def parse_vkey(text: str) -> Key:
    name, _, rest = text.partition("+")
    said, _, encoded = rest.partition("+")
    data = decoded(encoded)
    key_id = sha256(name.encode() + b"\n" + data).digest()[:4]
    if len(data) != 33 or data[0] != ED25519 or key_id.hex() != said:
        raise Wrong(f"{text[:80]!r} is not an Ed25519 key of a log")
    return Key(name, key_id, data[1:], text)


def open_note(note: str, keys: list[Key]) -> Checkpoint:
    """The checkpoint in a note, the signatures by all of `keys` that sign at its size verified."""
    body, blank, _ = note.rpartition("\n\n")
    if not blank:
        raise Wrong("the checkpoint has no signature")
    checkpoint = parse_checkpoint(body + "\n", keys[0])
    needed = [key for key in keys if key.signs(checkpoint.size)]
    if not needed:
        raise Wrong(f"none of the keys signs checkpoints of {checkpoint.size} records")
    for key in needed:
        verify_signature(note, key)
    return checkpoint


def verify_signature(note: str, key: Key) -> None:
    body, _, signatures = note.rpartition("\n\n")
    text = body + "\n"
    for line in signatures.splitlines():
        parts = line.split(" ")
        if len(parts) == 3 and parts[0] == "\u2014" and parts[1] == key.name:
            value = decoded(parts[2])
            if value[:4] == key.id:
                try:
                    Ed25519PublicKey.from_public_bytes(key.public).verify(value[4:], text.encode())
                except InvalidSignature:
                    raise Wrong(f"the checkpoint's signature by {key.name} is wrong") from None
                return
    raise Wrong(f"the checkpoint is not signed by {key.name} ({key.id.hex()})")


def parse_checkpoint(text: str, key: Key) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or not lines[1].isdigit() or len(decoded(lines[2])) != 32:
        raise Wrong("the signed text is not a checkpoint")
    if lines[0] != key.name:
        raise Wrong(f"the checkpoint is of {lines[0]!r}, not of {key.name!r}")
    return Checkpoint(lines[0], int(lines[1]), decoded(lines[2]))


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """Grows leaf by leaf; remembers the roots of its complete subtrees."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        rest = self.size
        while rest & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            rest >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self.peaks:
            return sha256(b"").digest()
        hashed = self.peaks[-1]
        for left in reversed(self.peaks[:-1]):
            hashed = node_hash(left, hashed)
        return hashed


def tile_path(index: int, width: int) -> str:
    digits = str(index).zfill((len(str(index)) + 2) // 3 * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join(["x" + part for part in parts[:-1]] + parts[-1:])
    return path if width == TILE else f"{path}.p/{width}"


def read_tile(folder: Path, kind: str, index: int, width: int) -> bytes:
    path = folder / "tile" / kind / tile_path(index, width)
    try:
        return path.read_bytes()
    except OSError as error:
        raise Wrong(f"records from {index * TILE} on cannot be read: {path}: {error.strerror}") from None


def unbundled(data: bytes, first: int, width: int) -> list[bytes]:
    """The entries of one bundle, each behind its length in two bytes."""
    at = 0
    entries: list[bytes] = []
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            raise Wrong(f"record {first + len(entries)} is cut off")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != width:
        raise Wrong(f"there should be {width} records from {first} on; the bundle holds {len(entries)}")
    return entries


def records(folder: Path, size: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Each entry with its index and the leaf hash in the tile beside it."""
    for number in range((size + TILE - 1) // TILE):
        width = min(TILE, size - number * TILE)
        entries = unbundled(read_tile(folder, "entries", number, width), number * TILE, width)
        hashes = read_tile(folder, "0", number, width)
        if len(hashes) != 32 * width:
            raise Wrong(f"the tile of leaf hashes from record {number * TILE} on has {len(hashes)} bytes, not {32 * width}")
        for place, entry in enumerate(entries):
            yield number * TILE + place, entry, hashes[32 * place : 32 * place + 32]


def parsed(entry: bytes) -> dict[str, object]:
    try:
        value = json.loads(entry)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def key_event(value: dict[str, object]) -> tuple[object, str] | None:
    """What a record says about the log's own keys: the event and the key."""
    body = value.get("body")
    if value.get("kind") != "key" or not isinstance(body, dict) or not str(body.get("event")).startswith("audit_key_"):
        return None
    return body["event"], str(body.get("vkey"))


def verify_events(note: str, events: list[tuple[int, object, str]], keys: list[Key]) -> None:
    """The keys are those that the log itself says are active: none it has retired, and all that it has added."""
    active: dict[str, int] = {}
    for index, event, vkey in events:
        if event == "audit_key_added":
            active[vkey] = index
        else:
            active.pop(vkey, None)
            if any(key.text == vkey and key.until is None for key in keys):
                raise Wrong(f"the checkpoint is signed by a key that record {index} has retired: {vkey}")
    for vkey in active:
        verify_signature(note, parse_vkey(vkey))


def verify_folder(folder: Path, keys: list[Key]) -> str:
    try:
        note = (folder / "checkpoint").read_text(encoding="utf-8")
        checkpoint = open_note(note, keys)
    except (OSError, UnicodeDecodeError) as error:
        raise Wrong(f"the checkpoint cannot be read: {error}") from None
    tree, before, events = Tree(), NO_LEAF, []
    for index, entry, stored in records(folder, checkpoint.size):
        leaf = leaf_hash(entry)
        if leaf != stored:
            raise Wrong(f"record {index} was edited, or the leaf hash beside it: they do not belong together")
        value = parsed(entry)
        if value.get("prev") != before:
            raise Wrong(f"record {index} does not follow the one before it: records were edited, removed or reordered")
        if (event := key_event(value)) is not None:
            events.append((index, *event))
        tree.append(leaf)
        before = leaf.hex()
    verify_events(note, events, keys)
    if tree.root() != checkpoint.root:
        raise Wrong(f"the {checkpoint.size} records do not lead to the root that was signed: some were replaced")
    return f"whole: {checkpoint.size} records of {checkpoint.origin}, root {checkpoint.root.hex()}"


def root_of_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """RFC 9162, 2.1.3.2; None when the path has the wrong length."""
    if index >= size:
        return None
    here, last, hashed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if here & 1 or here == last:
            hashed = node_hash(sibling, hashed)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            hashed = node_hash(hashed, sibling)
        here, last = here >> 1, last >> 1
    return hashed if last == 0 else None


def verify_proof(text: str, keys: list[Key]) -> str:
    top, _, note = text.partition("\n\n")
    lines = top.split("\n")
    if len(lines) < 3 or lines[0] != PROOF or lines[1][:6] != "extra " or lines[2][:6] != "index " or not lines[2][6:].isdigit():
        raise Wrong("the file is not a proof of one entry")
    entry, index = decoded(lines[1][6:]), int(lines[2][6:])
    checkpoint = open_note(note, keys)
    root = root_of_path(leaf_hash(entry), index, checkpoint.size, [decoded(line) for line in lines[3:]])
    if root != checkpoint.root:
        raise Wrong(f"entry {index} is not in the log of {checkpoint.size} records that was signed")
    shown = entry.decode("utf-8", "replace")
    return f"proven: entry {index} of {checkpoint.size} in {checkpoint.origin}\n{shown}"


def usage(why: str) -> NoReturn:
    print(f"verifier.py: {why}", file=sys.stderr)
    sys.exit(USAGE)


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        usage(f"{path} cannot be read: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify an exported audit log, or a proof of one entry.")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--proof", type=Path, metavar="FILE", help="verify one entry's proof instead of a folder")
    parser.add_argument("--key", action="append", metavar="VKEY", help="the log's public key, known from elsewhere; can be repeated")
    chosen = parser.parse_args()
    if (chosen.folder is None) == (chosen.proof is None):
        usage("name a folder, or a proof with --proof")
    if chosen.proof is not None and chosen.key is None:
        usage("a proof is verified with --key VKEY")
    try:
        keys = [parse_key(line) for line in chosen.key or read(chosen.folder / "vkey").splitlines() if line.strip()]
        if not keys:
            raise Wrong("there is no key")
        if chosen.key is None:
            print(f"note: the key is taken from the folder itself: {keys[0].name} ({keys[0].id.hex()})", file=sys.stderr)
        print(verify_proof(read(chosen.proof), keys) if chosen.proof is not None else verify_folder(chosen.folder, keys))
    except Wrong as why:
        print(f"not whole: {why}")
        return WRONG
    return WHOLE


if __name__ == "__main__":
    sys.exit(main())
