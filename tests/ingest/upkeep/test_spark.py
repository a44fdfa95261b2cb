"""The page's snippet for Spark, where pyspark is (`pip install pyspark` is 550 MB, and wants a Java): else left out.

The store is a folder here, since Spark's client of S3 is another 500 MB of jars: what is tried is the reading of
`live/TOPIC.json` and of our files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.ingest.small_lake import SmallLake, rows, small_lake
from tests.ingest.upkeep.test_expire import PAGE, expire
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow
pytest.importorskip("pyspark", reason="pyspark is not installed: it is no part of what the tests need")


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket) -> Iterator[SmallLake]:
    with small_lake(tmp_path, None, bucket) as made:
        yield made


def test_spark_reads_what_live_names(lake: SmallLake, tmp_path: Path) -> None:
    from pyspark.sql import SparkSession

    lake.append((0, 20), (1, 10), dead=2)
    line = lake.next_line(0, 7)
    made = rows(0, range(line.from_offset, line.to_offset))
    made = made.set_column(
        made.schema.get_field_index("n"), "n", pa.array([1] * 7)
    )  # what is a double before
    lake.publish([line], made.append_column("more", pa.array(["x"] * 7)))
    expire(lake)
    for key in lake.bucket.keys(""):
        path = tmp_path / lake.bucket.name / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lake.bucket.read(key))
    told = tmp_path / lake.bucket.name / "live" / f"{lake.topic}.json"
    document = json.loads(told.read_text())
    next(file for file in document["files"] if file["rows"] == 7)["schema_version"] = 1
    told.write_text(json.dumps(document))
    found = re.search(r"```python\n# spark\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    program = found[1].replace("s3a://", f"file://{tmp_path}/")
    program = program.replace("BUCKET", lake.bucket.name).replace("TOPIC", lake.topic)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )
    try:
        names: dict[str, Any] = {"spark": spark}
        exec(program, names)
        events = names["events"]
        assert events.count() == 33
        [[whole, more]] = events.selectExpr("count_if(n = 1)", "count(more)").collect()
        assert (whole, more) == (7, 7)
        [[lowest]] = events.selectExpr("cast(min(_event_time) AS string)").collect()
        assert lowest == "2026-01-01 12:00:00"
    finally:
        spark.stop()
