"""The log as a folder of files, C2SP tlog-tiles: any tool for such logs can read it, and the verifier in it needs nothing of Cohort."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError, Retry
from cohort.kernel.audit.keys import sync_folder
from cohort.kernel.audit.merkle import TILE_HEIGHT, TILE_WIDTH
from cohort.kernel.audit.notes import parse_checkpoint, parse_note
from cohort.kernel.audit.store import Rows
from cohort.storage.database import Database

TILES_AT_ONCE = 64
README = """The audit log of {origin}: {size} records.

    python verifier.py . --key VKEY

VKEY is the log's public key as you know it from elsewhere, such as the paper on which you wrote it down. The file `vkey` holds it too, but
who could change this folder could change that file. The verifier needs Python 3.9 or newer and the package `cryptography`, nothing of Cohort.

checkpoint     size and root of the log, signed (C2SP tlog-checkpoint)
tile/entries/  the records, canonical JSON, each behind its length in two bytes (C2SP tlog-tiles)
tile/0/ ...    the hashes of the tree (RFC 6962)
"""
VERIFIER = Path(__file__).with_name("verifier.py")


def tile_path(index: int, width: int = TILE_WIDTH) -> str:
    """`x001/x234/067`, and `.p/W` behind it for a tile that is not full."""
    digits = str(index).zfill((len(str(index)) + 2) // 3 * 3)
    parts = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    path = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def export(database: Database, note: str, keys: str | None, folder: Path) -> Mapping[str, Any]:
    """Everything under the checkpoint `note`, durably; says what was written. `keys`: the log's public ones, one line each.

    Raises:
        CohortError FIELD_INVALID: the folder is not empty.
        CohortError DISK_FULL: it cannot be written; the folder is then incomplete, without a checkpoint.
    """
    checkpoint = parse_checkpoint(parse_note(note).text)
    size = checkpoint.size
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            what = f"{folder} is not empty"
            raise CohortError("FIELD_INVALID", what, field="folder", hint="Name a folder that is empty or does not exist.")
        tiles = _write_tiles(database, size, folder)
        _write(folder / "verifier.py", VERIFIER.read_bytes())
        _write(folder / "README", README.format(origin=checkpoint.origin, size=size).encode())
        if keys is not None:
            _write(folder / "vkey", keys.encode())
        _write(folder / "checkpoint", note.encode())  # last: a folder with a checkpoint is whole
        sync_folder(folder)
    except OSError as error:
        what = f"the log cannot be written to {folder}: {error.strerror}"
        raise CohortError("DISK_FULL", what, retry=Retry.SAFE, hint="Choose a folder with room that you may write to.") from error
    return {
        "folder": str(folder),
        "size": size,
        "tiles": tiles,
        "vkey": keys.splitlines()[0] if keys else None,
        "verifier": str(folder / "verifier.py"),
    }


def _write_tiles(database: Database, size: int, folder: Path) -> int:
    written = 0
    for low in range(0, size, TILES_AT_ONCE * TILE_WIDTH):
        high = min(size, low + TILES_AT_ONCE * TILE_WIDTH)
        with database.read() as connection:
            found = Rows(connection).entries(low, high)
        if len(found) != high - low:
            raise CohortError("AUDIT_BROKEN", f"records between {low} and {high} are missing", hint="Run `cohort audit verify`.")
        for start in range(0, len(found), TILE_WIDTH):
            _write_bundle(folder, (low + start) // TILE_WIDTH, found[start : start + TILE_WIDTH])
            written += 2
    level = 1
    while (count := size >> (TILE_HEIGHT * level)) > 0:
        written += _write_level(database, folder, level, count)
        level += 1
    return written


def _write_bundle(folder: Path, number: int, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
    path = tile_path(number, len(rows))
    _write(folder / "tile" / "0" / path, b"".join(bytes(row[2]) for row in rows))
    bundle = b"".join(len(row[1]).to_bytes(2, "big") + bytes(row[1]) for row in rows)
    _write(folder / "tile" / "entries" / path, bundle)


def _write_level(database: Database, folder: Path, level: int, count: int) -> int:
    tiles = range(0, count, TILE_WIDTH)
    for low in tiles:
        high = min(count, low + TILE_WIDTH)
        with database.read() as connection:
            hashes = Rows(connection).run(TILE_HEIGHT * level, low, high)
        _write(folder / "tile" / str(level) / tile_path(low // TILE_WIDTH, high - low), b"".join(hashes))
    return len(tiles)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
