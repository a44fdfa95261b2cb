"""Lines of the ledger whose commits are folded."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

COUNTS = (
    "consumed", "carried_in", "written", "duplicates", "differing", "dead_letters", "lost", "carried_out", "late",
    "early", "tombstones", "rows_in", "rows_out", "dead_in", "dead_out", "restored", "erased", "expired",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "folded",
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("lake_partition", sa.Integer, nullable=False),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("committed_us", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("lines", sa.BigInteger, nullable=False),
        sa.Column("from_version", sa.Uuid),
        sa.Column("from_offset", sa.BigInteger),
        sa.Column("to_offset", sa.BigInteger),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in COUNTS),
        sa.Column("lost_ranges", sa.JSON),
        sa.Column("carried", sa.LargeBinary),
        sa.Column("highest_us", sa.BigInteger),
        sa.Column("watermark_us", sa.BigInteger),
        sa.Column("published_to_us", sa.BigInteger),
        sa.Column("broker_topic_id", sa.String(64)),
        sa.PrimaryKeyConstraint("topic_id", "sequence", "lake_partition", name="pk_folded"),
    )
