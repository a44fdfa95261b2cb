"""Topics that a dead letter stopped."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("topics", sa.Column("suspended_sequence", sa.BigInteger))
