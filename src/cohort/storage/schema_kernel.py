"""The kernel's tables, on the same metadata as `schema.py`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)


def _id(name: str = "id", *, primary_key: bool = False, nullable: bool = False, index: bool = False) -> Column[str]:
    return Column(name, String(40), primary_key=primary_key, nullable=nullable, index=index)


def declare(metadata: MetaData) -> None:
    """Add the kernel's tables to `metadata`."""
    _identity(metadata)
    _workspaces(metadata)
    _approvals(metadata)
    _actions(metadata)
    _audit(metadata)


def _identity(metadata: MetaData) -> None:
    Table(
        "agents",
        metadata,
        _id(primary_key=True),
        Column("name", String(63), nullable=False, unique=True),
        Column("state", String(12), nullable=False),  # active | suspended | revoked
        Column("scopes", JSON, nullable=False),  # list of texts
        Column("autonomy", String(16), nullable=False),
        Column("limits", JSON, nullable=False),
        Column("egress", JSON, nullable=False),  # list of origins
        Column("description", Text, nullable=False),
        _id("workspace", nullable=True),
        Column("created_us", BigInteger, nullable=False),
        Column("created_by", String(63), nullable=False),
        Column("changed_us", BigInteger, nullable=False),
        Column("untrusted_us", BigInteger, nullable=True),  # since when its data may hold what strangers wrote
    )
    Table(
        "agent_keys",
        metadata,
        _id(primary_key=True),
        Column("agent", String(40), ForeignKey("agents.id"), nullable=False, index=True),
        Column("sha256", String(64), nullable=False, unique=True),
        Column("created_us", BigInteger, nullable=False),
        Column("revoked_us", BigInteger, nullable=True),
    )
    Table(
        "agent_sessions",
        metadata,
        _id(primary_key=True),
        Column("agent", String(40), ForeignKey("agents.id"), nullable=False, index=True),
        Column("parent", String(40), nullable=True, index=True),  # the session this one was delegated from
        Column("scopes", JSON, nullable=False),
        Column("actors", JSON, nullable=False),  # chain of delegation, nearest first
        Column("task", String(200), nullable=True),
        Column("bound_to", String(128), nullable=True),
        Column("created_us", BigInteger, nullable=False),
        Column("created_by", String(63), nullable=False),
        Column("person_key", String(40), nullable=True, index=True),  # the person's key that had it made by hand; it ends with that key
        Column("expires_us", BigInteger, nullable=False),
        Column("revoked_us", BigInteger, nullable=True),
        Column("revoked_why", Text, nullable=True),
        Column("untrusted", Boolean, nullable=False),
        Column("private", Boolean, nullable=False),
    )
    Table(
        "refresh_tokens",
        metadata,
        Column("sha256", String(64), primary_key=True),
        Column("session", String(40), ForeignKey("agent_sessions.id"), nullable=False, index=True),
        Column("audience", String(200), nullable=False),
        Column("created_us", BigInteger, nullable=False),
        Column("expires_us", BigInteger, nullable=False),
        Column("used_us", BigInteger, nullable=True),
    )


def _workspaces(metadata: MetaData) -> None:
    Table(
        "workspaces",
        metadata,
        _id(primary_key=True),
        Column("agent", String(40), ForeignKey("agents.id"), nullable=False, index=True),
        Column("directory", String(64), nullable=False, unique=True),  # opaque; a name under the workspaces' root
        Column("backend", String(16), nullable=False),
        Column("uid", Integer, nullable=False),
        Column("bytes_max", BigInteger, nullable=False),
        Column("files_max", BigInteger, nullable=False),
        Column("state", String(12), nullable=False),  # creating | ready | removing | removed
        _id("base", nullable=True),  # the snapshot that `diff` compares with
        _id("restoring", nullable=True),  # the snapshot that is being put back, empty for none at all; NULL: nothing is under way
        Column("created_us", BigInteger, nullable=False),
    )
    Table(
        "snapshot_blobs",  # as `blobs`, but what no snapshot names is deleted
        metadata,
        Column("digest", String(64), primary_key=True),
        Column("logical_bytes", BigInteger, nullable=False),
        Column("data", LargeBinary, nullable=False),  # zstandard
    )
    Table(
        "workspace_snapshots",
        metadata,
        _id(primary_key=True),
        Column("workspace", String(40), ForeignKey("workspaces.id"), nullable=False, index=True),
        Column("digest", String(64), nullable=False),  # of the manifest, a blob
        Column("files", BigInteger, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("created_us", BigInteger, nullable=False),
        Column("created_by", String(63), nullable=False),
        Column("reason", Text, nullable=False),
    )


def _approvals(metadata: MetaData) -> None:
    approvals = Table(
        "approvals",
        metadata,
        _id(primary_key=True),
        Column("state", String(12), nullable=False),
        Column("digest", String(64), nullable=False, index=True),
        Column("action", JSON, nullable=False),
        _id("agent", nullable=False, index=True),
        _id("session", nullable=False),
        Column("policy_hash", String(64), nullable=False),
        Column("risk", Float, nullable=False),
        Column("plain", Text, nullable=False),
        Column("touches", JSON, nullable=False),
        Column("why", Text, nullable=False),
        Column("asked_by", String(63), nullable=False),
        Column("task", String(200), nullable=True),
        Column("approvers_needed", Integer, nullable=False),
        Column("created_us", BigInteger, nullable=False, index=True),
        Column("expires_us", BigInteger, nullable=False),
        Column("decided_us", BigInteger, nullable=True),
        Column("grant", String(12), nullable=True),
        _id("rule", nullable=True),
        Column("note", Text, nullable=False),
        _id("consumed_by", nullable=True),  # the action
    )
    Index(
        "one_pending_approval",
        approvals.c.digest,
        unique=True,
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    )
    Index("ix_approvals_state_created_us", approvals.c.state, approvals.c.created_us)
    Index("ix_approvals_session_created_us", approvals.c.session, approvals.c.created_us)
    Table(
        "approval_votes",
        metadata,
        Column("approval", String(40), ForeignKey("approvals.id"), nullable=False),
        Column("approver", String(63), nullable=False),
        Column("answer", String(12), nullable=False),
        Column("at_us", BigInteger, nullable=False),
        Column("looked_ms", Integer, nullable=True),
        Column("detail", JSON, nullable=False),
        PrimaryKeyConstraint("approval", "approver"),
    )
    Table(
        "approval_rules",
        metadata,
        _id(primary_key=True),
        Column("grant", String(12), nullable=False),
        _id("agent", nullable=False, index=True),
        Column("operation", String(63), nullable=False),
        Column("resource", Text, nullable=False),
        Column("argv_prefix", JSON, nullable=False),
        _id("session", nullable=True),
        Column("task", String(200), nullable=True),
        Column("uses_left", Integer, nullable=True),
        Column("expires_us", BigInteger, nullable=False),
        Column("created_by", String(63), nullable=False),
        Column("created_us", BigInteger, nullable=False),
        Column("revoked_us", BigInteger, nullable=True),
        Column("plain", Text, nullable=False),
        Column("fixed", String(64), nullable=False),  # digest of the arguments that have to stay as approved
    )


def _actions(metadata: MetaData) -> None:
    Table(
        "agent_processes",
        metadata,
        _id(primary_key=True),
        _id("agent", nullable=False),
        _id("session", nullable=True),
        Column("control", String(128), nullable=False),  # which control process runs it
        Column("argv", JSON, nullable=False),
        Column("started_us", BigInteger, nullable=False),
        Column("ended_us", BigInteger, nullable=True),
        Column("ended", JSON, nullable=True),
        Index("ix_agent_processes_agent_started_us", "agent", "started_us"),
    )
    Table(
        "action_keys",
        metadata,
        _id("session", nullable=False),
        Column("idempotency_key", String(128), nullable=False),
        _id("action", nullable=False),
        Column("digest", String(64), nullable=False),
        Column("result", JSON, nullable=True),  # None: it began, and its end is not known
        Column("created_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("session", "idempotency_key"),
    )
    Table(
        "agent_usage",
        metadata,
        _id("agent", nullable=False),
        Column("day", Integer, nullable=False),  # days since the epoch, UTC
        Column("actions", BigInteger, nullable=False),
        Column("cpu_us", BigInteger, nullable=False),
        Column("egress_bytes", BigInteger, nullable=False),
        PrimaryKeyConstraint("agent", "day"),
    )


_ROW_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""On SQLite a primary key of this type is the table's own order; a BIGINT would get an index beside it."""


def _audit(metadata: MetaData) -> None:
    entries = Table(
        "audit_entries",
        metadata,
        Column("idx", _ROW_NUMBER, primary_key=True, autoincrement=False),
        Column("entry", LargeBinary, nullable=False),  # canonical JSON: the leaf's data
        Column("leaf", LargeBinary(32), nullable=False),
        Column("at_us", BigInteger, nullable=False, index=True),
        Column("kind", String(16), nullable=False),
        _id("agent", nullable=True),
        _id("action", nullable=True),
    )
    Index("audit_entries_of_agent", entries.c.agent, entries.c.idx)
    Index("audit_entries_of_action", entries.c.action, entries.c.kind)
    Index(
        "audit_entries_of_rare_kind",
        entries.c.kind,
        entries.c.idx,
        sqlite_where=text("kind NOT IN ('intent', 'outcome')"),
        postgresql_where=text("kind NOT IN ('intent', 'outcome')"),
    )
    Table(
        "audit_nodes",
        metadata,
        Column("level", Integer, nullable=False),  # 8, 16, 24, ...; level 0 is the leaves themselves
        Column("idx", BigInteger, nullable=False),  # of the complete subtree of 2**level leaves
        Column("hash", LargeBinary(32), nullable=False),
        PrimaryKeyConstraint("level", "idx"),
    )
    Table(
        "audit_checkpoints",
        metadata,
        Column("size", _ROW_NUMBER, primary_key=True, autoincrement=False),
        Column("root", LargeBinary(32), nullable=False),
        Column("note", Text, nullable=False),
        Column("at_us", BigInteger, nullable=False),
    )
    Table(
        "audit_payloads",
        metadata,
        Column("commitment", String(64), primary_key=True),
        Column("idx", BigInteger, nullable=False, index=True),
        Column("name", String(63), nullable=False),
        Column("subject", String(64), nullable=True, index=True),
        Column("salt", LargeBinary(32), nullable=True),  # None once erased
        Column("data", LargeBinary, nullable=True),
        Column("erased_us", BigInteger, nullable=True),
    )
    Table(
        "audit_anchors",
        metadata,
        Column("anchor", String(200), nullable=False),  # what and where, such as `file:/mnt/other/checkpoints`
        Column("size", BigInteger, nullable=False),
        Column("root", LargeBinary(32), nullable=False),
        Column("receipt", Text, nullable=False),
        Column("at_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("anchor", "size"),
    )
