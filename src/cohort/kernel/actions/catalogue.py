"""The action table of the specification as data: every operation there is. What is not here is refused as unknown.

The risk numbers are the table's words (low, medium, high, critical) placed inside their ranges so that they order operations as people
would; `docs/decisions/0085-how-an-action-is-decided.md` says why each asks when it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.actions import schemas
from cohort.kernel.face import Operation
from cohort.kernel.model import Risk


class Asks(StrEnum):
    """When an operation wants a person's approval by default."""

    NEVER = "never"
    ELSEWHERE = "elsewhere"  # outside the agent's own workspace
    POLICY = "policy"  # as risk, autonomy and policy say; standing rules by pattern
    NEW = "new"  # an origin that is not on the agent's allow-list
    CRITICAL = "critical"  # when this very action is of critical risk
    ALWAYS = "always"


class Kind(StrEnum):
    """What an operation acts on; decides how its resource is written and which rules hold."""

    FILE = "file"
    PROGRAM = "program"
    PROCESS = "process"
    SYSTEM = "system"
    ORIGIN = "origin"
    DEVICE = "device"
    DATABASE = "database"
    MEMORY = "memory"
    AGENT = "agent"
    SETTING = "setting"


DATA = frozenset({Kind.FILE, Kind.PROGRAM, Kind.PROCESS, Kind.MEMORY})


class Class(StrEnum):
    """Acts that always ask, whatever the autonomy, the policy or the settings say."""

    DEPLOYMENT = "deployment"
    DATA_DELETION = "data_deletion"
    SYSTEM_CONFIG = "system_config"


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `risk`, `risk_elsewhere`: 0 to 1. `executes`: runs code of the agent's choice, so the isolation level matters.

    `untrusted`, `private`: what a session that has done this has read.
    """

    name: str
    scope: str
    summary: str
    kind: Kind
    risk: float
    risk_elsewhere: float
    asks: Asks
    arguments: Mapping[str, Any] = field(repr=False)
    read_only: bool = False
    destructive: bool = False
    executes: bool = False
    classes: frozenset[Class] = frozenset()
    untrusted: bool = False
    private: bool = False

    @property
    def reads_data(self) -> bool:
        """Whether it answers from, or runs in, an agent's own data: its workspace, its processes, its memory."""
        return self.private and self.kind in DATA

    @property
    def writes_data(self) -> bool:
        """Whether it may put something into an agent's own data."""
        return not self.read_only and self.kind in (Kind.FILE, Kind.PROGRAM, Kind.MEMORY)

    def operation(self, available: bool) -> Operation:
        """The row as surfaces show it."""
        return Operation(
            self.name,
            self.scope,
            self.summary,
            Risk.of(self.risk),
            self.risk,
            self.asks.value,
            self.arguments,
            self.read_only,
            self.destructive,
            available,
        )


def _files() -> tuple[Row, ...]:
    file, elsewhere = Kind.FILE, Asks.ELSEWHERE
    read: dict[str, Any] = {"read_only": True, "private": True}
    return (
        Row("files.read", "files.read", "Read a file.", file, 0.1, 0.5, elsewhere, schemas.FILES_READ, **read),
        Row("files.list", "files.read", "List a directory.", file, 0.1, 0.5, elsewhere, schemas.FILES_LIST, **read),
        Row("files.search", "files.read", "Find a text in files.", file, 0.1, 0.5, elsewhere, schemas.FILES_SEARCH, **read),
        Row("files.stat", "files.read", "Size, kind and time of a file.", file, 0.1, 0.5, elsewhere, schemas.FILES_STAT, **read),
        Row("files.write", "files.write", "Write a file.", file, 0.2, 0.7, elsewhere, schemas.FILES_WRITE),
        Row("files.move", "files.write", "Move or rename a file or directory.", file, 0.2, 0.7, elsewhere, schemas.FILES_MOVE),
        Row("files.mkdir", "files.write", "Make a directory, with those above it.", file, 0.2, 0.7, elsewhere, schemas.FILES_MKDIR),
        Row(
            "files.delete", "files.delete", "Delete a file or directory.", file, 0.5, 0.8, elsewhere, schemas.FILES_DELETE, destructive=True
        ),
    )


def _execution() -> tuple[Row, ...]:
    run, policy, never = "system.execute", Asks.POLICY, Asks.NEVER
    code: dict[str, Any] = {"destructive": True, "executes": True, "private": True}
    process = Kind.PROCESS
    return (
        Row("terminal.run", run, "Run a command in the sandbox.", Kind.PROGRAM, 0.7, 0.7, policy, schemas.TERMINAL_RUN, **code),
        Row("python.run", run, "Run a Python program in the sandbox.", Kind.PROGRAM, 0.7, 0.7, policy, schemas.PYTHON_RUN, **code),
        Row("process.start", run, "Start a long-running command.", Kind.PROGRAM, 0.7, 0.7, policy, schemas.PROCESS_START, **code),
        Row("process.list", "system.read", "List its own processes.", process, 0.1, 0.1, never, schemas.PROCESS_LIST, read_only=True),
        Row(
            "process.output",
            "system.read",
            "Read what a process wrote.",
            process,
            0.3,
            0.3,
            never,
            schemas.PROCESS_OUTPUT,
            True,
            private=True,
        ),
        Row("process.signal", run, "Signal one of its own processes.", process, 0.4, 0.4, never, schemas.PROCESS_SIGNAL, destructive=True),
        Row("process.limit", run, "Hold one of its own processes to less.", process, 0.4, 0.4, never, schemas.PROCESS_LIMIT),
        Row("system.read", "system.read", "Look at the machine.", Kind.SYSTEM, 0.1, 0.1, never, schemas.SYSTEM_READ, True, private=True),
    )


def _network() -> tuple[Row, ...]:
    """The risk of `http.request` is of a GET to a listed origin; `rules.risk_of` raises it for others."""
    origin, new = Kind.ORIGIN, Asks.NEW
    reads: dict[str, Any] = {"untrusted": True}
    return (
        Row("http.request", "network.http", "Send an HTTP request.", origin, 0.2, 0.5, new, schemas.HTTP_REQUEST, **reads),
        Row("network.webhook", "network.webhook", "Post JSON to a webhook.", origin, 0.5, 0.6, new, schemas.NETWORK_WEBHOOK, **reads),
        Row("browser.navigate", "browser.read", "Open a page.", origin, 0.2, 0.5, Asks.NEVER, schemas.BROWSER_PAGE, **reads),
        Row("browser.read", "browser.read", "Read a page.", origin, 0.2, 0.5, Asks.NEVER, schemas.BROWSER_PAGE, True, **reads),
        Row("browser.act", "browser.act", "Click and type in a page.", origin, 0.5, 0.6, Asks.POLICY, schemas.BROWSER_ACT, **reads),
        Row("browser.download", "browser.download", "Download a file.", origin, 0.5, 0.6, Asks.ALWAYS, schemas.BROWSER_PAGE, **reads),
    )


def _stores() -> tuple[Row, ...]:
    base, memory, never = Kind.DATABASE, Kind.MEMORY, Asks.NEVER
    writes: dict[str, Any] = {"destructive": True, "classes": frozenset({Class.DATA_DELETION})}
    return (
        Row("database.read", "database.read", "Ask a database.", base, 0.2, 0.2, never, schemas.DATABASE, read_only=True, private=True),
        Row("database.write", "database.write", "Change a database.", base, 0.8, 0.8, Asks.ALWAYS, schemas.DATABASE, **writes),
        Row("memory.read", "memory.read", "Recall.", memory, 0.1, 0.1, never, schemas.MEMORY_READ, read_only=True, private=True),
        Row("memory.write", "memory.write", "Remember.", memory, 0.2, 0.2, never, schemas.MEMORY_WRITE),
    )


def _others() -> tuple[Row, ...]:
    device, agent, setting, always = Kind.DEVICE, Kind.AGENT, Kind.SETTING, Asks.ALWAYS
    deployment, system_config = frozenset({Class.DEPLOYMENT}), frozenset({Class.SYSTEM_CONFIG})
    give, propose, change = "Give another agent a narrower token.", schemas.RELEASE_PROPOSE, schemas.CONFIG_CHANGE
    return (
        Row("mobile.act", "mobile.act", "Act on a mobile device.", device, 0.5, 0.5, Asks.CRITICAL, schemas.MOBILE_ACT, destructive=True),
        Row("agent.delegate", "agents.delegate", give, agent, 0.3, 0.3, Asks.NEVER, schemas.AGENT_DELEGATE),
        Row("release.propose", "release.propose", "Propose a release.", setting, 0.7, 0.7, always, propose, classes=deployment),
        Row("config.change", "release.propose", "Change a setting.", setting, 0.8, 0.8, always, change, classes=system_config),
    )


ROWS: Mapping[str, Row] = {row.name: row for row in (*_files(), *_execution(), *_network(), *_stores(), *_others())}


def find(name: str) -> Row:
    """Errors: OPERATION_UNKNOWN."""
    row = ROWS.get(name)
    if row is None:
        raise CohortError(
            "OPERATION_UNKNOWN",
            f"there is no operation {name[:100]!r}",
            field="operation",
            hint="Use one that `operations` lists; what is not listed is refused.",
        )
    return row
