"""YAML and JSON documents from people: errors name the line, the field and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cohort.base.errors import CohortError

DOCUMENT_BYTES_MAX = 1 << 20
Path = tuple[str | int, ...]
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
    """Read YAML (JSON is a subset). Anchors, tags and duplicate keys are refused.

    Raises:
        CohortError `code`: not YAML, too large, a duplicate key, or not a mapping at the top.
    """
    if len(text.encode()) > DOCUMENT_BYTES_MAX:
        raise CohortError("FILE_TOO_LARGE", f"{source} is larger than {DOCUMENT_BYTES_MAX} bytes", hint="Keep documents under 1 MiB.")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise CohortError(code, f"{source}:{line}: not valid YAML: {problem}", hint=f"Mend line {line} of {source}.") from error
    lines: dict[Path, int] = {}
    value = _plain(node, (), lines, source, code) if node is not None else None
    if not isinstance(value, dict):
        raise CohortError(code, f"{source}:1: expected a mapping of fields, found {type(value).__name__}", hint="Write `field: value` lines.")
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


def _plain(node: yaml.Node, path: Path, lines: dict[Path, int], source: str, code: str) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(node, path, lines, source, code))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), lines, source, code) for index, item in enumerate(node.value)]
    if node.tag in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary"):
        return node.value
    return yaml.SafeLoader("").construct_object(node)


def _pairs(node: yaml.MappingNode, path: Path, lines: dict[Path, int], source: str, code: str) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen:
            raise CohortError(code, f"{source}:{line}: {key} is given twice", field=dotted((*path, key)), hint="Keep one of the two.")
        seen.add(key)
        value = _plain(value_node, (*path, key), lines, source, code)
        lines[(*path, key)] = line
        yield key, value


def _first_problem(model: type[BaseModel], document: Document, error: ValidationError, code: str) -> CohortError:
    problems = error.errors(include_url=False)
    first = problems[0]
    path: Path = tuple(part for part in first["loc"] if not (isinstance(part, str) and part.startswith(("function-", "tagged-union"))))
    field = dotted(path)
    what, hint = _in_words(model, path, dict(first))
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return CohortError(code, f"{document.place(path)}: {field}: {what}{more}", field=field, hint=hint)


def _in_words(model: type[BaseModel], path: Path, problem: dict[str, Any]) -> tuple[str, str]:
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        fix = f"Did you mean `{near[0]}`?" if near else f"Remove it, or use one of: {', '.join(sorted(known)) or 'none'}."
        return "unknown field", fix
    if kind == "missing":
        return "missing", f"Add `{path[-1]}`."
    message = str(problem["msg"]).removeprefix("Value error, ")
    found = problem.get("input")
    shown = "" if isinstance(found, (dict, list)) else f", found {found!r}"
    return f"{message[:1].lower()}{message[1:]}{shown}", f"Correct `{dotted(path)}`."


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
