"""A small lake to plant damage in, and the check that must find it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.verify import verify
from tests.ingest.small_lake import SmallLake, small_lake
from tests.stack.kafka import Kafka
from tests.stack.store import Bucket

Found = list[dict[str, Any]]
Check = Callable[..., tuple[int, Found]]


@pytest.fixture
def lake(tmp_path: Path, kafka: Kafka, bucket: Bucket) -> Iterator[SmallLake]:
    """Three commits over two partitions, with all that can become of a record."""
    with small_lake(tmp_path, kafka, bucket) as made:
        made.append((0, 100), (1, 50), duplicates=3, dead=2, late=4, carry=5)
        made.append((0, 60), carry=2)
        made.append((1, 40), dead=1)
        yield made


@pytest.fixture
def check(lake: SmallLake, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs verify: exit code, and findings without the held back (there always are some)."""

    def run(**options: Any) -> tuple[int, Found]:
        code = verify(lake.settings, as_json=True, **options)
        topics = json.loads(capsys.readouterr().out)["topics"]
        found = {each["code"] for topic in topics for each in topic["findings"]}
        assert found <= documented(), "docs/verify.md names every code"
        return code, [each for topic in topics for each in topic["findings"] if each["code"] != "held_back"]

    return run


def documented() -> set[str]:
    """The codes of the table in docs/verify.md."""
    page = Path(__file__).parents[3] / "docs" / "verify.md"
    cells = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


def codes(found: Found) -> set[str]:
    return {each["code"] for each in found}
