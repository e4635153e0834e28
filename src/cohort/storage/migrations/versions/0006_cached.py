"""Which calls of a rollout were answered from a cache."""

import sqlalchemy as sa
from alembic import op

revision = "0006_cached"
down_revision = "0005_routing"


def upgrade() -> None:
    op.add_column("calls", sa.Column("cached", sa.Boolean(), nullable=True))
