"""An export of the audit log, from the server's tar into a file or a new folder."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from cohort.base.errors import CohortError
from cohort.surfaces.cli.api import Api

TOP = "audit"
"""The folder in the tar."""


def to_tar(api: Api, file: Path) -> tuple[int, int]:
    """How many files, and bytes of tar. Errors: PATH_EXISTS."""
    try:
        with file.open("xb") as out:
            size = api.download("/audit/export", out)
    except FileExistsError as error:
        raise CohortError("PATH_EXISTS", f"{file} is there already", hint="Name a new file.") from error
    except OSError as error:
        raise _unwritable(file, error) from error
    with tarfile.open(file) as tar:
        return sum(member.isfile() for member in tar), size


def to_folder(api: Api, folder: Path) -> tuple[int, int]:
    """How many files, and their bytes. Nothing is taken over what is there. Errors: PATH_EXISTS."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CohortError("PATH_EXISTS", f"{folder} is there already, and not empty", hint="Name a new folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as packed:
            api.download("/audit/export", packed)
            packed.seek(0)
            return _unpacked(packed, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unpacked(packed: IO[bytes], folder: Path) -> tuple[int, int]:
    files = size = 0
    with tarfile.open(fileobj=packed) as tar:
        for member in tar:
            name = Path(member.name)
            if not member.isfile() or name.parts[0] != TOP or ".." in name.parts:
                continue
            member.name = str(Path(*name.parts[1:]))
            tar.extract(member, folder, filter="data")
            files, size = files + 1, size + member.size
    return files, size


def _unwritable(path: Path, error: OSError) -> CohortError:
    return CohortError(
        "FILE_MISSING", f"{path} cannot be written: {error.strerror or os.strerror(error.errno or 0)}", hint="Name another place."
    )
