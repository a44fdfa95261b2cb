"""The tables of what upkeep shares out, keeps and has erased; the others stand in `tables.py`."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Integer, LargeBinary, String, Table

from api.tables import Id, metadata

claims = Table(
    "claims",
    metadata,
    Column("piece", String(500), primary_key=True),  # what is claimed, as its claimants name it
    Column("topic", String(249)),
    Column("holder", String(200), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

holds = Table(
    "holds",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("topics", JSON, nullable=False),  # names, and patterns that begin with ^
    Column("reason", String(2000), nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", Id, primary_key=True),
    Column("topic_id", BigInteger, ForeignKey("topics.id"), nullable=False, index=True),
    Column("field", String(2000), nullable=False),  # whose values were asked for
    Column("value_hash", LargeBinary(32), nullable=False),  # keyed; the values themselves are never stored
    Column("number", BigInteger, nullable=False),  # of values
    Column("rule_version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),  # head when it was asked for
    Column("until", JSON, nullable=False),  # [[lake_partition, offset], ...]: what Kafka had then
    Column("asked_us", BigInteger, nullable=False),
    Column("finished_us", BigInteger),
    Column("record", JSON),
    Column("signature", LargeBinary(64)),  # of the record, by the installation's key
    Column("public_key", LargeBinary(32)),  # by which it can be checked
)
