"""How many calls of a minute a cache answered."""

import sqlalchemy as sa
from alembic import op

revision = "0008_cached_calls"
down_revision = "0007_traces"


def upgrade() -> None:
    op.add_column("traffic", sa.Column("cached", sa.Integer(), nullable=False, server_default="0"))
