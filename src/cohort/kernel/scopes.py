"""What a scope permits, decided without a clock or a store. A pattern is `*`, one exact resource, or a prefix that ends in `/**`.

With patterns this plain, "inside" can be proven and not only tested, which delegation rests on: a child's scope lies inside its parent's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cohort.base.errors import CohortError
from cohort.kernel.model import Scope

SCOPES = (
    "files.read",
    "files.write",
    "files.delete",
    "system.execute",
    "system.read",
    "network.http",
    "network.webhook",
    "browser.read",
    "browser.act",
    "browser.download",
    "mobile.act",
    "database.read",
    "database.write",
    "memory.read",
    "memory.write",
    "agents.delegate",
    "release.propose",
)
"""Every scope there is; any other is denied."""
RESOURCE_CHARS_MAX = 1024
SCOPES_MAX = 100

_RESOURCE = re.compile(r"[^\x00-\x1f\x7f\s]+")


def parse_scope(text: str) -> Scope:
    """`files.read` or `files.read:PATTERN`.

    Raises:
        CohortError SCOPE_UNKNOWN, FIELD_INVALID: with the text and the fix.
    """
    name, colon, resource = text.partition(":")
    if name not in SCOPES:
        raise CohortError("SCOPE_UNKNOWN", f"there is no scope {name[:100]!r}", field="scopes", hint=f"Use one of: {', '.join(SCOPES)}.")
    if not colon:
        return Scope(name)
    _check(resource, text)
    return Scope(name, resource)


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """Each once, in the order given. Errors: as `parse_scope`; FIELD_INVALID for more than `SCOPES_MAX`."""
    scopes = tuple(dict.fromkeys(parse_scope(text) for text in texts))
    if len(scopes) > SCOPES_MAX:
        raise CohortError("FIELD_INVALID", f"{len(scopes)} scopes", field="scopes", hint=f"Give at most {SCOPES_MAX}.")
    return scopes


def covers(pattern: str, resource: str) -> bool:
    """Whether `pattern` matches this one resource. `a/**` matches what is under `a/`, and not `a` itself."""
    if pattern == "*":
        return True
    if pattern.endswith("/**"):
        return resource.startswith(pattern[:-2])
    return pattern == resource


def permits(held: Iterable[Scope], name: str, resource: str) -> bool:
    """Whether one of `held` permits to attempt `name` on `resource`."""
    return any(scope.name == name and covers(scope.resource, resource) for scope in held)


def inside(child: Scope, parent: Scope) -> bool:
    """Whether everything `child` permits is permitted by `parent`."""
    return child.name == parent.name and _pattern_inside(child.resource, parent.resource)


def all_inside(children: Sequence[Scope], parents: Sequence[Scope]) -> Scope | None:
    """The first of `children` that lies inside none of `parents`; None when all do."""
    return next((child for child in children if not any(inside(child, parent) for parent in parents)), None)


def _pattern_inside(child: str, parent: str) -> bool:
    if parent == "*":
        return True
    if child == "*":
        return False
    if child.endswith("/**"):
        return parent.endswith("/**") and child[:-2].startswith(parent[:-2])
    return covers(parent, child)


def _check(resource: str, text: str) -> None:
    inner = resource.removesuffix("/**") if resource.endswith("/**") else resource
    plain = resource == "*" or ("*" not in inner and bool(inner))
    if not plain or len(resource) > RESOURCE_CHARS_MAX or not _RESOURCE.fullmatch(resource):
        raise CohortError(
            "FIELD_INVALID",
            f"{text[:100]!r}: not a pattern of resources",
            field="scopes",
            hint="After the colon write `*`, an exact resource, or a prefix that ends in `/**`.",
        )
