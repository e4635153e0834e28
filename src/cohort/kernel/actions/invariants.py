"""What holds whatever a policy says. Pure; a policy can only forbid more.

Each rule has an id that is recorded with the decision it made. The rules look at the action itself and trust no earlier step to have done so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cohort.base.errors import CohortError
from cohort.kernel.actions import origins
from cohort.kernel.actions.catalogue import Kind
from cohort.kernel.actions.facts import Facts, paths_of, workspace_of
from cohort.kernel.model import Answer, Level
from cohort.kernel.sandbox.egress_addresses import plainly_private
from cohort.kernel.scopes import all_inside, own_scope, parse_scope

CLOSED_SETTINGS = ("kernel", "policy", "audit", "approval", "approvals", "agents", "identity")
"""The first words of settings that no agent changes, not even with an approval: what holds it is not its own to change."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that does not simply allow. `answer`: DENY or ASK."""

    rule: str
    answer: Answer
    code: str
    reason: str


def check(facts: Facts, level_min: Level, private: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Every rule that the action meets; empty when none minds. `private`: places (`host:port`) that may be reached though they are not public."""
    groups = (_paths(facts), _containment(facts, level_min), _authority(facts), _places(facts, private), _taint(facts))
    return tuple(found for group in groups for found in group)


def _paths(facts: Facts) -> Iterator[Finding]:
    if facts.row.kind is not Kind.FILE:
        return
    for path in paths_of(facts.action):
        if not confined(path):
            yield _deny("invariant.path-confined", "PATH_ESCAPES", f"{path[:200]!r} is not a path inside the workspace")
    for path in facts.protected:
        yield _deny("invariant.path-protected", "PATH_PROTECTED", f"{path[:200]!r} is protected: it could make others run what it says")
    if facts.action.operation in ("files.delete", "files.move") and "" in paths_of(facts.action):
        yield _deny("invariant.path-root", "PATH_PROTECTED", "a workspace itself is not deleted or moved by its agent")
    if facts.action.resource != f"{workspace_of(facts.action)}/{facts.action.arguments['path']}":
        yield _deny("invariant.path-confined", "PATH_ESCAPES", "the resource is not the path of the arguments")


def confined(path: str) -> bool:
    """Whether a path stays below its root whatever is there: relative, no `.` and `..`, no NUL, no empty part."""
    return path == "" or ("\0" not in path and all(part not in ("", ".", "..") for part in path.split("/")))


def _containment(facts: Facts, level_min: Level) -> Iterator[Finding]:
    if not facts.row.executes:
        return
    if facts.level < level_min:
        what = f"commands run contained at level {facts.level.value} here, and level {level_min.value} is demanded; `cohort doctor` says what raises it"
        yield _deny("invariant.level", "LEVEL_TOO_LOW", what)
    if facts.caller.agent.workspace is None:
        yield _deny("invariant.own-workspace", "WORKSPACE_UNKNOWN", "a command runs in its agent's own workspace, and there is none")


def _authority(facts: Facts) -> Iterator[Finding]:
    arguments = facts.action.arguments
    if facts.action.operation == "config.change" and str(arguments["key"]).partition(".")[0].lower() in CLOSED_SETTINGS:
        yield _deny("invariant.own-rules", "POLICY_DENIED", "an agent does not change what holds it")
    if facts.action.operation == "agent.delegate":
        wider = _first_wider(facts)
        if wider is not None:
            yield _deny("invariant.delegation-narrows", "SCOPE_REFUSED", f"{wider[:100]!r} is not inside the scopes of this token")
        if arguments["agent"] in (facts.caller.agent.id, facts.caller.agent.name):
            yield _deny("invariant.delegation-narrows", "SCOPE_REFUSED", "an agent does not delegate to itself")


def _first_wider(facts: Facts) -> str | None:
    """The first scope that is not inside the token's, read as the exchange reads it: from the workspace of the one who delegates."""
    workspace = facts.caller.agent.workspace
    for text in facts.action.arguments["scopes"]:
        try:
            scope = parse_scope(text) if workspace is None else own_scope(text, workspace)
            if all_inside([scope], facts.caller.scopes) is not None:
                return str(text)
        except CohortError:
            return str(text)
    return None


def _places(facts: Facts, private: Sequence[str]) -> Iterator[Finding]:
    """What needs no look-up to be refused is not asked of a person, who could not permit it; names are judged once more when they are dialled."""
    if facts.row.kind is not Kind.ORIGIN:
        return
    address = origins.parse(str(facts.action.arguments["url"]))
    if address.origin != facts.action.resource:
        yield _deny("invariant.public-place", "EGRESS_REFUSED", "the resource is not the origin of the arguments")
    if plainly_private(address.host, address.port, private):
        what = (
            f"{address.host[:200]} is not on the public internet, and the configuration does not name {address.host[:200]}:{address.port}"
        )
        yield _deny("invariant.public-place", "EGRESS_REFUSED", what)


def _taint(facts: Facts) -> Iterator[Finding]:
    if facts.egress and facts.taint.egress_asks:
        yield Finding(
            "invariant.taint",
            Answer.ASK,
            "APPROVAL_NEEDED",
            "the session, or the workspace that the command runs in, holds untrusted content and private data, so nothing leaves without a person",
        )


def _deny(rule: str, code: str, reason: str) -> Finding:
    return Finding(rule, Answer.DENY, code, reason)
