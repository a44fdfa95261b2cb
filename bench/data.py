"""The events of the benchmark: JSON of about 290 bytes, made fast and always the same.

An id (UUID), a time, a nested object, fifteen fields; times are out of order by up to half a second.
"""

from collections.abc import Iterator

import duckdb
import pyarrow as pa

CHUNK = 100_000

_QUERY = """
WITH source AS (
    SELECT i, md5(i::VARCHAR) AS digest, (hash(i) >> 1)::BIGINT AS h FROM range($from, $to) AS numbers(i)
)
SELECT NULL::BLOB AS key, 0 AS timestamp, $topic AS topic, encode(to_json({
    id: concat_ws('-', digest[1:8], digest[9:12], digest[13:16], digest[17:20], digest[21:32]),
    time: strftime(TIMESTAMP '2026-01-01' + to_microseconds(i * 1000 + h % 500_000), '%Y-%m-%dT%H:%M:%S.%gZ'),
    type: ['view', 'click', 'order', 'refund'][1 + h % 4],
    user: 100_000 + (h >> 8) % 900_000,
    session: digest[5:16],
    country: ['ID', 'DE', 'US', 'BR', 'JP'][1 + (h >> 16) % 5],
    page: '/shop/' || ((h >> 20) % 5_000)::VARCHAR,
    price: round(((h >> 24) % 100_000) / 100, 2),
    quantity: 1 + (h >> 30) % 9,
    currency: 'EUR',
    ok: (h >> 34) % 50 <> 0,
    latency: round(((h >> 36) % 900_000) / 1000, 3),
    device: {os: ['ios', 'android', 'web'][1 + (h >> 40) % 3], version: 1 + (h >> 44) % 20, wide: (h >> 50) % 2 = 0}
})::VARCHAR) AS value
FROM source ORDER BY i
"""


def events(topic: str, count: int) -> Iterator[pa.Table]:
    """`count` records for `topic`, in tables of CHUNK: `key` (none), `timestamp` (0: now), `topic`, `value` (JSON)."""
    database = duckdb.connect()
    for start in range(0, count, CHUNK):
        bounds = {"topic": topic, "from": start, "to": min(start + CHUNK, count)}
        yield database.execute(_QUERY, bounds).to_arrow_table()
