"""A key pair of the installation: records of erasures that everybody can check, and nobody forge."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("installation", sa.Column("signing_key", sa.LargeBinary(32)))
    op.add_column("erasures", sa.Column("public_key", sa.LargeBinary(32)))
