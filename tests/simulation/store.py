"""An object store: objects under keys, a clock of its own, puts that fail, are slow, or whose reply is lost; a sweep.

An object is the table that was encoded, not its Parquet: what Parquet does to a table has tests of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingest.encode import Encoded, What
from ingest.encode import periods as periods_of
from ingest.lake import LakeUnavailable, Put
from ingest.position import time_to_text
from tests.simulation.clocks import Clock

BUCKET = "lake"


class Parcel:
    """In place of a file's bytes: the table, and what tells it from any other."""

    def __init__(self, table: pa.Table, what: What, late: bool) -> None:
        self.table = table
        self.rows: list[tuple[int, int, bytes]] = list(
            zip(
                table.column("_lake_partition").to_pylist(),
                table.column("_offset").to_pylist(),
                table.column("_key").to_pylist(),
                strict=True,
            )
        )
        self.sha256 = f"{hash((what, late, tuple(self.rows))) & (1 << 64) - 1:064x}"

    def __len__(self) -> int:
        return 100 + 10 * len(self.rows)


def encode(
    table: pa.Table,
    footer: Mapping[str, Any],
    *,
    what: What,
    late: bool,
    schema_version: int,
    period_us: int,
) -> Encoded:
    """In place of `ingest.encode.encode`."""
    parcel = Parcel(table, what, late)
    times = [] if what == "dead_letters" else table.column("_event_time").cast(pa.int64()).to_pylist()
    return Encoded(
        data=parcel,  # type: ignore[arg-type]
        what=what,
        late=late,
        rows=table.num_rows,
        sha256=parcel.sha256,
        schema_version=schema_version,
        periods=periods_of(table.column("_event_time"), period_us) if what == "rows" else [],
        lowest_us=min(times, default=None),
        highest_us=max(times, default=None),
    )


@dataclass(slots=True)
class StoredObject:
    parcel: Parcel
    modified_us: int


class Store:
    """The bucket. `failing` and `forgetting` are the chances that a put fails, or succeeds without saying so."""

    overwrites = False  # what If-None-Match prevents

    def __init__(self, rng: random.Random, clock: Clock, count: Callable[[str], None]) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.clock = clock
        self.rng = rng
        self.count = count
        self.swept = 0
        self.failing = 0.0
        self.forgetting = 0.0

    def put(self, url: str, parcel: Parcel) -> int:
        if self.rng.random() < self.failing:
            self.count("put failed")
            raise LakeUnavailable(f"put {url}: away")
        if url in self.objects and not self.overwrites:
            raise LakeUnavailable(f"put {url}: the name is taken")
        self.objects[url] = StoredObject(parcel, self.clock.now_us())
        if self.rng.random() < self.forgetting:
            self.count("put reply lost")
            raise LakeUnavailable(f"put {url}: no answer")
        return self.objects[url].modified_us

    def sweep(self, named: Collection[str], older_than_us: int) -> None:
        """Deletes objects that no commit names and that are old."""
        for url in [url for url in self.objects if url not in named]:
            if self.objects[url].modified_us < older_than_us:
                del self.objects[url]
                self.swept += 1


class SimulatedLake:
    """The store as one worker sees it (`ingest.lake.Lake`)."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, key: str, data: Any, sha256: str) -> Put:
        url = f"s3://{BUCKET}/{key}"
        modified_us = self.store.put(url, data)
        return Put(url, time_to_text(modified_us // 1_000_000 * 1_000_000) or "")


def read(lake: Any, url: str, size: int) -> pa.Table:
    """In place of reading three columns of a Parquet file (`ingest.remember`)."""
    found: SimulatedLake = lake
    return found.store.objects[url].parcel.table


def patiently() -> Iterator[AbstractContextManager[None]]:
    """In place of `ingest.lake.patiently`: again at once, in the one moment in which a thread's function runs."""
    done = False
    while not done:
        done = True

        def again(error: BaseException | None) -> bool:
            nonlocal done
            done = not isinstance(error, LakeUnavailable)
            return not done

        yield _Attempt(again)


class _Attempt(nullcontext[None]):
    def __init__(self, again: Any) -> None:
        super().__init__()
        self._again = again

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:  # type: ignore[override]
        return bool(self._again(error))
