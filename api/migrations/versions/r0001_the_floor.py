"""Topics, positions, commits, ledger, files, periods, schemas, defaults, workers."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
COUNT_COLUMNS = (
    "consumed", "carried_in", "written", "duplicates", "differing", "dead_letters", "lost", "carried_out",
    "late", "early", "tombstones",
)  # fmt: skip
OTHER_COUNTS = ("rows_in", "rows_out", "dead_in", "dead_out", "restored", "erased", "expired")


def count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def upgrade() -> None:
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.Integer, autoincrement=False),
        sa.Column("defaults_version", sa.Integer, nullable=False),
        sa.Column("runs_from", sa.Integer, nullable=False),
        sa.Column("secret", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    op.bulk_insert(
        installation, [{"id": 1, "defaults_version": 0, "runs_from": 1, "secret": secrets.token_bytes(32)}]
    )
    op.create_table(
        "topics",
        sa.Column("id", ID),
        sa.Column("name", sa.String(249), nullable=False),
        sa.Column("epoch", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("oldest", sa.BigInteger, nullable=False),
        sa.Column("head_us", sa.BigInteger),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("paused_us", sa.BigInteger),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("rule_version", sa.Integer, nullable=False),
        sa.Column("settings_version", sa.Integer, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("period_us", sa.BigInteger),
        sa.Column("next_lake_partition", sa.Integer, nullable=False),
        sa.Column("gap_sequence", sa.BigInteger),
        sa.Column("complete_until_us", sa.BigInteger),
        sa.Column("broker_partitions", sa.JSON),
        sa.Column("broker_partitions_us", sa.BigInteger),
        sa.Column("rows_total", sa.BigInteger, nullable=False),
        sa.Column("live_files", sa.BigInteger, nullable=False),
        sa.Column("live_rows", sa.BigInteger, nullable=False),
        sa.Column("live_bytes", sa.BigInteger, nullable=False),
        sa.Column("live_dead_letters", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_topics"),
        sa.UniqueConstraint("name", name="uq_topics_name"),
    )
    op.create_table(
        "epochs",
        sa.Column("id", ID),
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.String(64), nullable=False),
        sa.Column("opened_us", sa.BigInteger, nullable=False),
        sa.Column("common_sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_epochs"),
        sa.UniqueConstraint("epoch", name="uq_epochs_epoch"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_epochs_topic_id"),
    )
    op.create_index("ix_epochs_topic_id", "epochs", ["topic_id"])
    op.create_table(
        "lake_partitions",
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("lake_partition", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("broker_partition", sa.Integer, nullable=False),
        sa.Column("broker_topic_id", sa.String(64)),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("next", sa.BigInteger),
        sa.Column("carried", sa.LargeBinary, nullable=False),
        sa.Column("carried_count", sa.BigInteger, nullable=False),
        sa.Column("highest_us", sa.BigInteger),
        sa.Column("watermark_us", sa.BigInteger),
        sa.Column("published_to_us", sa.BigInteger),
        sa.Column("version", sa.Uuid),
        sa.Column("start_from", sa.String(64)),
        sa.Column("caught_up_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("topic_id", "lake_partition", name="pk_lake_partitions"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_lake_partitions_topic_id"),
    )
    op.create_index(
        "uq_lake_partitions_open",
        "lake_partitions",
        ["topic_id", "broker_partition"],
        unique=True,
        postgresql_where=sa.text("open"),
        sqlite_where=sa.text("open"),
    )
    op.create_table(
        "commits",
        sa.Column("topic_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("committed_us", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("epoch_id", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("worker", sa.String(200)),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("rule_version", sa.Integer, nullable=False),
        sa.Column("files_added", sa.Integer, nullable=False),
        sa.Column("files_removed", sa.Integer, nullable=False),
        sa.Column("rows_added", sa.BigInteger, nullable=False),
        sa.Column("rows_total", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "sequence", "committed_us", name="pk_commits"),
        postgresql_partition_by="RANGE (committed_us)",
    )
    op.create_table(
        "commit_ids",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("committed_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_commit_ids"),
    )
    op.create_table(
        "ledger",
        sa.Column("topic_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("lake_partition", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("committed_us", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("from_version", sa.Uuid),
        sa.Column("from_offset", sa.BigInteger),
        sa.Column("to_offset", sa.BigInteger),
        *(count(name) for name in COUNT_COLUMNS),
        sa.Column("lost_ranges", sa.JSON),
        sa.Column("carried", sa.LargeBinary),
        sa.Column("highest_us", sa.BigInteger),
        sa.Column("watermark_us", sa.BigInteger),
        sa.Column("published_to_us", sa.BigInteger),
        sa.Column("broker_topic_id", sa.String(64)),
        *(count(name) for name in OTHER_COUNTS),
        sa.PrimaryKeyConstraint("topic_id", "sequence", "lake_partition", "committed_us", name="pk_ledger"),
        postgresql_partition_by="RANGE (committed_us)",
    )
    op.create_index("ix_ledger_lake_partition", "ledger", ["topic_id", "lake_partition", "sequence"])
    if op.get_bind().dialect.name == "postgresql":
        for table in ("commits", "ledger"):
            op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    op.create_table(
        "files",
        sa.Column("id", ID),
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("added_sequence", sa.BigInteger, nullable=False),
        sa.Column("removed_sequence", sa.BigInteger),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("what", sa.String(12), nullable=False),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("sealed", sa.Boolean, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("url_hash", sa.LargeBinary(16), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("periods", sa.JSON, nullable=False),
        sa.Column("lowest_us", sa.BigInteger),
        sa.Column("highest_us", sa.BigInteger),
        sa.Column("newest_commit_us", sa.BigInteger, nullable=False),
        sa.Column("newest_sequence", sa.BigInteger, nullable=False),
        sa.Column("swept_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_index("uq_files_url_hash", "files", ["url_hash"], unique=True)
    op.create_index("ix_files_added", "files", ["topic_id", "added_sequence"])
    live, removed = sa.text("removed_sequence IS NULL"), sa.text("removed_sequence IS NOT NULL")
    op.create_index("ix_files_live", "files", ["topic_id", "id"], postgresql_where=live, sqlite_where=live)
    op.create_index(
        "ix_files_removed",
        "files",
        ["topic_id", "removed_sequence"],
        postgresql_where=removed,
        sqlite_where=removed,
    )
    op.create_table(
        "periods",
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("sealed_sequence", sa.BigInteger),
        sa.Column("reopened_sequence", sa.BigInteger),
        sa.Column("reopened_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("topic_id", "start_us", name="pk_periods"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_periods_topic_id"),
    )
    op.create_table(
        "schemas",
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("columns", sa.JSON, nullable=False),
        sa.Column("decisions", sa.JSON, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "version", name="pk_schemas"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_schemas_topic_id"),
    )
    op.create_table(
        "defaults",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("pattern", sa.String(500), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_defaults"),
    )
    op.create_table(
        "workers",
        sa.Column("id", ID),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("group", sa.String(255)),
        sa.Column("sent_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger),
        sa.Column("memory_limit", sa.BigInteger),
        sa.Column("rule_version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.UniqueConstraint("name", name="uq_workers_name"),
    )
    op.create_index("ix_workers_received_us", "workers", ["received_us"])
    op.create_table(
        "worker_topics",
        sa.Column("worker_id", sa.BigInteger, nullable=False),
        sa.Column("topic_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(100)),
        sa.Column("detail", sa.String(2000)),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("partitions", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("worker_id", "topic_id", name="pk_worker_topics"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name="fk_worker_topics_worker_id"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_worker_topics_topic_id"),
    )
    op.create_index("ix_worker_topics_topic_id", "worker_topics", ["topic_id"])
