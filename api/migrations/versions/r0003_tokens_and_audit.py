"""Tokens, and the record of what operators changed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", ID),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("former_hash", sa.LargeBinary(32)),
        sa.Column("former_until_us", sa.BigInteger),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("topics", sa.JSON),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("expires_us", sa.BigInteger),
        sa.Column("revoked_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
        sa.UniqueConstraint("former_hash", name="uq_tokens_former_hash"),
    )
    op.create_table(
        "audit",
        sa.Column("id", ID),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("topic", sa.String(249)),
        sa.Column("target", sa.String(500)),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at_us", "audit", ["at_us"])
    op.create_index("ix_audit_topic", "audit", ["topic", "id"])
