"""Loaders and their cursors."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "loaders",
        sa.Column("id", ID),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("topics", sa.JSON, nullable=False),
        sa.Column("start", sa.String(10), nullable=False),
        sa.Column("hold", sa.Boolean, nullable=False),
        sa.Column("mirror_expiry", sa.Boolean, nullable=False),
        sa.Column("seen_topic_id", sa.BigInteger, nullable=False),
        sa.Column("registered_us", sa.BigInteger, nullable=False),
        sa.Column("lease_holder", sa.String(200)),
        sa.Column("lease_expires_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_loaders"),
        sa.UniqueConstraint("name", name="uq_loaders_name"),
    )
    op.create_table(
        "cursors",
        sa.Column("loader_id", sa.BigInteger, nullable=False),
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("committed_us", sa.BigInteger, nullable=False),
        sa.Column("rows_total", sa.BigInteger, nullable=False),
        sa.Column("moved_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("loader_id", "topic_id", name="pk_cursors"),
        sa.ForeignKeyConstraint(
            ["loader_id"], ["loaders.id"], name="fk_cursors_loader_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_cursors_topic_id"),
    )
    op.create_index("ix_cursors_topic_id", "cursors", ["topic_id"])
