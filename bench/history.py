"""A generated past for the API's database: topics with millions of commits, made by the database itself.

What is made is what workers would have left: for each commit an id, a ledger line and a file; the newest files of a
topic are live, the others were removed by seals and swept. Positions stand at the end of it, so that real commits go on
from there.
"""

from dataclasses import dataclass

import psycopg

HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Past:
    """Sizes of the history; the first topic is the deep one."""

    topics: int
    commits: int  # of all topics
    deep: int  # of the deep one, among them
    now_us: int

    @property
    def each(self) -> int:
        """Commits of each other topic."""
        return max(1, (self.commits - self.deep) // max(1, self.topics - 1))


TOPICS = """
INSERT INTO topics (name, epoch, sequence, oldest, head_us, created_us, schema_version, rule_version,
  settings_version, settings, next_lake_partition, rows_total, live_files, live_rows, live_bytes, live_dead_letters)
SELECT 'bench-' || n, md5(n::text), count, 1, %(now)s, 0, 0, 0, 0, '{}', 1, count * 10, 100, 1000, 10000, 0
FROM (SELECT n, CASE WHEN n = 0 THEN %(deep)s ELSE %(each)s END AS count
      FROM generate_series(0, %(topics)s - 1) AS n) AS made ORDER BY n
"""
# A commit's id is known from its place, so that the tables agree without a join.
PLACES = """
(SELECT t.id AS topic_id, s AS sequence, %(now)s - (t.sequence - s) * %(step)s AS at_us,
        md5(t.id || '/' || s)::uuid AS id, t.sequence - s < 100 AS live
 FROM topics t, LATERAL generate_series(1, t.sequence) AS s WHERE t.id BETWEEN %(low)s AND %(high)s) AS p
"""
COMMITS = f"""
INSERT INTO commits (topic_id, sequence, committed_us, id, epoch_id, kind, digest, schema_version, rule_version,
  files_added, files_removed, rows_added, rows_total)
SELECT topic_id, sequence, at_us, id, topic_id, 'append', '\\x00', 0, 0, 1, 0, 10, sequence * 10 FROM {PLACES}
"""
IDS = f"""
INSERT INTO commit_ids (id, topic_id, sequence, committed_us) SELECT id, topic_id, sequence, at_us FROM {PLACES}
"""
LINES = f"""
INSERT INTO ledger (topic_id, sequence, committed_us, lake_partition, from_version, from_offset, to_offset, consumed,
  written, carried)
SELECT topic_id, sequence, at_us, 0, CASE WHEN sequence > 1 THEN md5(topic_id || '/' || sequence - 1)::uuid END,
  (sequence - 1) * 10, sequence * 10, 10, 10, decode('3a30000000000000', 'hex') FROM {PLACES}
"""
FILES = f"""
INSERT INTO files (topic_id, added_sequence, removed_sequence, kind, what, late, sealed, url, url_hash, bytes, rows,
  sha256, schema_version, periods, lowest_us, highest_us, newest_commit_us, newest_sequence)
SELECT topic_id, sequence, CASE WHEN live THEN NULL ELSE sequence + 1 END, 'append', 'rows', false, false,
  's3://bench/fresh/' || id || '-rows.parquet', decode(md5(id::text), 'hex'), 100, 10, '\\x00', 0, '[]', at_us, at_us,
  at_us, sequence FROM {PLACES}
"""
POSITIONS = """
INSERT INTO lake_partitions (topic_id, lake_partition, broker_partition, open, next, carried, carried_count, version)
SELECT id, 0, 0, true, sequence * 10, decode('3a30000000000000', 'hex'), 0, md5(id || '/' || sequence)::uuid
FROM topics
"""
EPOCHS = """
INSERT INTO epochs (topic_id, epoch, opened_us, common_sequence) SELECT id, epoch, 0, 0 FROM topics ORDER BY id
"""

TOPICS_AT_ONCE = 500


def generate(address: str, past: Past) -> int:
    """Fills a migrated, empty database; how many commits it has then."""
    step = HOUR_US // 60
    values = {"now": past.now_us, "deep": past.deep, "each": past.each, "topics": past.topics, "step": step}
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute(TOPICS, values)
        connection.execute(EPOCHS)
        connection.execute(POSITIONS)
        for low in range(1, past.topics + 1, TOPICS_AT_ONCE):
            for statement in (COMMITS, IDS, LINES, FILES):
                connection.execute(
                    statement.encode(), {**values, "low": low, "high": low + TOPICS_AT_ONCE - 1}
                )
        for table in ("topics", "commits", "commit_ids", "ledger", "files", "lake_partitions"):
            connection.execute(f"ANALYZE {table}".encode())
        row = connection.execute("SELECT sum(sequence) FROM topics").fetchone()
        return int(row[0]) if row else 0
