"""The tables of the gateway's clients: their keys, budgets, what was spent, and their newest calls."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, MetaData, PrimaryKeyConstraint, String, Table, Text


def declare(metadata: MetaData) -> None:
    """Add the tables to `metadata`."""
    Table(
        "client_keys",
        metadata,
        Column("id", String(40), primary_key=True),
        Column("name", String(63), nullable=False),
        Column("sha256", String(64), nullable=False, unique=True),
        Column("services", JSON, nullable=False),  # names; empty: all
        Column("tenant", String(63), nullable=False),
        Column("team", String(63), nullable=False),
        Column("agent", String(63), nullable=False),
        Column("budget_usd_micro_per_day", BigInteger, nullable=True),
        Column("requests_per_minute", BigInteger, nullable=True),
        Column("tokens_per_minute", BigInteger, nullable=True),
        Column("expires_us", BigInteger, nullable=True),
        Column("created_us", BigInteger, nullable=False),
        Column("created_by", String(63), nullable=False),
        Column("revoked_us", BigInteger, nullable=True),
    )
    Table(
        "budgets",
        metadata,
        Column("scope", String(12), nullable=False),  # all | team | service | agent | run
        Column("name", String(63), nullable=False),  # `*`: each; empty for `all`
        Column("usd_micro", BigInteger, nullable=False),
        Column("changed_us", BigInteger, nullable=False),
        Column("changed_by", String(63), nullable=False),
        PrimaryKeyConstraint("scope", "name"),
    )
    Table(
        "spending",
        metadata,
        Column("hour_us", BigInteger, nullable=False),
        Column("service", String(63), nullable=False),
        Column("release", String(80), nullable=False),
        Column("route", String(128), nullable=False),
        Column("client_key", String(40), nullable=False),  # empty where none was needed
        Column("calls", BigInteger, nullable=False),
        Column("failed", BigInteger, nullable=False),
        Column("unpriced", BigInteger, nullable=False),  # calls whose cost is not known
        Column("tokens_in", BigInteger, nullable=False),
        Column("tokens_out", BigInteger, nullable=False),
        Column("cost_usd_micro", BigInteger, nullable=False),
        PrimaryKeyConstraint("hour_us", "service", "release", "route", "client_key"),
    )
    Table(
        "traces",
        metadata,
        Column("gateway", String(40), nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("arm", String(12), nullable=False),
        Column("at_us", BigInteger, nullable=False, index=True),
        Column("service", String(63), nullable=False),
        Column("release", String(80), nullable=False),
        Column("route", String(128), nullable=False),
        Column("client_key", String(40), nullable=False),
        Column("result", String(16), nullable=False),
        Column("cache", String(8), nullable=False),
        Column("degraded", Boolean, nullable=False),
        Column("run", String(63), nullable=False),
        Column("agent", String(63), nullable=False),
        Column("unit", String(32), nullable=False),
        Column("trace_id", String(32), nullable=False),
        Column("record", Text, nullable=False),  # the gateway's record, as JSON; bounded by delivery.traces
        PrimaryKeyConstraint("gateway", "epoch", "seq", "arm"),
        Index("ix_traces_trace_id", "trace_id"),
    )
