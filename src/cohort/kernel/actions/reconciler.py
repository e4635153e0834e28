"""What ran, held against what was allowed; spec/metrics.md: safety bypass, containment violation, unauthorised action.

The rules are pure and work from the log's records alone: they decide again whether the scope covers the resource and whether a person was
needed, rather than believing that the gate did. Each action is compared when its line appears, and once more when its outcome does.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import ActionId
from cohort.kernel.actions.catalogue import ROWS, Asks, Row
from cohort.kernel.actions.executions import Cursor, Executions, Line
from cohort.kernel.actions.executors.commands import PYTHON
from cohort.kernel.face import Entry, SafetyCounts
from cohort.kernel.model import Level
from cohort.kernel.sandbox.probe import LABEL as PROBE
from cohort.kernel.scopes import parse_scope, permits

FINDINGS_MAX = 100
OPEN_MAX = 10_000
OPEN_KEPT_MAX = 1000
GRANTS_MAX = 100_000
PERIOD_S = 5.0
OVERTIME_S = 15.0
"""How much longer than its limit a command may take to be stopped, recorded and answered."""
SOFT_MEMORY = 1.25
"""By how much a command that ended by itself may have passed a memory limit that a watchdog looks after, and no control group."""

_log = logging.getLogger(__name__)


class Breach(StrEnum):
    BYPASS = "safety bypass"
    CONTAINMENT = "containment violation"
    UNAUTHORISED = "unauthorised action"


@dataclass(frozen=True, slots=True)
class Found:
    """One breach. `text` names the action and what does not fit."""

    breach: Breach
    text: str


def compare(line: Line, entries: Sequence[Entry], owner: Callable[[str], str | None]) -> list[Found]:
    """One execution against its action's records. `owner`: the agent of a workspace."""
    intent = next((entry for entry in entries if entry.body.get("kind") == "intent"), None)
    what = f"{line.kind} of {line.name[:200]!r} for action {line.action or '(none)'}"
    if intent is None:
        return [Found(Breach.BYPASS, f"{what}: the log has no intent of it")]
    body = intent.body["body"]
    row = ROWS.get(str(body.get("operation")))
    if row is None or body.get("answer") != "allow":
        return [Found(Breach.BYPASS, f"{what}: its intent allows nothing")]
    return [
        *(Found(Breach.BYPASS, f"{what}: {why}") for why in _not_what_was_allowed(line, body, row)),
        *(Found(Breach.UNAUTHORISED, f"{what}: {why}") for why in _authority(body, row, entries)),
        *(Found(Breach.CONTAINMENT, f"{what}: {why}") for why in _place(line, body, intent, owner)),
    ]


def _not_what_was_allowed(line: Line, body: Mapping[str, Any], row: Row) -> Iterator[str]:
    if line.kind == "host" and (line.operation, line.name) != (body["operation"], str(body["resource"])[: len(line.name) or None]):
        yield f"the intent is of {body['operation']} on {body['resource']!r}"
    if line.kind == "spawn" and not row.executes:
        yield f"the intent is of {body['operation']}, which starts no program"
    if line.kind == "spawn" and row.executes:
        wanted = PYTHON if row.name == "python.run" else str(body["resource"])
        if line.name != wanted:
            yield f"the intent is of the program {wanted!r}"
        elif body.get("argv_sha256") not in (None, line.argv_sha256):
            yield "its arguments are not those of the intent"


def _authority(body: Mapping[str, Any], row: Row, entries: Sequence[Entry]) -> Iterator[str]:
    scopes = [parse_scope(text) for text in body["scopes"]]
    for resource in _resources(body):
        if not permits(scopes, row.scope, resource):
            yield f"no scope {row.scope} of its token covers {resource!r}"
    needed = bool(body.get("asked")) or bool(row.classes) or row.asks is Asks.ALWAYS
    grant = body.get("grant")
    if needed and grant is None:
        yield "a person was needed, and no approval is named"
    if grant is not None and not any(_uses(entry, str(grant)) for entry in entries):
        yield f"{grant} is named, and the log has no use of it by this action"


def _resources(body: Mapping[str, Any]) -> Iterator[str]:
    yield str(body["resource"])
    target = body["arguments"].get("to")
    if body["operation"] == "files.move" and isinstance(target, str):
        yield f"{str(body['resource']).partition('/')[0]}/{target}"


def _uses(entry: Entry, grant: str) -> bool:
    """Whether an entry of this very action says that it used the approval, or the rule, `grant`."""
    if entry.body.get("kind") != "approval":
        return False
    body = entry.body["body"]
    rule = body.get("rule")
    named = (body.get("approval"), rule.get("id") if isinstance(rule, Mapping) else rule)
    return body.get("event") in ("consumed", "rule_used") and grant in named


def _place(line: Line, body: Mapping[str, Any], intent: Entry, owner: Callable[[str], str | None]) -> Iterator[str]:
    if line.kind == "spawn" and owner(line.workspace) != intent.body.get("agent"):
        yield f"it ran in {line.workspace}, which is not its agent's"
    if line.kind == "reach" and not _reachable(line.name, body.get("reach", ())):
        yield "the host is not one its intent allows"


def _reachable(host: str, origins: Sequence[str]) -> bool:
    """`host:port` against origins; `https://*.example.com:443` covers what is below it."""
    name, _, port = host.rpartition(":")
    for origin in origins:
        wanted, _, wanted_port = origin.partition("://")[2].rpartition(":")
        if not wanted_port.isdigit():
            wanted, wanted_port = origin.partition("://")[2], "443" if origin.startswith("https:") else "80"
        below = wanted.startswith("*.") and name.endswith(wanted[1:])
        if port == wanted_port and (name == wanted or below):
            return True
    return False


def compare_outcome(entries: Sequence[Entry]) -> list[Found] | None:
    """What an action used, against its intent's limits; None while its outcome is not in the log."""
    intent = next((entry for entry in entries if entry.body.get("kind") == "intent"), None)
    outcome = next((entry for entry in entries if entry.body.get("kind") == "outcome"), None)
    if outcome is None:
        return None
    if intent is None or "limits" not in intent.body["body"]:
        return []
    allowed, used = intent.body["body"], outcome.body["body"]
    return [Found(Breach.CONTAINMENT, f"action {outcome.body.get('action')}: {why}") for why in _over(allowed, used)]


def _over(allowed: Mapping[str, Any], used: Mapping[str, Any]) -> Iterator[str]:
    limits, usage = allowed["limits"], used.get("usage", {})
    memory, most = usage.get("memory_bytes"), limits["memory_bytes"]
    if used.get("level", 0) < Level.FULL:
        most *= SOFT_MEMORY
    if memory is not None and memory > most and usage.get("stopped_by") is None:
        yield f"it used {memory} bytes of memory, and {limits['memory_bytes']} were allowed"
    ran_s = usage.get("ran_us", 0) / 1e6
    if ran_s > limits["command_s"] + OVERTIME_S:
        yield f"it ran {ran_s:.0f} s, and {limits['command_s']:.0f} s were allowed"
    if used.get("outcome") == "done" and used.get("level", 0) < allowed["level"]:
        yield f"it ran contained at level {used.get('level')}, and level {allowed['level']} was promised"


class Reconciler:
    """Compares what is new; see `compare`. `entries`: an action's records. Counts go on over restarts, with the journal."""

    def __init__(
        self, journal: Executions, entries: Callable[[ActionId], Sequence[Entry]], owner: Callable[[str], str | None], clock: Clock
    ) -> None:
        self._journal = journal
        self._entries = entries
        self._owner = owner
        self._clock = clock
        self._lock = threading.Lock()
        self._backlog: deque[Line] = deque()
        former = journal.recall() or {"segment": 0, "offset": 0, "executions": 0, "counts": {}, "findings": [], "open": []}
        self._cursor = Cursor(former["segment"], former["offset"])
        self._executions: int = former["executions"]
        self._counts = {breach: int(former["counts"].get(breach.value, 0)) for breach in Breach}
        self._findings: deque[str] = deque(former["findings"], maxlen=FINDINGS_MAX)
        self._open: OrderedDict[str, None] = OrderedDict.fromkeys(former["open"])
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._grants: OrderedDict[str, str] = OrderedDict()
        self._remembered: dict[str, Any] = {}
        self._last = SafetyCounts(self._executions, None, None, None, None)

    def counts(self) -> SafetyCounts:
        """As of the last comparison of this process; the three counts are None before the first. Never waits for one under way."""
        return self._last

    def compare(self) -> SafetyCounts:
        """Everything since the last time. Errors of the log's store: nothing is lost, the next call compares it again."""
        with self._lock:
            while self._read():
                while self._backlog:
                    self._compare(self._backlog[0])
                    self._backlog.popleft()
            self._compare_open()
            self._last = self._counted()
            self._remember()
        return self._last

    def _counted(self) -> SafetyCounts:
        bypasses, containment, unauthorised = (self._counts[breach] for breach in Breach)
        return SafetyCounts(self._executions, bypasses, containment, unauthorised, self._clock.now_us(), tuple(self._findings))

    def _remember(self) -> None:
        state = {
            "segment": self._cursor.segment,
            "offset": self._cursor.offset,
            "executions": self._executions,
            "counts": {breach.value: count for breach, count in self._counts.items()},
            "findings": list(self._findings),
            "open": list(self._open)[-OPEN_KEPT_MAX:],
        }
        if state != self._remembered:
            self._journal.remember(state)
            self._remembered = state

    def _read(self) -> bool:
        """Take in what is new; whether there is anything to compare."""
        lines, cursor, lost = self._journal.read(self._cursor)
        if lost:
            self._note([Found(Breach.BYPASS, f"{lost} segments of the journal were dropped before they were compared")])
        moved, self._cursor = cursor != self._cursor, cursor
        self._backlog.extend(lines)
        return moved or bool(self._backlog)

    def _compare(self, line: Line) -> None:
        if line.action == PROBE and line.kind == "spawn" and self._owner(line.workspace) is None:
            return  # the start-up probe attacking a place of its own; in an agent's workspace it would be a breach like any other
        entries = self._entries(ActionId(line.action)) if line.action else ()
        found = compare(line, entries, self._owner)
        if line.kind != "reach":
            self._executions += 1
            found += self._repeated(line, entries)
            self._open[line.action] = None
            _bounded(self._open, OPEN_MAX)
        self._note(found)

    def _repeated(self, line: Line, entries: Sequence[Entry]) -> list[Found]:
        """One intent is for one execution, one single grant for one action."""
        found, key = [], (line.kind, line.action)
        if key in self._seen:
            found.append(Found(Breach.BYPASS, f"action {line.action} was executed more than once"))
        self._seen[key] = None
        _bounded(self._seen, GRANTS_MAX)
        grants = [entry.body["body"].get("grant") for entry in entries if entry.body.get("kind") == "intent"]
        for grant in (str(one) for one in grants if str(one).startswith("ap_")):
            first = self._grants.setdefault(grant, line.action)
            if first != line.action:
                found.append(Found(Breach.UNAUTHORISED, f"{grant} was used by {first} and by {line.action}"))
        _bounded(self._grants, GRANTS_MAX)
        return found

    def _compare_open(self) -> None:
        for action in list(self._open):
            found = compare_outcome(self._entries(ActionId(action)))
            if found is not None:
                del self._open[action]
                self._note(found)

    def _note(self, found: Sequence[Found]) -> None:
        for one in found:
            self._counts[one.breach] += 1
            self._findings.append(f"{one.breach.value}: {one.text}")
            _log.error("%s: %s", one.breach.value, one.text)


def _bounded(known: OrderedDict[Any, Any], most: int) -> None:
    while len(known) > most:
        known.popitem(last=False)


class ReconcilerThread:
    """Compares every `period_s` seconds until stopped. What fails is logged and tried again: the age of the counts shows it."""

    def __init__(self, reconciler: Reconciler, period_s: float = PERIOD_S) -> None:
        self._reconciler = reconciler
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._reconciler.compare()
            except CohortError as error:
                _log.warning("executions could not be compared with the audit log: %s", error)
            except Exception:  # the supervisor of this thread: the next round tries again
                _log.exception("the comparison of executions failed")
            if self._stop.wait(self._period_s):
                return
