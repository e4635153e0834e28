"""What a set of policies looks at, found in their JSON form: nothing else can change what they answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONTEXT_NAMES = (
    "risk", "risk_max", "level", "untrusted", "private", "network", "shell", "command", "words", "method", "task", "delegated",
)  # fmt: skip
"""Of the schema, all of them."""
_ITSELF = ""
"""Stands for a variable that is not only asked for attributes."""


@dataclass(frozen=True, slots=True)
class Reads:
    """`context`: its attributes that are read; `principal`: whether anything of it is; `resource`: its attributes that are read;
    `whole`: whether anything else of it can matter, such as which one it is."""

    context: tuple[str, ...]
    principal: bool
    resource: tuple[str, ...]
    whole: bool


def reads_of(policies: Iterable[Mapping[str, Any]]) -> Reads:
    """Of all policies together, each in Cedar's JSON form. Whatever is not understood counts as reading everything of its variable."""
    found = {use for policy in policies for use in _of_policy(policy)}
    context = {attribute for variable, attribute in found if variable == "context"}
    resource = {attribute for variable, attribute in found if variable == "resource"}
    return Reads(
        context=CONTEXT_NAMES if not context <= set(CONTEXT_NAMES) else tuple(sorted(context)),
        principal=any(variable == "principal" for variable, _ in found),
        resource=tuple(sorted(resource - {_ITSELF})),
        whole=_ITSELF in resource,
    )


def _of_policy(policy: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in ("principal", "resource"):
        said = policy[variable]
        if said["op"] != "All" and (said["op"] != "is" or "in" in said):  # a type goes with the action, which is always asked about
            yield variable, _ITSELF
    yield from _of_part(policy["conditions"])


def _of_part(part: Any) -> Iterator[tuple[str, str]]:
    """Every use of a variable in an expression: `(variable, attribute)`, or `(variable, "")` where it is used otherwise."""
    if isinstance(part, list):
        for inner in part:
            yield from _of_part(inner)
    if not isinstance(part, dict) or _is_type(part):
        return
    attribute = _attribute(part)
    if attribute is not None:
        yield attribute
        return
    if isinstance(part.get("Var"), str):
        yield part["Var"], _ITSELF
    if "__entity" in part and part["__entity"].get("type") != "Action":  # it may be the very resource or agent, called by its name
        yield from (("principal", _ITSELF), ("resource", _ITSELF))
    for inner in part.values():
        yield from _of_part(inner)


def _attribute(part: Mapping[str, Any]) -> tuple[str, str] | None:
    """`variable.attribute` or `variable has attribute`, where the part is one of these and nothing else."""
    inner = part.get(".", part.get("has"))
    if len(part) != 1 or not isinstance(inner, dict) or set(inner) != {"left", "attr"}:
        return None
    variable, attribute = _variable(inner["left"]), inner["attr"]
    return (variable, attribute) if variable is not None and isinstance(attribute, str) and attribute else None


def _is_type(part: Mapping[str, Any]) -> bool:
    """`variable is Type`."""
    inner = part.get("is")
    return len(part) == 1 and isinstance(inner, dict) and set(inner) == {"left", "entity_type"} and _variable(inner["left"]) is not None


def _variable(part: Any) -> str | None:
    return part["Var"] if isinstance(part, dict) and isinstance(part.get("Var"), str) else None
