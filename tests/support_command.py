"""One `cohort` command line, run in this process with an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cohort.surfaces.cli.main import run
from cohort.surfaces.cli.session import Session


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Command:
    """Runs command lines against an installation in `folder`, where nothing runs unless the environment says otherwise."""

    folder: Path
    environment: Mapping[str, str]
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, **environment: str) -> Ran:
        self.capture.readouterr()
        session = Session({"COHORT_DATA_DIR": str(self.folder / "data"), **self.environment, **environment})
        code = run(list(arguments), session)
        said = self.capture.readouterr()
        return Ran(code, said.out, said.err)
