"""Plain JSON values against the few words of JSON Schema that the catalogue uses. Defaults are filled in; unknown names are refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from cohort.base.errors import CohortError

DEPTH_MAX = 12
VALUES_MAX = 20_000
TOTAL_CHARS_MAX = 2 << 20
INTEGER_MAX = 2**53 - 1
NAME_CHARS_MAX = 200


def plain(value: Any, name: str = "arguments") -> None:
    """Refuse what is not plain JSON within the limits, before anything looks at its meaning.

    Raises:
        CohortError ARGUMENT_INVALID: names the limit.
    """
    ahead: list[tuple[Any, int]] = [(value, 0)]
    values = chars = 0
    while ahead:
        here, depth = ahead.pop()
        values += 1
        chars += _chars(here, name)
        if values > VALUES_MAX or chars > TOTAL_CHARS_MAX or depth > DEPTH_MAX:
            limits = f"{VALUES_MAX} values, {TOTAL_CHARS_MAX} characters, {DEPTH_MAX} levels"
            raise _invalid(name, "it is too large or too deep", f"Stay within {limits}.")
        ahead += [(inner, depth + 1) for inner in _inside(here, name)]


def _inside(value: Any, name: str) -> list[Any]:
    if isinstance(value, Mapping):
        for key in value:
            _check_text(key, name)
        return [*value, *value.values()]
    return list(value) if isinstance(value, list | tuple) else []


def _chars(value: Any, name: str) -> int:
    if isinstance(value, str):
        _check_text(value, name)
        return len(value)
    if isinstance(value, int) and abs(value) > INTEGER_MAX:
        raise _invalid(name, "a whole number beyond 2**53", "Write it as text.")
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(name, "a number that is not finite", "Use a plain number.")
    if value is not None and not isinstance(value, int | float | Mapping | list | tuple):
        raise _invalid(name, f"a {type(value).__name__} is not a JSON value", "Use plain JSON values.")
    return 0


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise _invalid(name, "a name that is not text", "Use text for names.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _invalid(name, "text that is not Unicode (half of a pair)", "Send well-formed text.") from error


def fitted(value: Any, schema: Mapping[str, Any], name: str) -> Any:
    """`value` as `schema` wants it, defaults filled in. The value has passed `plain`.

    Raises:
        CohortError ARGUMENT_INVALID: `field` names the place, such as `arguments.argv[0]`.
    """
    kind = schema.get("type")
    if kind is None:
        return value
    _check_kind(value, kind, name)
    if kind == "object":
        return _fitted_object(value, schema, name)
    if kind == "array":
        _check_count(len(value), schema, name, "Items", "entries")
        return [fitted(item, schema.get("items", {}), f"{name}[{number}]") for number, item in enumerate(value)]
    if kind == "string":
        _check_string(value, schema, name)
    elif kind in ("integer", "number"):
        _check_range(value, schema, name)
    return value


def _check_kind(value: Any, kind: str, name: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    right = {
        "object": isinstance(value, Mapping),
        "array": isinstance(value, list | tuple),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "integer": number and isinstance(value, int),
        "number": number,
    }[kind]
    if not right:
        raise _invalid(name, f"found {_shown(value)}", f"Give {'an' if kind[0] in 'aio' else 'a'} {kind}.")


def _fitted_object(value: Mapping[str, Any], schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties", False)
    unknown = sorted(set(value) - set(properties))
    if unknown and others is False:
        known = ", ".join(sorted(properties)) or "none"
        raise _invalid(f"{name}.{unknown[0][:NAME_CHARS_MAX]}", "there is no such argument", f"Use only: {known}.")
    missing = [key for key in schema.get("required", ()) if key not in value]
    if missing:
        raise _invalid(f"{name}.{missing[0]}", "it is missing", "Give it.")
    _check_count(len(value), schema, name, "Properties", "entries")
    inner = {key: properties.get(key, others if isinstance(others, Mapping) else {}) for key in value}
    found = {key: fitted(item, inner[key], f"{name}.{key[:NAME_CHARS_MAX]}") for key, item in value.items()}
    defaults = {key: item["default"] for key, item in properties.items() if "default" in item}
    return {**defaults, **found}


def _check_count(count: int, schema: Mapping[str, Any], name: str, suffix: str, what: str) -> None:
    low, high = schema.get(f"min{suffix}", 0), schema.get(f"max{suffix}")
    if count < low or (high is not None and count > high):
        raise _invalid(name, f"{count} {what}", f"Give {low} to {high}." if high is not None else f"Give at least {low}.")


def _check_string(value: str, schema: Mapping[str, Any], name: str) -> None:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if len(value) < low or (high is not None and len(value) > high):
        raise _invalid(name, f"{len(value)} characters", f"Give {low} to {high} characters.")
    if "enum" in schema and value not in schema["enum"]:
        raise _invalid(name, f"found {_shown(value)}", f"Use one of: {', '.join(schema['enum'])}.")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        raise _invalid(name, f"found {_shown(value)}", "Use the identifier as it was given out.")


def _check_range(value: float, schema: Mapping[str, Any], name: str) -> None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        raise _invalid(name, f"found {value}", f"Give a number from {low} to {high}.")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _invalid(name: str, what: str, hint: str) -> CohortError:
    return CohortError("ARGUMENT_INVALID", f"{name}: {what}", field=name, hint=hint)
