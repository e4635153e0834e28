"""A plain subset of YAML 1.2 as JSON values, with the line of each: no aliases, no tags, no scalars that surprise.

YAML 1.1 reads `no` as false, `0777` as 511, `12:30` as 750 and a few nested aliases as gigabytes. Here each of these is an error that
says how to write what was meant. JSON is read as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

DEPTH_MAX = 32
DIGITS_MAX = 40
Path = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_ESCAPED_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS |= dict.fromkeys(("", "~", "null", "Null", "NULL"))  # type: ignore[arg-type]
_SURPRISES = (
    (re.compile(r"(?i:yes|no|on|off)"), "older YAML reads it as true or false"),
    (re.compile(r"[-+]?0[0-9_]+|[-+]?0o[0-7_]+"), "older YAML reads it as an octal number"),
    (re.compile(r"[-+]?0[xX][0-9a-fA-F_]+|[-+]?0[bB][01_]+"), "it is a number in another base"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "older YAML reads it as a number of base 60"),
    (re.compile(r"[-+]?[0-9]+_[0-9_]*(\.[0-9_]*)?|[-+]?[0-9]*\.[0-9]*_[0-9_]*"), "older YAML reads it as a number"),
    (re.compile(r"[-+]?\.(?i:inf)|\.(?i:nan)"), "it is not a finite number"),
)


class TextError(Exception):
    """The text cannot be taken. `line` counts from 1."""

    def __init__(self, line: int, problem: str, hint: str = "", path: Path = ()) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem
        self.hint = hint or f"Mend line {line}."
        self.path = path


def read(text: str) -> tuple[Any, dict[Path, int]]:
    """The one document in `text` and the line of every value in it.

    Raises:
        TextError: not in the subset.
    """
    if text.lstrip().startswith("{"):
        text = _json_as_yaml(text)
    reader = _Reader(yaml.parse(text, Loader=_LOADER))
    try:
        return reader.document(), reader.lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise TextError(line, f"not valid YAML: {problem}") from error


def _json_as_yaml(text: str) -> str:
    """JSON may be indented by tabs (and holds none inside its strings), and may write one character as two escapes."""
    return _ESCAPED_PAIR.sub(lambda found: found[1] + json.loads(f'"{found[2]}"'), text.replace("\t", " "))


class _Reader:
    """Builds values from the parser's events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self.lines: dict[Path, int] = {}

    def document(self) -> Any:
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), ())
        next(self._events)  # the end of the document
        behind = next(self._events)
        if not isinstance(behind, yaml.StreamEndEvent):
            raise TextError(_line(behind), "a second document begins", "Keep one document per file.")
        return value

    def _value(self, event: Any, path: Path) -> Any:
        self._refuse_indirection(event, path)
        self.lines.setdefault(path, _line(event))
        if len(path) > DEPTH_MAX:
            raise TextError(_line(event), f"nested more than {DEPTH_MAX} levels deep", "Write it flatter.", path[:3])
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return _scalar(event, path)

    def _sequence(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, len(values))))
        return values

    def _mapping(self, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            if key in values:
                raise TextError(_line(event), f"{key} is given twice", "Keep one of the two.", (*path, key))
            self.lines[(*path, key)] = _line(event)
            values[key] = self._value(next(self._events), (*path, key))
        return values

    def _key(self, event: Any, path: Path) -> str:
        """A key as written: `1:` and `on:` are the keys "1" and "on"."""
        self._refuse_indirection(event, path)
        if not isinstance(event, yaml.ScalarEvent):
            raise TextError(_line(event), "a key is not a word", "Write `name: value`.", path)
        if event.value == "<<" and not event.style:
            raise TextError(_line(event), "merge keys (`<<`) are not taken", "Write the fields out.", path)
        return str(event.value)

    def _refuse_indirection(self, event: Any, path: Path) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise TextError(_line(event), "anchors and aliases (`&`, `*`) are not taken", "Write the value out, or in quotes.", path)
        if event.tag is not None:
            raise TextError(_line(event), f"the tag {event.tag} is not taken", "Write the plain value.", path)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(event: Any, path: Path) -> Any:
    """A quoted or block scalar is text; a plain one is null, a boolean, a number or text."""
    text: str = event.value
    if event.style:
        return text
    if text in _WORDS:
        return _WORDS[text]
    for pattern, why in _SURPRISES:
        if pattern.fullmatch(text):
            fix = "Write true or false, or put it in quotes." if "true" in why else "Put it in quotes, or write a plain decimal number."
            raise TextError(_line(event), f"this value is ambiguous: {why}", fix, path)
    if _NUMBER.fullmatch(text):
        return _number(text, event, path)
    return text


def _number(text: str, event: Any, path: Path) -> int | float:
    value = int(text) if _INTEGER.fullmatch(text) and len(text) <= DIGITS_MAX else float(text)
    if len(text) > DIGITS_MAX or not math.isfinite(value):
        raise TextError(_line(event), "a number with too many digits", "Put it in quotes, or shorten it.", path)
    return value
