"""The tables of the kernel: agents, workspaces, approvals, actions, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002_kernel"
down_revision = "0001_house"

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# The audit log for people who know SQL. A NUL, which a jsonb text cannot hold, is shown as the replacement character.
AUDIT_LOGS_POSTGRES = r"""
CREATE VIEW audit_logs AS
SELECT idx AS id, agent AS agent_id, at AS timestamp, coalesce(value #>> '{body,operation}', kind) AS action_type,
  value #>> '{body,resource}' AS target, value #> '{body,arguments}' AS parameters,
  coalesce(value #> '{body,result}', value #> '{body,outcome}', value #> '{body,answer}') AS result,
  coalesce(value #> '{body,grant}', 'null'::jsonb) <> 'null'::jsonb AS user_approved, value #>> '{body,risk_level}' AS risk_level,
  encode(leaf, 'hex') AS hash, CASE WHEN idx > 0 THEN value ->> 'prev' END AS previous_hash, at AS created_at
FROM (SELECT idx, agent, kind, leaf, timestamptz 'epoch' + at_us * interval '1 microsecond' AS at,
  replace(convert_from(entry, 'UTF8'), '\u0000', '\ufffd')::jsonb AS value FROM audit_entries) AS entries
"""
AUDIT_LOGS_SQLITE = """
CREATE VIEW audit_logs AS
SELECT idx AS id, agent AS agent_id, at AS timestamp, coalesce(json_extract(value, '$.body.operation'), kind) AS action_type,
  json_extract(value, '$.body.resource') AS target, json_extract(value, '$.body.arguments') AS parameters,
  coalesce(json_extract(value, '$.body.result'), json_extract(value, '$.body.outcome'), json_extract(value, '$.body.answer')) AS result,
  json_extract(value, '$.body.grant') IS NOT NULL AS user_approved, json_extract(value, '$.body.risk_level') AS risk_level,
  lower(hex(leaf)) AS hash, CASE WHEN idx > 0 THEN json_extract(value, '$.prev') END AS previous_hash, at AS created_at
FROM (SELECT idx, agent, kind, leaf, strftime('%Y-%m-%dT%H:%M:%f', at_us / 1000000.0, 'unixepoch') || 'Z' AS at,
  CAST(entry AS TEXT) AS value FROM audit_entries) AS entries
"""


def upgrade() -> None:
    _tables()
    op.execute(AUDIT_LOGS_POSTGRES if op.get_bind().dialect.name == "postgresql" else AUDIT_LOGS_SQLITE)


def _tables() -> None:
    op.create_table(
        "action_keys",
        sa.Column("session", sa.String(length=40), nullable=False),
        sa.Column("idempotency_key", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session", "idempotency_key", name=op.f("pk_action_keys")),
    )
    op.create_table(
        "agent_processes",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("session", sa.String(length=40), nullable=True),
        sa.Column("control", sa.String(length=128), nullable=False),
        sa.Column("argv", sa.JSON(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("ended", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_processes")),
    )
    op.create_index("ix_agent_processes_agent_started_us", "agent_processes", ["agent", "started_us"], unique=False)
    op.create_table(
        "agent_usage",
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("actions", sa.BigInteger(), nullable=False),
        sa.Column("cpu_us", sa.BigInteger(), nullable=False),
        sa.Column("egress_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "day", name=op.f("pk_agent_usage")),
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("autonomy", sa.String(length=16), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("egress", sa.JSON(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("workspace", sa.String(length=40), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=63), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.Column("untrusted_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("name", name=op.f("uq_agents_name")),
    )
    op.create_table(
        "approval_rules",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("grant", sa.String(length=12), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("operation", sa.String(length=63), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("argv_prefix", sa.JSON(), nullable=False),
        sa.Column("session", sa.String(length=40), nullable=True),
        sa.Column("task", sa.String(length=200), nullable=True),
        sa.Column("uses_left", sa.Integer(), nullable=True),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=63), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.Column("plain", sa.Text(), nullable=False),
        sa.Column("fixed", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval_rules")),
    )
    op.create_index(op.f("ix_approval_rules_agent"), "approval_rules", ["agent"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("action", sa.JSON(), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("session", sa.String(length=40), nullable=False),
        sa.Column("policy_hash", sa.String(length=64), nullable=False),
        sa.Column("risk", sa.Float(), nullable=False),
        sa.Column("plain", sa.Text(), nullable=False),
        sa.Column("touches", sa.JSON(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(length=63), nullable=False),
        sa.Column("task", sa.String(length=200), nullable=True),
        sa.Column("approvers_needed", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("decided_us", sa.BigInteger(), nullable=True),
        sa.Column("grant", sa.String(length=12), nullable=True),
        sa.Column("rule", sa.String(length=40), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("consumed_by", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    op.create_index(op.f("ix_approvals_agent"), "approvals", ["agent"], unique=False)
    op.create_index("ix_approvals_session_created_us", "approvals", ["session", "created_us"], unique=False)
    op.create_index("ix_approvals_state_created_us", "approvals", ["state", "created_us"], unique=False)
    op.create_index(op.f("ix_approvals_digest"), "approvals", ["digest"], unique=False)
    op.create_index(op.f("ix_approvals_created_us"), "approvals", ["created_us"], unique=False)
    op.create_index(
        "one_pending_approval",
        "approvals",
        ["digest"],
        unique=True,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "audit_anchors",
        sa.Column("anchor", sa.String(length=200), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("anchor", "size", name=op.f("pk_audit_anchors")),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("size", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_audit_checkpoints")),
    )
    op.create_table(
        "audit_entries",
        sa.Column("idx", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(length=32), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=True),
        sa.Column("action", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_audit_entries")),
    )
    op.create_index("audit_entries_of_action", "audit_entries", ["action", "kind"], unique=False)
    op.create_index(
        "audit_entries_of_rare_kind",
        "audit_entries",
        ["kind", "idx"],
        unique=False,
        sqlite_where=sa.text("kind NOT IN ('intent', 'outcome')"),
        postgresql_where=sa.text("kind NOT IN ('intent', 'outcome')"),
    )
    op.create_index("audit_entries_of_agent", "audit_entries", ["agent", "idx"], unique=False)
    op.create_index(op.f("ix_audit_entries_at_us"), "audit_entries", ["at_us"], unique=False)
    op.create_table(
        "audit_nodes",
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("level", "idx", name=op.f("pk_audit_nodes")),
    )
    op.create_table(
        "audit_payloads",
        sa.Column("commitment", sa.String(length=64), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=True),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("erased_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("commitment", name=op.f("pk_audit_payloads")),
    )
    op.create_index(op.f("ix_audit_payloads_idx"), "audit_payloads", ["idx"], unique=False)
    op.create_index(op.f("ix_audit_payloads_subject"), "audit_payloads", ["subject"], unique=False)
    op.create_table(
        "agent_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["agent"], ["agents.id"], name=op.f("fk_agent_keys_agent")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_agent_keys_sha256")),
    )
    op.create_index(op.f("ix_agent_keys_agent"), "agent_keys", ["agent"], unique=False)
    op.create_table(
        "agent_sessions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("parent", sa.String(length=40), nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("actors", sa.JSON(), nullable=False),
        sa.Column("task", sa.String(length=200), nullable=True),
        sa.Column("bound_to", sa.String(length=128), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=63), nullable=False),
        sa.Column("person_key", sa.String(length=40), nullable=True),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_why", sa.Text(), nullable=True),
        sa.Column("untrusted", sa.Boolean(), nullable=False),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["agent"], ["agents.id"], name=op.f("fk_agent_sessions_agent")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_sessions")),
    )
    op.create_index(op.f("ix_agent_sessions_agent"), "agent_sessions", ["agent"], unique=False)
    op.create_index(op.f("ix_agent_sessions_parent"), "agent_sessions", ["parent"], unique=False)
    op.create_index(op.f("ix_agent_sessions_person_key"), "agent_sessions", ["person_key"], unique=False)
    op.create_table(
        "approval_votes",
        sa.Column("approval", sa.String(length=40), nullable=False),
        sa.Column("approver", sa.String(length=63), nullable=False),
        sa.Column("answer", sa.String(length=12), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("looked_ms", sa.Integer(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["approval"], ["approvals.id"], name=op.f("fk_approval_votes_approval")),
        sa.PrimaryKeyConstraint("approval", "approver", name=op.f("pk_approval_votes")),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=40), nullable=False),
        sa.Column("directory", sa.String(length=64), nullable=False),
        sa.Column("backend", sa.String(length=16), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("bytes_max", sa.BigInteger(), nullable=False),
        sa.Column("files_max", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("base", sa.String(length=40), nullable=True),
        sa.Column("restoring", sa.String(length=40), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["agent"], ["agents.id"], name=op.f("fk_workspaces_agent")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("directory", name=op.f("uq_workspaces_directory")),
    )
    op.create_index(op.f("ix_workspaces_agent"), "workspaces", ["agent"], unique=False)
    op.create_table(
        "refresh_tokens",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("session", sa.String(length=40), nullable=False),
        sa.Column("audience", sa.String(length=200), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("used_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["session"], ["agent_sessions.id"], name=op.f("fk_refresh_tokens_session")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_refresh_tokens")),
    )
    op.create_index(op.f("ix_refresh_tokens_session"), "refresh_tokens", ["session"], unique=False)
    op.create_table(
        "snapshot_blobs",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("logical_bytes", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_snapshot_blobs")),
    )
    op.create_table(
        "workspace_snapshots",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("workspace", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=63), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_workspace_snapshots_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspace_snapshots")),
    )
    op.create_index(op.f("ix_workspace_snapshots_workspace"), "workspace_snapshots", ["workspace"], unique=False)
    op.execute("UPDATE keys SET role = 'manager' WHERE name = 'operator' AND role = 'operator'")  # the key of commands on this machine
