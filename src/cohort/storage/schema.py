"""Every table, once. Times are microseconds since the epoch; money is millionths of a dollar; JSON columns hold plain values.

The migrations under `migrations/` are what creates them; a test holds the two against each other.
"""

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
    UniqueConstraint,
    text,
)

from cohort.storage import schema_gateway, schema_kernel

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)
"""Single values of the installation: the routing table's version (`routing_version`), the table last pushed (`routing_table`)."""

blobs = Table(
    "blobs",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the uncompressed bytes, hexadecimal
    Column("logical_bytes", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),  # zstandard
)

services = Table(
    "services",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("stable", String(80), nullable=False),  # digest of the release
    Column("revision", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
)

flag_kills = Table(
    "flag_kills",
    metadata,
    Column("flag", String(129), primary_key=True),  # a name, or the beginning of names and `*`
    Column("reason", Text, nullable=False),
    Column("killed_by", String(63), nullable=False),
    Column("killed_us", BigInteger, nullable=False),
)
"""Flags that are off everywhere, whatever a release says."""

routing_samples = Table(
    "routing_samples",
    metadata,
    Column("gateway", String(63), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("service", String(63), nullable=False),
    Column("release", String(80), nullable=False),
    Column("unit", String(32), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("bucket", String(16), nullable=False),  # control or adaptive
    Column("strong", Boolean, nullable=False),
    Column("difficulty", Float, nullable=False),
    Column("boundary", Float, nullable=False),
    Column("features", String(32), nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("cost_usd_micro", BigInteger, nullable=True),
    PrimaryKeyConstraint("gateway", "epoch", "seq"),
)
"""The newest calls for which a routing policy chose between two models."""
Index("ix_routing_samples_newest", routing_samples.c.service, routing_samples.c.at_us)

routing_targets = Table(
    "routing_targets",
    metadata,
    Column("service", String(63), nullable=False),
    Column("release", String(80), nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("strong_share", Float, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("service", "release", "changed_us"),
)
"""The wanted share of the strong model, as outcomes moved it; the newest of a release holds."""

releases = Table(
    "releases",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("service", String(63), nullable=False, index=True),
    Column("version", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("manifest", String(64), nullable=False),  # digest of the blob with the canonical manifest
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", String(63), nullable=False),
    UniqueConstraint("service", "version"),
)

tags = Table(
    "tags",
    metadata,
    Column("service", String(63), nullable=False),
    Column("tag", String(63), nullable=False),
    Column("digest", String(80), nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("service", "tag"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("service", String(63), nullable=False, index=True),
    Column("stable", String(80), nullable=False),
    Column("candidate", String(80), nullable=False),
    Column("plan", JSON, nullable=False),
    Column("speed", Float, nullable=False),
    Column("salt", String(64), nullable=False),
    Column("state", String(24), nullable=False),
    Column("stage", Integer, nullable=False),  # index into the plan's stages
    Column("stage_run", Integer, nullable=False),
    Column("stage_since_us", BigInteger, nullable=False),
    Column("held_us", BigInteger, nullable=False),  # time spent paused in this stage run
    Column("paused_since_us", BigInteger, nullable=True),
    Column("approved", Boolean, nullable=False),  # a person approved leaving this stage run
    Column("waived", Text, nullable=True),  # why the certificate of this stage run is not needed
    Column("revision", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", String(63), nullable=False),
    Column("ended_us", BigInteger, nullable=True),
    Column("reason", Text, nullable=True),
    Column("evidence", JSON, nullable=False),  # state of the e-processes up to `position`
    Column("position", JSON, nullable=False),  # key of the last record taken into the evidence
    Column("summary", JSON, nullable=False),  # figures of a finished rollout
)
Index(
    "one_active_rollout",
    rollouts.c.service,
    unique=True,
    sqlite_where=text("ended_us IS NULL"),
    postgresql_where=text("ended_us IS NULL"),
)

transitions = Table(
    "transitions",
    metadata,
    Column("rollout_id", String(40), ForeignKey("rollouts.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("actor", String(63), nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("idempotency_key", String(128), nullable=True),
    PrimaryKeyConstraint("rollout_id", "seq"),
    UniqueConstraint("rollout_id", "idempotency_key"),
)

calls = Table(
    "calls",
    metadata,
    Column("rollout_id", String(40), ForeignKey("rollouts.id"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("gateway", String(40), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", String(12), nullable=False),  # call | feedback; an open call has no result yet
    Column("arm", String(12), nullable=False),
    Column("stage_run", Integer, nullable=False),
    Column("share", Float, nullable=False),
    Column("unit", String(32), nullable=False),
    Column("result", String(16), nullable=True),
    Column("status", Integer, nullable=False),
    Column("first_us", BigInteger, nullable=True),
    Column("total_us", BigInteger, nullable=True),
    Column("tokens_in", Integer, nullable=True),
    Column("tokens_out", Integer, nullable=True),
    Column("cost_usd_micro", BigInteger, nullable=True),
    Column("score", Float, nullable=True),
    Column("negative", Boolean, nullable=False),
    Column("cached", Boolean, nullable=True),  # true: answered from a cache, and in no evidence
    PrimaryKeyConstraint("rollout_id", "at_us", "gateway", "epoch", "seq", "kind", "arm"),
)
Index("ix_calls_open", calls.c.rollout_id, sqlite_where=text("result IS NULL"), postgresql_where=text("result IS NULL"))

units = Table(
    "units",
    metadata,
    Column("rollout_id", String(40), ForeignKey("rollouts.id"), nullable=False),
    Column("unit", String(32), nullable=False),
    Column("low", Float, nullable=False),  # the unit's bucket is known to lie in [low, high)
    Column("high", Float, nullable=False),
    Column("stage_run", Integer, nullable=False),  # the stage run that `seen` is about
    Column("seen", Integer, nullable=False),  # bit set of what this unit has been counted for
    PrimaryKeyConstraint("rollout_id", "unit"),
)

series = Table(
    "series",
    metadata,
    Column("rollout_id", String(40), ForeignKey("rollouts.id"), nullable=False),
    Column("bucket_us", BigInteger, nullable=False),
    Column("arm", String(12), nullable=False),
    Column("calls", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("latency", JSON, nullable=False),  # sketch of total latency
    PrimaryKeyConstraint("rollout_id", "bucket_us", "arm"),
)

traffic = Table(
    "traffic",
    metadata,
    Column("service", String(63), nullable=False),
    Column("release", String(80), nullable=False),
    Column("minute_us", BigInteger, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cached", Integer, nullable=False, server_default="0"),  # answered by a cache
    Column("units", Integer, nullable=False),  # first seen in this minute
    Column("units_failed", Integer, nullable=False),  # failed for the first time in this minute
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("cost_usd_micro", BigInteger, nullable=False),
    Column("latency", JSON, nullable=False),
    PrimaryKeyConstraint("service", "release", "minute_us"),
)

streams = Table(
    "streams",
    metadata,
    Column("gateway", String(40), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("taken_us", BigInteger, nullable=False),
)
"""How far each gateway's spool has been taken; moves in the same transaction as what was taken."""

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("role", String(16), nullable=False),  # admin | manager | operator | approver | auditor | viewer
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger, nullable=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", String(64), primary_key=True),  # of the cookie's value
    Column("key_id", String(40), ForeignKey("keys.id"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

schema_kernel.declare(metadata)
schema_gateway.declare(metadata)

agents = metadata.tables["agents"]
agent_keys = metadata.tables["agent_keys"]
agent_sessions = metadata.tables["agent_sessions"]
refresh_tokens = metadata.tables["refresh_tokens"]
workspaces = metadata.tables["workspaces"]
workspace_snapshots = metadata.tables["workspace_snapshots"]
snapshot_blobs = metadata.tables["snapshot_blobs"]
approvals = metadata.tables["approvals"]
approval_votes = metadata.tables["approval_votes"]
approval_rules = metadata.tables["approval_rules"]
action_keys = metadata.tables["action_keys"]
agent_usage = metadata.tables["agent_usage"]
audit_entries = metadata.tables["audit_entries"]
audit_nodes = metadata.tables["audit_nodes"]
audit_checkpoints = metadata.tables["audit_checkpoints"]
audit_payloads = metadata.tables["audit_payloads"]
audit_anchors = metadata.tables["audit_anchors"]
client_keys = metadata.tables["client_keys"]
budgets = metadata.tables["budgets"]
spending = metadata.tables["spending"]
traces = metadata.tables["traces"]
