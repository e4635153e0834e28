"""The tables of the gateway's clients."""

import sqlalchemy as sa
from alembic import op

revision = "0004_gateway"
down_revision = "0003_flags"


def upgrade() -> None:
    op.create_table(
        "client_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("services", sa.JSON(), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("budget_usd_micro_per_day", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=63), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_client_keys_sha256")),
    )
    op.create_table(
        "budgets",
        sa.Column("scope", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("usd_micro", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.String(length=63), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name=op.f("pk_budgets")),
    )
    op.create_table(
        "spending",
        sa.Column("hour_us", sa.BigInteger(), nullable=False),
        sa.Column("service", sa.String(length=63), nullable=False),
        sa.Column("release", sa.String(length=80), nullable=False),
        sa.Column("route", sa.String(length=128), nullable=False),
        sa.Column("client_key", sa.String(length=40), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),
        sa.Column("tokens_in", sa.BigInteger(), nullable=False),
        sa.Column("tokens_out", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd_micro", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour_us", "service", "release", "route", "client_key", name=op.f("pk_spending")),
    )
