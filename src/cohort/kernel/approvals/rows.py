"""Approvals, votes and rules in the database. Translates between rows and values; decides nothing.

Every function takes the connection of a transaction that the caller began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, not_, or_, select, update

from cohort.base.ids import ActionId, AgentId, AgentSessionId, ApprovalId, GrantRuleId
from cohort.kernel.approvals.grants import Terms
from cohort.kernel.approvals.limits import HOUR_US
from cohort.kernel.approvals.plain import without_credentials
from cohort.kernel.approvals.rules import Asked
from cohort.kernel.model import Action, Approval, ApprovalState, GrantRule, GrantScope
from cohort.storage.database import Database
from cohort.storage.schema import metadata

approvals = metadata.tables["approvals"]
votes = metadata.tables["approval_votes"]
rules = metadata.tables["approval_rules"]
facts = metadata.tables["facts"]
agent_sessions = metadata.tables["agent_sessions"]

VERSION_FACT = "approvals_version"
_OPEN = (ApprovalState.PENDING.value, ApprovalState.APPROVED.value)


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's answer. `terms` are kept so that several can be put together."""

    approver: str
    answer: ApprovalState
    at_us: int
    looked_ms: int | None
    terms: Terms | None


def add(connection: Connection, approval: Approval) -> None:
    connection.execute(insert(approvals).values(**_row(approval), consumed_by=None))


def find(connection: Connection, approval: ApprovalId, *, hold: bool = False) -> Approval | None:
    """`hold`: until the end of the transaction nobody else changes it."""
    query = select(approvals).where(approvals.c.id == approval)
    row = connection.execute(query.with_for_update() if hold else query).mappings().one_or_none()
    return None if row is None else _approval(row, votes_of(connection, [row["id"]]))


def opened_by(connection: Connection, session: AgentSessionId) -> list[str]:
    """Who opened `session`, and those it was delegated from: a person's name where one acts by hand, otherwise an id."""
    columns = (agent_sessions.c.id, agent_sessions.c.parent, agent_sessions.c.created_by)
    tree = select(*columns).where(agent_sessions.c.id == session).cte("up", recursive=True)
    above = select(*columns).join(tree, agent_sessions.c.id == tree.c.parent)
    return list(connection.execute(select(tree.union(above).c.created_by)).scalars())


def newest(connection: Connection, digest: str, states: Sequence[ApprovalState]) -> Approval | None:
    """The newest approval of this digest that is written down in one of `states`."""
    among = approvals.c.state.in_([state.value for state in states])
    query = select(approvals).where(approvals.c.digest == digest, among).order_by(approvals.c.created_us.desc(), approvals.c.id).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _approval(row, votes_of(connection, [row["id"]]))


def listed(connection: Connection, state: ApprovalState | None, now_us: int, limit: int) -> Sequence[Approval]:
    """The newest first; in which state, as of `now_us`."""
    query = select(approvals).order_by(approvals.c.created_us.desc(), approvals.c.id).limit(limit)
    if state is not None:
        query = query.where(_is(state, now_us))
    rows = connection.execute(query).mappings().all()
    cast = votes_of(connection, [row["id"] for row in rows])
    return [_approval(row, cast) for row in rows]


def past_their_time(connection: Connection, now_us: int, limit: int) -> Sequence[Approval]:
    """What has expired and is not written down as such, oldest first."""
    query = select(approvals).where(_due(now_us)).order_by(approvals.c.created_us, approvals.c.id).limit(limit)
    rows = connection.execute(query).mappings().all()
    cast = votes_of(connection, [row["id"] for row in rows])
    return [_approval(row, cast) for row in rows]


def move(connection: Connection, approval: Approval, was: ApprovalState, consumed_by: ActionId | None = None) -> bool:
    """Write `approval` over itself, if it still is in the state `was`; False when somebody was faster."""
    kept = approval if approval.state.value in _OPEN else without_credentials(approval)
    changed = {name: value for name, value in _row(kept).items() if name not in ("id", "digest")}
    where = and_(approvals.c.id == approval.id, approvals.c.state == was.value)
    done = connection.execute(update(approvals).where(where).values(**changed, consumed_by=consumed_by))
    return done.rowcount == 1


def asked(connection: Connection, action: Action, task: str | None, now_us: int) -> Asked:
    """How much people are being asked, as of `now_us`."""

    def count(*conditions: ColumnElement[bool]) -> int:
        return connection.execute(select(func.count()).select_from(approvals).where(*conditions)).scalar_one()

    pending, session = _is(ApprovalState.PENDING, now_us), approvals.c.session == action.session
    return Asked(
        session=count(pending, session),
        task=0 if task is None else count(pending, approvals.c.task == task, approvals.c.agent == action.agent),
        in_total=count(pending),
        session_hour=count(session, approvals.c.created_us > now_us - HOUR_US),
    )


def add_vote(connection: Connection, approval: ApprovalId, vote: Vote) -> None:
    detail = {} if vote.terms is None else _terms_row(vote.terms)
    row = {"approval": approval, "approver": vote.approver, "answer": vote.answer.value, "at_us": vote.at_us, "looked_ms": vote.looked_ms}
    connection.execute(insert(votes).values(**row, detail=detail))


def votes_of(connection: Connection, ids: Sequence[ApprovalId]) -> Mapping[str, Sequence[Vote]]:
    """By approval, in the order they were cast."""
    found: dict[str, list[Vote]] = {}
    if ids:
        query = select(votes).where(votes.c.approval.in_(ids)).order_by(votes.c.at_us, votes.c.approver)
        for row in connection.execute(query):
            terms = _terms(row.detail) if row.detail else None
            vote = Vote(row.approver, ApprovalState(row.answer), row.at_us, row.looked_ms, terms)
            found.setdefault(row.approval, []).append(vote)
    return found


# --- rules ---


def add_rule(connection: Connection, rule: GrantRule) -> None:
    row = {name: getattr(rule, name) for name in rules.c.keys()}  # noqa: SIM118
    connection.execute(insert(rules).values(**row | {"grant": rule.grant.value, "argv_prefix": list(rule.argv_prefix)}))


def find_rule(connection: Connection, rule: GrantRuleId, *, hold: bool = False) -> GrantRule | None:
    query = select(rules).where(rules.c.id == rule)
    row = connection.execute(query.with_for_update() if hold else query).mappings().one_or_none()
    return None if row is None else _rule(row)


def all_rules(connection: Connection, limit: int) -> Sequence[GrantRule]:
    """The newest first, revoked and expired ones included."""
    rows = connection.execute(select(rules).order_by(rules.c.created_us.desc(), rules.c.id).limit(limit)).mappings()
    return [_rule(row) for row in rows]


def rules_in_force(connection: Connection, agent: AgentId, now_us: int, operation: str | None = None) -> Sequence[GrantRule]:
    """Of one agent, the oldest first."""
    left = or_(rules.c.uses_left.is_(None), rules.c.uses_left > 0)
    query = select(rules).where(rules.c.agent == agent, rules.c.revoked_us.is_(None), rules.c.expires_us > now_us, left)
    if operation is not None:
        query = query.where(rules.c.operation == operation)
    return [_rule(row) for row in connection.execute(query.order_by(rules.c.created_us, rules.c.id)).mappings()]


def use_rule(connection: Connection, rule: GrantRule, now_us: int) -> bool:
    """Take one use of it, if there still is one; False when somebody was faster."""
    here = and_(rules.c.id == rule.id, rules.c.revoked_us.is_(None), rules.c.expires_us > now_us)
    where = here if rule.uses_left is None else and_(here, rules.c.uses_left > 0)
    return connection.execute(update(rules).where(where).values(uses_left=rules.c.uses_left - 1)).rowcount == 1


def revoke_rule(connection: Connection, rule: GrantRuleId, now_us: int) -> bool:
    where = and_(rules.c.id == rule, rules.c.revoked_us.is_(None))
    return connection.execute(update(rules).where(where).values(revoked_us=now_us)).rowcount == 1


def of_rule(connection: Connection, rule: GrantRuleId) -> Approval | None:
    """The approval that made `rule`."""
    row = connection.execute(select(approvals).where(approvals.c.rule == rule).limit(1)).mappings().one_or_none()
    return None if row is None else _approval(row, votes_of(connection, [row["id"]]))


# --- version ---


def version(connection: Connection) -> int:
    return int(connection.execute(select(facts.c.value).where(facts.c.name == VERSION_FACT)).scalar() or 0)


def grow_version(database: Database, connection: Connection) -> None:
    """One more change. Held until the commit, so that the number grows in the order changes become visible."""
    database.lock(connection, VERSION_FACT)
    row = {"name": VERSION_FACT, "value": version(connection) + 1}
    statement = database.upsert(facts).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": row["value"]}))


# --- rows ---


def _due(now_us: int) -> ColumnElement[bool]:
    return and_(approvals.c.state.in_(_OPEN), approvals.c.expires_us <= now_us)


def _is(state: ApprovalState, now_us: int) -> ColumnElement[bool]:
    written = approvals.c.state == state.value
    if state is ApprovalState.EXPIRED:
        return or_(written, _due(now_us))
    return and_(written, not_(_due(now_us))) if state.value in _OPEN else written


def _row(approval: Approval) -> dict[str, Any]:
    plain_columns = ("id", "digest", "policy_hash", "risk", "plain", "why", "asked_by", "task", "approvers_needed")
    times = ("created_us", "expires_us", "decided_us")
    action = approval.action
    return {name: getattr(approval, name) for name in (*plain_columns, *times, "rule", "note")} | {
        "state": approval.state.value,
        "action": _action_row(action),
        "agent": action.agent,
        "session": action.session,
        "touches": list(approval.touches),
        "grant": approval.grant.value if approval.grant else None,
    }


def _action_row(action: Action) -> dict[str, Any]:
    return {
        "id": action.id,
        "operation": action.operation,
        "agent": action.agent,
        "session": action.session,
        "resource": action.resource,
        "arguments": dict(action.arguments),
        "schema_version": action.schema_version,
    }


def _action(row: Mapping[str, Any]) -> Action:
    agent, session = AgentId(row["agent"]), AgentSessionId(row["session"])
    return Action(ActionId(row["id"]), row["operation"], agent, session, row["resource"], row["arguments"], row["schema_version"])


def _approval(row: Mapping[Any, Any], cast: Mapping[str, Sequence[Vote]]) -> Approval:
    same = ("id", "digest", "policy_hash", "risk", "plain", "why", "asked_by", "task", "created_us", "expires_us", "approvers_needed")
    return Approval(
        **{name: row[name] for name in (*same, "decided_us", "rule", "note")},
        state=ApprovalState(row["state"]),
        action=_action(row["action"]),
        touches=tuple(row["touches"]),
        approvers=tuple(vote.approver for vote in cast.get(row["id"], ())),
        grant=GrantScope(row["grant"]) if row["grant"] else None,
    )


def _rule(row: Mapping[Any, Any]) -> GrantRule:
    return GrantRule(**{**row, "grant": GrantScope(row["grant"]), "argv_prefix": tuple(row["argv_prefix"])})


def _terms_row(terms: Terms) -> dict[str, Any]:
    return {
        "grant": terms.grant.value,
        "resource": terms.resource,
        "argv_prefix": list(terms.argv_prefix),
        "life_us": terms.life_us,
        "uses": terms.uses,
    }


def _terms(row: Mapping[str, Any]) -> Terms:
    return Terms(GrantScope(row["grant"]), row["resource"], tuple(row["argv_prefix"]), row["life_us"], row["uses"])
