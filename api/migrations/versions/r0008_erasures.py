"""Erasures."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("field", sa.String(2000), nullable=False),
        sa.Column("value_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("rule_version", sa.Integer, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("until", sa.JSON, nullable=False),
        sa.Column("asked_us", sa.BigInteger, nullable=False),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("record", sa.JSON),
        sa.Column("signature", sa.LargeBinary(32)),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_erasures_topic_id"),
    )
    op.create_index("ix_erasures_topic_id", "erasures", ["topic_id"])
