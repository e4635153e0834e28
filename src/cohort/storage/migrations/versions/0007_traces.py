"""The newest calls, each with what happened to it."""

import sqlalchemy as sa
from alembic import op

revision = "0007_traces"
down_revision = "0006_cached"


def upgrade() -> None:
    op.create_table(
        "traces",
        sa.Column("gateway", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("arm", sa.String(length=12), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("service", sa.String(length=63), nullable=False),
        sa.Column("release", sa.String(length=80), nullable=False),
        sa.Column("route", sa.String(length=128), nullable=False),
        sa.Column("client_key", sa.String(length=40), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("cache", sa.String(length=8), nullable=False),
        sa.Column("degraded", sa.Boolean(), nullable=False),
        sa.Column("run", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "epoch", "seq", "arm", name=op.f("pk_traces")),
    )
    op.create_index("ix_traces_at_us", "traces", ["at_us"])
    op.create_index("ix_traces_trace_id", "traces", ["trace_id"])
