"""What a scope permits, decided without a clock or a store. A pattern is `*`, one exact resource, or a prefix that ends in `/**`.

With patterns this plain, "inside" can be proven and not only tested, which delegation rests on: a child's scope lies inside its parent's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
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
_WORKSPACE = re.compile(r"ws_[a-z2-7]{16}/")


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


def own_scope(text: str, workspace: WorkspaceId) -> Scope:
    """`parse_scope` as an agent's owner writes: a pattern of `files.*` is of the agent's own `workspace`, all of it when none is given.

    `files.read:*` is every workspace and `files.read:ws_.../src/**` another one. Errors: as `parse_scope`; FIELD_INVALID for `..` and the like.
    """
    scope = parse_scope(text)
    if not scope.name.startswith("files."):
        return scope
    if ":" not in text:
        return Scope(scope.name, f"{workspace}/**")
    if scope.resource == "*" or _WORKSPACE.match(scope.resource):
        return scope
    if any(part in ("", ".", "..") for part in scope.resource.split("/")):
        raise CohortError(
            "FIELD_INVALID",
            f"{text[:100]!r}: not a path inside the workspace",
            field="scopes",
            hint="Write it from the workspace's root, such as `src/**`, without `.`, `..` or an empty part.",
        )
    return Scope(scope.name, f"{workspace}/{scope.resource}")


def shown_scope(scope: Scope, workspace: WorkspaceId | None) -> str:
    """What `own_scope` makes `scope` of, shortest."""
    if not scope.name.startswith("files."):
        return str(scope)
    own = f"{workspace}/"
    inner = scope.resource.removeprefix(own) if workspace is not None else scope.resource
    return scope.name if scope.resource == f"{own}**" else f"{scope.name}:{inner}"


def stored_scope(scope: Scope) -> str:
    """For tokens and tables: `parse_scope` reads it, and it means the same in every workspace."""
    return f"{scope.name}:{scope.resource}" if scope.name.startswith("files.") else str(scope)


def narrowed(scopes: Sequence[Scope], held: Sequence[Scope]) -> tuple[Scope, ...]:
    """What both permit: exactly the actions that some scope of each permits."""
    if scopes == held:  # as nearly always: a token for all that its session has, a session for all that its agent has
        return tuple(dict.fromkeys(scopes))
    both: dict[Scope, None] = {}
    for scope in scopes:
        if any(inside(scope, other) for other in held):
            both[scope] = None
        else:
            both.update((other, None) for other in held if inside(other, scope))
    return tuple(both)


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
