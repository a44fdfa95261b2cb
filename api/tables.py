"""The tables, as SQLAlchemy describes them. `migrations/` makes them; a test holds the two together.

Built for 4,000 topics and 50 million commits: numbers are keys, never texts; every read of the feed, the live set and
the ledger is a range of one index that begins with the topic. Times are microseconds since 1970 UTC (`..._us`).
On PostgreSQL `commits` and `ledger` are partitioned by commit time, a month each, so that old history is dropped and
not vacuumed; that is why `committed_us` stands in their keys.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    Uuid,
    text,
)

# A row of any table, as SQLAlchemy gives it.
Record = Row[*tuple[Any, ...]]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")

# What became of records, by append, and of rows, by the other kinds.
LEDGER_COUNTS = (
    "consumed", "carried_in", "written", "duplicates", "differing", "dead_letters", "lost", "carried_out", "late",
    "early", "tombstones", "rows_in", "rows_out", "dead_in", "dead_out", "restored", "erased", "expired",
)  # fmt: skip


def _ledger_line() -> list[Column[Any]]:
    """Where a line starts and ends, and the position after it; null where no append moved one."""
    return [
        Column("from_version", Uuid),
        Column("from_offset", BigInteger),
        Column("to_offset", BigInteger),
        *(Column(name, BigInteger, nullable=False, server_default="0") for name in LEDGER_COUNTS),
        Column("lost_ranges", JSON),
        Column("carried", LargeBinary),
        Column("highest_us", BigInteger),
        Column("watermark_us", BigInteger),
        Column("published_to_us", BigInteger),
        Column("broker_topic_id", String(64)),
    ]


installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("defaults_version", Integer, nullable=False),  # raised by every change of `defaults`
    Column("runs_from", Integer, nullable=False),  # oldest revision whose code runs on this schema
    Column("secret", LargeBinary(32), nullable=False),  # key of the hashes that audit keeps of erased values
    Column("signing_key", LargeBinary(32)),  # private; made at its first use
)

topics = Table(
    "topics",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(249), nullable=False, unique=True),
    Column("epoch", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),  # head; 0: no commit yet
    Column("oldest", BigInteger, nullable=False),  # first sequence that the feed still has
    Column("head_us", BigInteger),  # commit time of the head
    Column("created_us", BigInteger, nullable=False),
    Column("paused_us", BigInteger),
    Column("schema_version", Integer, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("settings_version", Integer, nullable=False),
    Column("settings", JSON, nullable=False),  # the topic's own; defaults stand in `defaults`
    Column("period_us", BigInteger),  # fixed by the first commit with rows
    Column("next_lake_partition", Integer, nullable=False),  # above every number that was ever used
    Column("gap_sequence", BigInteger),  # first commit that lost records and that nobody accepted yet
    Column(
        "suspended_sequence", BigInteger
    ),  # commit whose dead letters stopped the topic (error_mode: suspend)
    Column("complete_until_us", BigInteger),  # highest that was ever true; never goes back
    Column("broker_partitions", JSON),  # numbers, as a worker asked the broker for them
    Column("broker_partitions_us", BigInteger),  # when it asked
    Column("rows_total", BigInteger, nullable=False),  # ever added by appends and rewrites: for loaders' lag
    Column("live_files", BigInteger, nullable=False),
    Column("live_rows", BigInteger, nullable=False),
    Column("live_bytes", BigInteger, nullable=False),
    Column("live_dead_letters", BigInteger, nullable=False),
)

epochs = Table(
    "epochs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("topic_id", BigInteger, ForeignKey("topics.id"), nullable=False, index=True),
    Column("epoch", String(64), nullable=False, unique=True),
    Column("opened_us", BigInteger, nullable=False),
    Column("common_sequence", BigInteger, nullable=False),  # last one shared with the epoch before
)

lake_partitions = Table(
    "lake_partitions",
    metadata,
    Column("topic_id", BigInteger, ForeignKey("topics.id"), primary_key=True),
    Column("lake_partition", Integer, primary_key=True, autoincrement=False),
    Column("broker_partition", Integer, nullable=False),
    Column("broker_topic_id", String(64)),
    Column("open", Boolean, nullable=False),
    Column("next", BigInteger),  # null: never committed
    Column("carried", LargeBinary, nullable=False),  # portable roaring bitmap of distances below next
    Column("carried_count", BigInteger, nullable=False),
    Column("highest_us", BigInteger),
    Column("watermark_us", BigInteger),
    Column("published_to_us", BigInteger),
    Column("version", Uuid),  # the commit that made it
    Column(
        "start_from", String(64)
    ),  # where reading begins after a reset: earliest, end, an offset or a time
    Column("caught_up_us", BigInteger),  # newest report that showed the stored position at the log's end
)
# One broker partition has one open life at a time.
Index(
    "uq_lake_partitions_open",
    lake_partitions.c.topic_id,
    lake_partitions.c.broker_partition,
    unique=True,
    postgresql_where=text("open"),
    sqlite_where=text("open"),
)

commits = Table(
    "commits",
    metadata,
    Column("topic_id", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("committed_us", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Uuid, nullable=False),
    Column("epoch_id", BigInteger, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("worker", String(200)),
    Column(
        "digest", LargeBinary(32), nullable=False
    ),  # of the request, to tell a repeat from a reuse of its id
    Column("schema_version", Integer, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("files_added", Integer, nullable=False),
    Column("files_removed", Integer, nullable=False),
    Column("rows_added", BigInteger, nullable=False),
    Column("rows_total", BigInteger, nullable=False),  # of the topic, after it
    postgresql_partition_by="RANGE (committed_us)",
)

# Apart from `commits`, because a partitioned table cannot hold an id unique over all of its months.
commit_ids = Table(
    "commit_ids",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("topic_id", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("committed_us", BigInteger, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("topic_id", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("lake_partition", Integer, primary_key=True, autoincrement=False),
    Column("committed_us", BigInteger, primary_key=True, autoincrement=False),
    *_ledger_line(),
    postgresql_partition_by="RANGE (committed_us)",
)
# The last line of a lake partition at or below a sequence: the position as of then.
Index("ix_ledger_lake_partition", ledger.c.topic_id, ledger.c.lake_partition, ledger.c.sequence)

# What is left of commits older than `history`: one line per lake partition and day, of all its lines of that day.
folded = Table(
    "folded",
    metadata,
    Column("topic_id", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # of the last line in it
    Column("lake_partition", Integer, primary_key=True, autoincrement=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("committed_us", BigInteger, nullable=False),  # of the last line in it
    Column("id", Uuid, nullable=False),  # of the last append in it, else of the last commit
    Column("lines", BigInteger, nullable=False),
    *_ledger_line(),
)

files = Table(
    "files",
    metadata,
    Column("id", Id, primary_key=True),  # grows with the sequence within a topic
    Column("topic_id", BigInteger, nullable=False),
    Column("added_sequence", BigInteger, nullable=False),
    Column("removed_sequence", BigInteger),
    Column("kind", String(8), nullable=False),  # of the commit that added it
    Column("what", String(12), nullable=False),
    Column("late", Boolean, nullable=False),
    Column("sealed", Boolean, nullable=False),
    Column("url", Text, nullable=False),
    Column("url_hash", LargeBinary(16), nullable=False),  # keeps "never used before" a small index
    Column("bytes", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("periods", JSON, nullable=False),  # [[start_us, end_us, rows], ...]
    Column("lowest_us", BigInteger),
    Column("highest_us", BigInteger),
    Column("newest_commit_us", BigInteger, nullable=False),  # of its newest original row, for retention
    Column("newest_sequence", BigInteger, nullable=False),  # of its newest content, for `files?after=`
    Column("swept_us", BigInteger),  # since when its object may be gone
    Index("uq_files_url_hash", "url_hash", unique=True),
    Index("ix_files_added", "topic_id", "added_sequence"),
)
Index(
    "ix_files_live",
    files.c.topic_id,
    files.c.id,
    postgresql_where=files.c.removed_sequence.is_(None),
    sqlite_where=files.c.removed_sequence.is_(None),
)
Index(
    "ix_files_removed",
    files.c.topic_id,
    files.c.removed_sequence,
    postgresql_where=files.c.removed_sequence.is_not(None),
    sqlite_where=files.c.removed_sequence.is_not(None),
)

periods = Table(
    "periods",
    metadata,
    Column("topic_id", BigInteger, ForeignKey("topics.id"), primary_key=True),
    Column("start_us", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", BigInteger, nullable=False),
    Column("sealed_sequence", BigInteger),
    Column("reopened_sequence", BigInteger),  # first commit that added rows since it was sealed
    Column("reopened_us", BigInteger),
)

schemas = Table(
    "schemas",
    metadata,
    Column("topic_id", BigInteger, ForeignKey("topics.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("columns", JSON, nullable=False),
    Column("decisions", JSON, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

defaults = Table(
    "defaults",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("pattern", String(500), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("settings", JSON, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("version", String(100), nullable=False),
    Column("group", String(255)),
    Column("sent_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False, index=True),
    Column("memory_bytes", BigInteger),
    Column("memory_limit", BigInteger),
    Column("rule_version", Integer, nullable=False),
)

# What each worker last said of each topic; replaced whole by its next report.
worker_topics = Table(
    "worker_topics",
    metadata,
    Column("worker_id", BigInteger, ForeignKey("workers.id"), primary_key=True),
    Column("topic_id", BigInteger, ForeignKey("topics.id"), primary_key=True, index=True),
    Column("state", String(16), nullable=False),
    Column("reason", String(100)),
    Column("detail", String(2000)),
    Column("since_us", BigInteger, nullable=False),  # first report with this state
    Column("received_us", BigInteger, nullable=False),
    Column(
        "partitions", JSON, nullable=False
    ),  # [[lake_partition, next, end, stable_end, carried, at_end], ...]
)

loaders = Table(
    "loaders",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("topics", JSON, nullable=False),  # names, and patterns that begin with ^
    Column("start", String(10), nullable=False),  # snapshot, earliest or now
    Column("hold", Boolean, nullable=False),
    Column("mirror_expiry", Boolean, nullable=False),
    Column("seen_topic_id", BigInteger, nullable=False),  # topics up to this one have a cursor if they match
    Column("registered_us", BigInteger, nullable=False),
    Column("lease_holder", String(200)),
    Column("lease_expires_us", BigInteger),
)

cursors = Table(
    "cursors",
    metadata,
    Column("loader_id", BigInteger, ForeignKey("loaders.id", ondelete="CASCADE"), primary_key=True),
    Column("topic_id", BigInteger, ForeignKey("topics.id"), primary_key=True, index=True),
    Column("epoch", String(64), nullable=False),
    Column("sequence", BigInteger),  # null: a snapshot is to be loaded first
    Column("committed_us", BigInteger, nullable=False),  # of the commit at it; later ones are not older
    Column("rows_total", BigInteger, nullable=False),  # of the topic at it
    Column("moved_us", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),  # SHA-256; the token itself is never stored
    Column("former_hash", LargeBinary(32), unique=True),  # of the token before the rotation
    Column("former_until_us", BigInteger),  # until when that one still works
    Column("scopes", JSON, nullable=False),
    Column("topics", JSON),  # names, and patterns that begin with ^; null: all
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("who", String(200), nullable=False),  # name of the token, or how else somebody came in
    Column("action", String(50), nullable=False),  # operationId of the contract
    Column("topic", String(249)),
    Column("target", String(500)),
    Column("before", JSON),
    Column("after", JSON),
    Index("ix_audit_topic", "topic", "id"),
)
