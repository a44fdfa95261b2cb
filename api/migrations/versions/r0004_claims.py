"""Claims of upkeep."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("piece", sa.String(500), nullable=False),
        sa.Column("topic", sa.String(249)),
        sa.Column("holder", sa.String(200), nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("piece", name="pk_claims"),
    )
