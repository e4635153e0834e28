"""The policy: Cedar, asked about one action. It can forbid, want a person, or waive the question that only table and autonomy would ask.

A policy that could not be read decides nothing: every action is refused until it is mended and loaded again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cedarpy

from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.errors import CohortError
from cohort.kernel.actions import origins, policy_text
from cohort.kernel.actions.catalogue import Kind
from cohort.kernel.actions.facts import Facts
from cohort.kernel.actions.policy_text import PolicyText, Statement
from cohort.kernel.actions.rules import Verdict
from cohort.kernel.model import Action, Answer

POLICY_VERSION = 1
"""Of how policies are asked; a change of it changes every policy hash."""
COMMAND_CHARS_MAX = 8192


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy set in force. `hash`: SHA-256 over its canonical form, the version and the settings that decide too."""

    text: PolicyText | None
    hash: str
    broken: str = ""

    @property
    def asks_taint(self) -> bool:
        """Whether an answer can turn on what the session has read."""
        return self.text is not None and self.text.asks_taint

    def judge(self, facts: Facts) -> Verdict:
        """The worst answer over every resource that the action touches."""
        if self.text is None:
            return Verdict(Answer.DENY, ("policy.broken",), f"the policy cannot be used: {self.broken}", code="POLICY_UNAVAILABLE")
        asked = [_request(facts, resource) for resource in facts.resources]
        entities = json.dumps([_principal(facts), *(_entity(facts, resource) for resource in dict.fromkeys(facts.resources))])
        results = cedarpy.is_authorized_batch(asked, self.text.parsed, entities)
        verdicts = [_verdict(result, self.text.statements) for result in results]
        return min(verdicts, key=lambda found: (_RANK[found.answer], found.waives))


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


def _context(facts: Facts) -> dict[str, Any]:
    words = [str(word) for word in facts.action.arguments.get("argv", ())]
    return {
        "risk": round(facts.risk * 100),
        "risk_max": round(facts.caller.agent.autonomy.risk_max * 100),
        "level": facts.level.value,
        "untrusted": facts.taint.untrusted,
        "private": facts.taint.private,
        "network": bool(facts.action.arguments.get("network", False)),
        "shell": facts.shell,
        "command": " ".join(words)[:COMMAND_CHARS_MAX],
        "words": words,
        "method": str(facts.action.arguments.get("method", "")),
        "task": facts.caller.task or "",
        "delegated": bool(facts.caller.actors),
    }


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
