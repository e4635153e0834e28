"""Routed calls, and the wanted shares that follow from them."""

import sqlalchemy as sa
from alembic import op

revision = "0005_routing"
down_revision = "0004_gateway"


def upgrade() -> None:
    op.create_table(
        "routing_samples",
        sa.Column("gateway", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("service", sa.String(length=63), nullable=False),
        sa.Column("release", sa.String(length=80), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("bucket", sa.String(length=16), nullable=False),
        sa.Column("strong", sa.Boolean(), nullable=False),
        sa.Column("difficulty", sa.Float(), nullable=False),
        sa.Column("boundary", sa.Float(), nullable=False),
        sa.Column("features", sa.String(length=32), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("cost_usd_micro", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("gateway", "epoch", "seq", name=op.f("pk_routing_samples")),
    )
    op.create_index("ix_routing_samples_newest", "routing_samples", ["service", "at_us"])
    op.create_table(
        "routing_targets",
        sa.Column("service", sa.String(length=63), nullable=False),
        sa.Column("release", sa.String(length=80), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.Column("strong_share", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("service", "release", "changed_us", name=op.f("pk_routing_targets")),
    )
