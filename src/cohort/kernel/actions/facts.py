"""Everything that is known about an action before it is decided, as one value: what the rules and the policy look at, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cohort.base.ids import WorkspaceId
from cohort.kernel.actions.catalogue import Kind, Row
from cohort.kernel.actions.parsing import PATH_NAMES
from cohort.kernel.actions.shells import is_shell
from cohort.kernel.model import Action, Caller, Level, Scope, Taint
from cohort.kernel.sandbox.egress_names import origin_allowed
from cohort.kernel.workspaces.protected import holds_protected, protection

CRITICAL_KINDS = frozenset({"delete", "pay", "send"})
CRITICAL_RISK = 0.9
BODY_TO_NEW_ORIGIN_RISK = 0.7
REQUEST_RISK = 0.5


@dataclass(frozen=True, slots=True)
class Facts:
    """`own`: inside the agent's own workspace, or nothing of a workspace at all. `listed`: the origin is on the agent's allow-list.

    `shell`: a command line that hands text to a shell. `egress`: it can send something out of the machine. `level`: what would contain it.
    """

    action: Action
    row: Row
    caller: Caller
    taint: Taint
    level: Level
    own: bool
    listed: bool
    shell: bool
    egress: bool
    protected: tuple[str, ...]
    risk: float

    @property
    def resources(self) -> tuple[str, ...]:
        return resources_of(self.action)


def resources_of(action: Action) -> tuple[str, ...]:
    """Every resource the action touches: a move has two."""
    if "to" in action.arguments and action.operation == "files.move":
        return action.resource, f"{workspace_of(action)}/{action.arguments['to']}"
    return (action.resource,)


def workspace_of(action: Action) -> WorkspaceId:
    """Of an action of `files.*`."""
    return WorkspaceId(action.resource.partition("/")[0])


def paths_of(action: Action) -> tuple[str, ...]:
    """Of an action of `files.*`: relative to its workspace, as its arguments say."""
    return tuple(str(action.arguments[name]) for name in PATH_NAMES if name in action.arguments)


def gather(action: Action, row: Row, caller: Caller, taint: Taint, level: Level) -> Facts:
    """Errors: FIELD_INVALID (a line of the agent's list of origins is none)."""
    own = row.kind is not Kind.FILE or workspace_of(action) == caller.agent.workspace
    listed = row.kind is Kind.ORIGIN and origin_allowed(action.resource, caller.agent.egress)
    shell = row.kind is Kind.PROGRAM and is_shell(action.arguments)
    guarded = () if row.read_only or row.kind is not Kind.FILE else _guarded(action)
    return Facts(action, row, caller, taint, level, own, listed, shell, leaves(action, row), guarded, risk_of(action, row, own, listed))


def leaves(action: Action, row: Row) -> bool:
    """Whether the action can send something out of the machine."""
    return row.kind in (Kind.ORIGIN, Kind.DEVICE) or bool(action.arguments.get("network"))


def _guarded(action: Action) -> tuple[str, ...]:
    """Those of the action's paths that no agent may change, or that hold one and would go with it."""
    whole = action.operation in ("files.delete", "files.move")
    return tuple(path for path in paths_of(action) if protection(path) is not None or (whole and holds_protected(path)))


def risk_of(action: Action, row: Row, own: bool, listed: bool) -> float:
    """The risk of this very action, 0 to 1, as the table has it."""
    if row.kind is Kind.DEVICE and action.arguments.get("kind") in CRITICAL_KINDS:
        return CRITICAL_RISK
    if action.operation == "http.request":
        return _risk_of_request(action, row, listed)
    if row.kind is Kind.ORIGIN:
        return row.risk if listed else row.risk_elsewhere
    return row.risk if own else row.risk_elsewhere


def _risk_of_request(action: Action, row: Row, listed: bool) -> float:
    """Low: a GET to a listed origin. High: a body to a new one. Medium: the rest."""
    if action.arguments["method"] in ("GET", "HEAD"):
        return row.risk if listed else row.risk_elsewhere
    return REQUEST_RISK if listed else BODY_TO_NEW_ORIGIN_RISK


def relevant(scopes: Iterable[Scope], name: str) -> tuple[Scope, ...]:
    """Those of `scopes` that speak of `name`."""
    return tuple(scope for scope in scopes if scope.name == name)
