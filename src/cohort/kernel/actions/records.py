"""What the audit log keeps of an action. Payloads stay out: what is large or somebody's own is there as its size and digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.base import redaction
from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.ids import ActionId
from cohort.kernel.actions.catalogue import Row
from cohort.kernel.actions.facts import relevant
from cohort.kernel.model import Action, Caller, Decision, Level, Record, RecordKind, Risk
from cohort.kernel.ports import Grant

TEXT_CHARS_MAX = 2000
WORDS_MAX = 64
SCOPES_MAX = 20
REACH_MAX = 50
RULES_MAX = 200
ARGUMENTS_BYTES_MAX = 16_384
RESULT_BYTES_MAX = 8192
REASON_CHARS_MAX = 500
PAYLOADS = frozenset(
    {"content", "stdin", "stdout", "stderr", "body", "payload", "headers", "env", "code", "text", "query", "token", "parameters"}
)
"""Arguments and results that may hold anything: kept as digest and size only."""


def decided(
    kind: RecordKind, action: Action, digest: str, row: Row, caller: Caller, decision: Decision, level: Level, grant: Grant | None = None
) -> Record:
    """An INTENT, or a DECISION about an action that does not run now."""
    body: dict[str, Any] = {
        "operation": action.operation,
        "resource": action.resource,
        "arguments": without_payloads(redaction.values(action.arguments, PAYLOADS), ARGUMENTS_BYTES_MAX),
        "digest": digest,
        "answer": "allow" if kind is RecordKind.INTENT else decision.answer.value,
        "code": decision.code,
        "reason": redaction.text(decision.reason[:REASON_CHARS_MAX]),
        "rules": list(decision.rules),
        "policy_hash": decision.policy_hash,
        "risk": decision.risk,
        "risk_level": Risk.of(decision.risk).value,
        "token": caller.token,
        "scope": row.scope,
        "scopes": [str(scope)[:TEXT_CHARS_MAX] for scope in relevant(caller.scopes, row.scope)[:SCOPES_MAX]],
        "asked": decision.answer.value == "ask",
        "grant": grant_id(grant),
        "level": level.value,
    }
    if row.executes:
        body["limits"] = _limits(caller)
        body["reach"] = list(caller.agent.egress[:REACH_MAX]) if action.arguments.get("network") else []
        body["argv_sha256"] = argv_digest(tuple(action.arguments["argv"])) if "argv" in action.arguments else None
    return Record(kind, body, action.agent, action.session, action.id)


def argv_digest(argv: tuple[str, ...]) -> str:
    """SHA-256 over the words of a command line joined by NUL, which no word can hold."""
    return sha256_hex("\0".join(argv).encode(errors="surrogateescape"))


def _limits(caller: Caller) -> dict[str, float]:
    """What holds for one command, for whoever compares it later with what was used."""
    limits = caller.agent.limits
    return {"command_s": limits.command_s, "memory_bytes": limits.memory_bytes, "cpu_cores": limits.cpu_cores}


def unreadable(action: Action, caller: Caller, operation: str, code: str, reason: str) -> Record:
    """A DECISION about a request that is no action: only its name and the fault are kept."""
    body: dict[str, Any] = {
        "operation": operation[:100],
        "resource": "",
        "arguments": {},
        "digest": None,
        "answer": "deny",
        "code": code,
        "reason": redaction.text(reason[:REASON_CHARS_MAX]),
        "rules": ["parse"],
        "policy_hash": None,
        "risk": 0.0,
        "risk_level": Risk.LOW.value,
        "token": caller.token,
        "scope": None,
        "scopes": [],
        "asked": False,
        "grant": None,
        "level": Level.NONE.value,
    }
    return Record(RecordKind.DECISION, body, action.agent, action.session, action.id)


def flood(caller: Caller, attempts: int) -> Record:
    """That an agent asks more often than is recorded one by one; what it asks for up to a minute from here on is refused."""
    body = {"event": "flood", "attempts": attempts, "token": caller.token}
    return Record(RecordKind.QUOTA, body, caller.agent.id, caller.session)


def egress_ended(action: ActionId, target: str) -> Record:
    """That the bytes an action may pass to the network are used up, so that its connection to `target` was cut or refused."""
    return Record(RecordKind.QUOTA, {"event": "egress", "target": target[:TEXT_CHARS_MAX]}, action=action)


def ended(action: Action, body: Mapping[str, Any], private: Mapping[str, str]) -> Record:
    return Record(RecordKind.OUTCOME, body, action.agent, action.session, action.id, private)


def policy(hashed: str, rules: Sequence[str], broken: str, actor: str) -> Record:
    """Which policy is in force from here on. `rules`: the ids of the user's own; `broken`: why there is none."""
    body = {
        "event": "policy",
        "hash": hashed,
        "rules": list(rules[:RULES_MAX]),
        "count": len(rules),
        "broken": broken[:REASON_CHARS_MAX],
        "actor": actor,
    }
    return Record(RecordKind.POLICY, body)


def grant_id(grant: Grant | None) -> str | None:
    """The approval, or the rule, that let the action pass."""
    if grant is None:
        return None
    return str(grant.approval) if grant.approval is not None else str(grant.rule.id if grant.rule else None)


def without_payloads(values: Mapping[str, Any], bytes_max: int) -> dict[str, Any]:
    """`values` with payloads and long parts as size and digest; the whole as size and digest when it is still too large."""
    short = {name: _measured(value) if name in PAYLOADS and value not in ("", {}, []) else _short(value) for name, value in values.items()}
    return short if len(canonical_json(short)) <= bytes_max else _measured(values)


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX else _measured(value)
    if isinstance(value, Mapping):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, Sequence):
        return [_short(inner) for inner in value] if len(value) <= WORDS_MAX else _measured(list(value))
    return value


def _measured(value: Any) -> dict[str, Any]:
    data = value.encode() if isinstance(value, str) else canonical_json(value)
    return {"bytes": len(data), "sha256": sha256_hex(data)}
