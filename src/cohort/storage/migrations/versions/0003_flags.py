"""The kill list of flags."""

import sqlalchemy as sa
from alembic import op

revision = "0003_flags"
down_revision = "0002_kernel"


def upgrade() -> None:
    op.create_table(
        "flag_kills",
        sa.Column("flag", sa.String(length=129), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("killed_by", sa.String(length=63), nullable=False),
        sa.Column("killed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("flag", name=op.f("pk_flag_kills")),
    )
