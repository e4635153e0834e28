"""The policy: Cedar, asked about one action. It can forbid, want a person, or waive the question that only table and autonomy would ask.

A policy that could not be read decides nothing: every action is refused until it is mended and loaded again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cedarpy

from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.errors import CohortError
from cohort.kernel.actions import origins, policy_text
from cohort.kernel.actions.catalogue import Kind
from cohort.kernel.actions.facts import Facts
from cohort.kernel.actions.policy_answers import Answers, Question
from cohort.kernel.actions.policy_reads import Reads
from cohort.kernel.actions.policy_text import PolicyText, Statement
from cohort.kernel.actions.rules import Verdict
from cohort.kernel.model import Action, Answer

POLICY_VERSION = 1
"""Of how policies are asked; a change of it changes every policy hash."""
COMMAND_CHARS_MAX = 8192


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy set in force. `hash`: SHA-256 over its canonical form, the version and the settings that decide too. `answers`: what Cedar said."""

    text: PolicyText | None
    hash: str
    broken: str = ""
    answers: Answers = field(default_factory=Answers, compare=False, repr=False)

    @property
    def asks_taint(self) -> bool:
        """Whether an answer can turn on what the session has read."""
        return self.text is not None and self.text.asks_taint

    def judge(self, facts: Facts) -> Verdict:
        """The worst answer over every resource that the action touches."""
        if self.text is None:
            return Verdict(Answer.DENY, ("policy.broken",), f"the policy cannot be used: {self.broken}", code="POLICY_UNAVAILABLE")
        verdicts = [self._verdict(self.text, facts, resource) for resource in facts.resources]
        return min(verdicts, key=lambda found: (_RANK[found.answer], found.waives))

    def _verdict(self, text: PolicyText, facts: Facts, resource: str) -> Verdict:
        """Cedar's, or the one it gave before to the same question: the same in everything that a policy of this set reads."""
        question = _question(text.reads, facts, resource)
        known = self.answers.get(question)
        if known is None:
            known, sure = _asked(text, facts, resource)
            if sure:
                self.answers.put(question, known)
        return known


def _asked(text: PolicyText, facts: Facts, resource: str) -> tuple[Verdict, bool]:
    """Cedar's answer, and whether it is one: an evaluation that failed is tried again the next time."""
    entities = json.dumps([_principal(facts), *(_entity(facts, one) for one in dict.fromkeys(facts.resources))])
    result = cedarpy.is_authorized_batch([_request(facts, resource)], text.parsed, entities)[0]
    return _verdict(result, text.statements), not result.diagnostics.errors


_RANK = {Answer.DENY: 0, Answer.ASK: 1, Answer.ALLOW: 2}


def _verdict(result: cedarpy.AuthzResult, statements: Sequence[Statement]) -> Verdict:
    if result.diagnostics.errors:
        what = f"it could not be evaluated: {str(result.diagnostics.errors[0])[:300]}"
        return Verdict(Answer.DENY, ("policy.error",), what, code="POLICY_UNAVAILABLE")
    matched = [statements[int(name.removeprefix("policy"))] for name in sorted(result.diagnostics.reasons, key=_number)]
    names = tuple(statement.id for statement in matched)
    if result.allowed:
        return Verdict(Answer.ALLOW, names, waives=any(statement.own for statement in matched))
    hard = [statement for statement in matched if not statement.asks]
    if hard or not matched:
        reason = hard[0].reason if hard else "no policy permits it"
        return Verdict(Answer.DENY, tuple(statement.id for statement in hard) or ("policy.none",), reason, code="POLICY_DENIED")
    return Verdict(Answer.ASK, names, matched[0].reason)


def _number(name: str) -> int:
    return int(name.removeprefix("policy"))


def _request(facts: Facts, resource: str) -> dict[str, Any]:
    return {
        "principal": {"type": "Agent", "id": facts.caller.agent.id},
        "action": {"type": "Action", "id": facts.row.name},
        "resource": {"type": _type_of(facts.row.kind), "id": resource},
        "context": _context(facts),
    }


def _words(facts: Facts) -> list[str]:
    return [str(word) for word in facts.action.arguments.get("argv", ())]


_CONTEXT: Mapping[str, Callable[[Facts], Any]] = {
    "risk": lambda facts: round(facts.risk * 100),
    "risk_max": lambda facts: round(facts.caller.agent.autonomy.risk_max * 100),
    "level": lambda facts: facts.level.value,
    "untrusted": lambda facts: facts.taint.untrusted,
    "private": lambda facts: facts.taint.private,
    "network": lambda facts: bool(facts.action.arguments.get("network", False)),
    "shell": lambda facts: facts.shell,
    "command": lambda facts: " ".join(_words(facts))[:COMMAND_CHARS_MAX],
    "words": _words,
    "method": lambda facts: str(facts.action.arguments.get("method", "")),
    "task": lambda facts: facts.caller.task or "",
    "delegated": lambda facts: bool(facts.caller.actors),
}


def _context(facts: Facts) -> dict[str, Any]:
    return {name: value(facts) for name, value in _CONTEXT.items()}


def _question(reads: Reads, facts: Facts, resource: str) -> Question:
    """All that the answer can turn on. The action is always part of it, and with it the resource's type."""
    asked: list[Any] = [facts.row.name]
    asked += (tuple(value) if isinstance(value, list) else value for value in (_CONTEXT[name](facts) for name in reads.context))
    if reads.principal:
        agent = facts.caller.agent
        asked += (agent.id, agent.name, agent.autonomy)
    if reads.whole:  # and that of the others, which are there to be asked about by name
        asked += (resource, *(tuple(_attributes(facts, one).items()) for one in facts.resources))
    elif reads.resource:
        attributes = _attributes(facts, resource)
        asked += (attributes.get(name) for name in reads.resource)
    return tuple(asked)


def _principal(facts: Facts) -> dict[str, Any]:
    agent = facts.caller.agent
    attributes = {"name": agent.name, "autonomy": agent.autonomy.value}
    return {"uid": {"type": "Agent", "id": agent.id}, "attrs": attributes, "parents": []}


def _entity(facts: Facts, resource: str) -> dict[str, Any]:
    uid = {"type": _type_of(facts.row.kind), "id": resource}
    return {"uid": uid, "attrs": _attributes(facts, resource), "parents": []}


def _type_of(kind: Kind) -> str:
    return {Kind.FILE: "File", Kind.PROGRAM: "Program", Kind.ORIGIN: "Origin"}.get(kind, "Thing")


def _attributes(facts: Facts, resource: str) -> dict[str, Any]:
    if facts.row.kind is Kind.FILE:
        workspace, _, path = resource.partition("/")
        return {"workspace": workspace, "path": path, "name": path.rpartition("/")[2], "own": facts.own}
    if facts.row.kind is Kind.ORIGIN:
        return _origin_attributes(facts.action, listed=facts.listed)
    return {"name": resource.rpartition("/")[2] if facts.row.kind is Kind.PROGRAM else resource}


def _origin_attributes(action: Action, *, listed: bool) -> dict[str, Any]:
    address = origins.parse(str(action.arguments["url"]))
    return {"url": address.url, "scheme": address.scheme, "host": address.host, "port": address.port, "listed": listed}


class Policies:
    """The policy in force; read at the start and when told to, never by itself."""

    def __init__(self, file: Path | None, settings: Mapping[str, Any]) -> None:
        """`settings`: what else decides (the least isolation level, whether approval is required), for the hash. Never raises."""
        self._file = file
        self._settings = dict(settings)
        self._lock = threading.Lock()
        try:
            self._current = self._read()
        except CohortError as error:
            self._current = Policy(None, sha256_hex(f"broken {error.message}".encode()), error.message)

    def current(self) -> Policy:
        return self._current

    def reload(self, before: Callable[[Policy], object] = lambda _policy: None) -> Policy:
        """Read the file again and put it in force. `before`: told what will be in force, just before it is; when it raises, nothing changes.

        Raises:
            CohortError POLICY_INVALID: names the line; what was in force stays in force.
        """
        with self._lock:
            found = self._read()
            before(found)
            # Commit point. Actions decided before this line were decided by the former policy, whose hash their records carry.
            self._current = found
            return found

    def _read(self) -> Policy:
        text = policy_text.read_file(self._file) if self._file is not None else policy_text.read()
        body = {
            "version": POLICY_VERSION,
            "schema": policy_text.schema_text(),
            "policies": list(text.canonical),
            "settings": self._settings,
        }
        return Policy(text, sha256_hex(canonical_json(body)))
