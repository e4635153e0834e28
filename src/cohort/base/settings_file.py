"""The shape of `cohort.yaml`. Imported only when there is one to read."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cohort.base.documents import dotted, load_document, parse_document
from cohort.base.settings import PORT_MAX, Written

Port = Annotated[int, Field(ge=1, le=PORT_MAX)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Limit = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewayFile(Strict):
    host: Text = "127.0.0.1"
    port: Port = 1
    expose: bool = False
    limits: dict[str, Limit] = {}


class ControlFile(Strict):
    host: Text = "127.0.0.1"
    port: Port = 1
    expose: bool = False


class DatabaseFile(Strict):
    url: Text | None = None


class SettingsFile(Strict):
    data_dir: Text = "."
    gateway: GatewayFile = GatewayFile()
    control: ControlFile = ControlFile()
    database: DatabaseFile = DatabaseFile()


def parse_settings(text: str, source: str) -> Written:
    """The fields that `text` names; a file of comments only names none.

    Raises:
        CohortError CONFIG_INVALID: the line, the field and the fix.
    """
    bare = all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())
    document = load_document("{}" if bare else text, source, code="CONFIG_INVALID")
    # A section with every line commented out reads as null; it says nothing.
    said = {name: value for name, value in document.value.items() if value is not None}
    parsed = parse_document(SettingsFile, type(document)(said, source, document.lines), code="CONFIG_INVALID")
    places = {dotted(path): f"{source}:{line}" for path, line in document.lines.items() if path}
    return Written(parsed.model_dump(exclude_unset=True), places)
