"""YAML and JSON documents from people: errors name the line, the field and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cohort.base import yaml_text
from cohort.base.errors import CohortError
from cohort.base.yaml_text import Path

DOCUMENT_BYTES_MAX = 1 << 20
FOUND_CHARACTERS_MAX = 60
HIDDEN_INPUT = "hidden_input"
"""The type of a pydantic error whose input must not be shown."""
_SECRETS = re.compile(r"(?i)key|secret|password|token$|authorization|credential")
_NOT_FIELDS = ("function-", "tagged-union", "constrained-", "[key]")  # parts of pydantic's locations that nobody wrote
_NOT_SECTIONS = frozenset({"model_type", "model_attributes_type", "dict_type"})
_AS_WRITTEN = {"None": "null", "True": "true", "False": "false"}
_MESSAGES = {"too_short": "must not be empty", "string_too_short": "must not be empty"}
ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain JSON values and where each stood. `source` is the name shown in errors."""

    value: Any
    source: str
    lines: dict[Path, int]

    def place(self, path: Path) -> str:
        """`file.yaml:12`, by the nearest ancestor of `path` that was written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.source}:{self.lines.get(path, 1)}"


def load_document(text: str, source: str, code: str = "DOCUMENT_INVALID") -> Document:
    """Read the plain subset of YAML described in `yaml_text.py` (JSON is part of it).

    Raises:
        CohortError FILE_TOO_LARGE: more than `DOCUMENT_BYTES_MAX`.
        CohortError `code`: not in the subset, a duplicate key, or not a mapping at the top.
    """
    if len(text) > DOCUMENT_BYTES_MAX or len(text.encode(errors="replace")) > DOCUMENT_BYTES_MAX:
        raise CohortError("FILE_TOO_LARGE", f"{source} is larger than {DOCUMENT_BYTES_MAX} bytes", hint="Keep documents under 1 MiB.")
    try:
        text.encode()
        value, lines = yaml_text.read(text)
    except UnicodeEncodeError as error:
        raise CohortError(code, f"{source} is not valid Unicode text", hint=f"Save {source} as UTF-8.") from error
    except yaml_text.TextError as error:
        field = dotted(error.path) or None
        where = f"{source}:{error.line}: {field}" if field else f"{source}:{error.line}"
        raise CohortError(code, f"{where}: {error.problem}", field=field, hint=error.hint) from error
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise CohortError(code, f"{source}:1: expected a mapping of fields, found {found}", hint="Write `field: value` lines.")
    return Document(value, source, lines)


def parse_document(model: type[ModelT], document: Document, code: str = "DOCUMENT_INVALID") -> ModelT:
    """The document as `model`.

    Raises:
        CohortError `code`: the first wrong field, with its line, what was found and the fix; further ones are counted.
    """
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        raise _first_problem(model, document, error, code) from error


def dotted(path: Path) -> str:
    """`routes.main.provider`, `stages[2].traffic_pct`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _first_problem(model: type[BaseModel], document: Document, error: ValidationError, code: str) -> CohortError:
    problems = error.errors(include_url=False)
    first = _cause(problems)
    path: Path = tuple(part for part in first["loc"] if not str(part).startswith(_NOT_FIELDS))
    field = dotted(path)
    what, hint = _in_words(model, path, dict(first))
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return CohortError(code, f"{document.place(path)}: {field}: {what}{more}", field=field, hint=hint)


def _cause(problems: Sequence[Any]) -> Any:
    """The first problem; where a field is missing beside one that is unknown, the unknown one: it is the same field, misspelt."""
    first = problems[0]
    if first["type"] == "missing":
        beside = [each for each in problems if each["type"] == "extra_forbidden" and each["loc"][:-1] == first["loc"][:-1]]
        near = [each for each in beside if difflib.get_close_matches(str(each["loc"][-1]), [str(first["loc"][-1])])]
        return near[0] if near else first
    return first


def _in_words(model: type[BaseModel], path: Path, problem: dict[str, Any]) -> tuple[str, str]:
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        fix = f"Did you mean `{near[0]}`?" if near else f"Remove it, or use one of: {', '.join(sorted(known)) or 'none'}."
        return "unknown field", fix
    if kind == "missing":
        return "missing", f"Add `{path[-1]}`."
    found = problem.get("input")
    if kind in _NOT_SECTIONS:
        return f"must be a section of fields{_shown(kind, path, found)}", f"Write it like `{path[-1]}: {{field: value}}`." if path else ""
    message = _MESSAGES.get(kind) or str(problem["msg"]).removeprefix("Value error, ")
    fix = str(problem.get("ctx", {}).get("hint") or _quoting(kind, path, found) or f"Correct `{dotted(path)}`.")
    return f"{message[:1].lower()}{message[1:]}{_shown(kind, path, found)}", fix


def _shown(kind: str, path: Path, found: Any) -> str:
    """What was found, where it is short and cannot be a secret."""
    if kind == HIDDEN_INPUT or isinstance(found, (dict, list)) or any(_SECRETS.search(str(part)) for part in path):
        return ""
    text = _AS_WRITTEN.get(str(found), repr(found)) if found is None or isinstance(found, bool) else repr(found)
    return f", found {text if len(text) <= FOUND_CHARACTERS_MAX else text[:FOUND_CHARACTERS_MAX] + '...'}"


def _quoting(kind: str, path: Path, found: Any) -> str | None:
    """YAML takes `version: 4.10` for the number 4.1."""
    if kind == "string_type" and isinstance(found, (int, float)):
        return f"Put the value of `{dotted(path)}` in quotes."
    return None


def _fields_at(model: type[BaseModel], path: Path) -> list[str]:
    """The field names allowed at `path` inside `model`; empty where that cannot be told."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[str(part)].annotation
        current = _inner_model(current)
        if current is None:
            return []
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
