"""`--deep`: the rows themselves. Each (lake partition, offset) is in the lake at most once, and inside its line.

Reads every object whole, and of it two columns. What is remembered are runs of offsets, about 24 bytes for each gap.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.lake import Lake, LakeMissing
from ingest.verify.chain import Chain, Made
from ingest.verify.finding import Finding
from ingest.verify.objects import PART_BYTES, File, patient

Longs = npt.NDArray[np.int64]

_IN_MEMORY_BYTES = 64 << 20  # a larger object is read by way of a temporary file


@dataclass(slots=True)
class Rows:
    """What was read of one object: offsets by lake partition, ascending, equal ones too."""

    file: File
    offsets: dict[int, Longs] = field(default_factory=dict)
    rewritten: bool = False  # it has a `_sequence` column: upkeep wrote it
    findings: list[Finding] = field(default_factory=list)


def read(lake: Lake, topic: str, file: File) -> Rows:
    """Reads one object: proves its checksum, and takes its offsets."""
    rows = Rows(file)

    def damage(code: str, text: str) -> Rows:
        rows.findings.append(
            Finding("damage", code, topic, text, sequence=file["sequence"], file=file["url"])
        )
        return rows

    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
        digest = hashlib.sha256()
        try:
            for start in range(0, file["bytes"], PART_BYTES):
                end = min(start + PART_BYTES, file["bytes"])
                part = patient(lambda: lake.get(file["url"], start, end))  # noqa: B023 -- called at once
                digest.update(part)
                spool.write(part)
        except LakeMissing:
            return damage("object_missing", "the object is not in the store any more")
        if digest.hexdigest() != file["sha256"]:
            return damage("object_checksum", "its bytes are not those that were committed (SHA-256)")
        try:
            parquet = pq.ParquetFile(pa.PythonFile(spool, mode="r"))
            rows.rewritten = "_sequence" in parquet.schema_arrow.names
            table = parquet.read(columns=["_lake_partition", "_offset"])
        except (pa.ArrowInvalid, OSError) as error:
            return damage("footer", f"it cannot be read as Parquet: {error}")
    if table.num_rows != file["rows"]:
        damage("rows_missing", f"it has {table.num_rows} rows, {file['rows']} were committed")
    numbers = np.asarray(table.column("_lake_partition").to_numpy(), np.int64)
    offsets = np.asarray(table.column("_offset").to_numpy(), np.int64)
    for number in np.unique(numbers).tolist():
        rows.offsets[number] = np.sort(offsets[numbers == number])
    return rows


class Places:
    """Where each offset of a topic stands; takes the rows of all its objects and says what is wrong with them."""

    def __init__(self, chain: Chain) -> None:
        self._topic = chain.topic
        self._made = chain.made
        self._links = chain.links
        self._files: list[File] = []
        self._runs: dict[int, list[Longs]] = defaultdict(list)  # lake partition: arrays of (start, end, file)
        self._counts: dict[tuple[int, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._seen: dict[int, int] = defaultdict(int)  # sequence: how many of its files were read
        self._live: Counter[int] = Counter()  # rows by lake partition
        self._all_sound = True
        self.rows = 0

    def take(self, rows: Rows) -> Iterator[Finding]:
        """The rows of one object."""
        yield from rows.findings
        if rows.findings:
            self._all_sound = False
            return  # what is in a damaged object says nothing of its line
        file = rows.file
        number = len(self._files)
        self._files.append(file)
        self._seen[file["sequence"]] += 1
        made = self._made.get(file["sequence"])
        for lake_partition, offsets in rows.offsets.items():
            self.rows += len(offsets)
            if file["what"] == "rows":
                self._live[lake_partition] += len(offsets)
            self._counts[file["sequence"], file["what"]][lake_partition] += len(offsets)
            if made is not None and made.kind == "append" and not rows.rewritten:
                outside = self._outside_line(offsets, lake_partition, made)
            else:
                outside = self._outside_position(offsets, lake_partition)
            if len(outside):
                yield self._damage(
                    "row_outside", f"{len(outside)} rows are outside what its commit read", file, lake_partition,
                    (int(outside[0]), int(outside[-1]) + 1),
                )  # fmt: skip
            unique, counts = np.unique(offsets, return_counts=True)
            if len(unique) < len(offsets):
                twice = unique[counts > 1]
                yield self._damage(
                    "row_twice", f"{len(twice)} rows are in the file more than once", file, lake_partition,
                    (int(twice[0]), int(twice[-1]) + 1),
                )  # fmt: skip
            breaks = np.flatnonzero(np.diff(unique) > 1)
            starts = unique[np.concatenate(([0], breaks + 1))]
            ends = unique[np.concatenate((breaks, [len(unique) - 1]))] + 1
            self._runs[lake_partition].append(np.stack([starts, ends, np.full(len(starts), number)], axis=1))

    def end(self, expected: Mapping[int, int] | None) -> Iterator[Finding]:
        """No object follows: which offsets stand in two of them, and which are in none?

        `expected`: how many live rows each lake partition must have, if all objects were read.
        """
        for lake_partition, said in sorted((expected or {}).items()):
            if self._all_sound and said != self._live[lake_partition]:
                text = f"by the ledger {said} rows are live, the live files have {self._live[lake_partition]}"
                yield Finding("damage", "rows_missing", self._topic, text, lake_partition=lake_partition)
        for lake_partition in sorted(self._runs):
            yield from self._twice(lake_partition)
        for sequence, made in self._made.items():
            if made.kind == "append" and self._seen[sequence] == made.files and made.files:
                yield from self._missing(sequence, made)

    def _twice(self, lake_partition: int) -> Iterator[Finding]:
        runs = np.concatenate(self._runs.pop(lake_partition))
        runs = runs[np.argsort(runs[:, 0], kind="stable")]
        reach = np.maximum.accumulate(runs[:, 1])
        overlaps = np.flatnonzero(runs[1:, 0] < reach[:-1]) + 1
        pairs: dict[tuple[int, int], list[int]] = {}
        for at in overlaps.tolist():
            start, end, number = runs[at].tolist()
            before = at - 1
            while runs[before, 1] <= start:  # the run that reaches this far may lie further back
                before -= 1
            other, shared = int(runs[before, 2]), min(end, int(runs[before, 1]))
            found = pairs.setdefault((other, number), [start, shared, 0])
            found[1] = max(found[1], shared)
            found[2] += shared - start
        for (one, other), (start, end, count) in pairs.items():
            text = (
                f"{count} rows are in {self._files[one]['url']} too (commit {self._files[one]['sequence']})"
            )
            yield self._damage("row_twice", text, self._files[other], lake_partition, (start, end))

    def _missing(self, sequence: int, made: Made) -> Iterator[Finding]:
        """A commit whose objects are all live: each line's rows must be in them."""
        for span in made.spans:
            for name, what in (("written", "rows"), ("dead_letters", "dead_letters")):
                said = getattr(span, name)
                there = self._counts[sequence, what].get(span.lake_partition, 0)
                if said != there:
                    yield Finding(
                        "damage", "rows_missing", self._topic,
                        f"the line says {name} = {said}, the commit's files have {there} of this lake partition",
                        lake_partition=span.lake_partition, offsets=(span.lowest, span.end), sequence=sequence,
                    )  # fmt: skip

    @staticmethod
    def _outside_line(offsets: Longs, lake_partition: int, made: Made) -> Longs:
        inside = np.zeros(len(offsets), np.bool_)
        for span in made.spans:
            if span.lake_partition == lake_partition:
                inside |= span.holds(offsets)
        return offsets[~inside]

    def _outside_position(self, offsets: Longs, lake_partition: int) -> Longs:
        """Rows that upkeep moved: anything that was read and is not carried now."""
        link = self._links.get(lake_partition)
        if link is None or link.next is None:
            return offsets
        return offsets[(offsets >= link.next) | np.isin(offsets, link.carried)]

    def _damage(
        self, code: str, text: str, file: File, lake_partition: int, offsets: tuple[int, int]
    ) -> Finding:
        return Finding(
            "damage", code, self._topic, text,
            lake_partition=lake_partition, offsets=offsets, sequence=file["sequence"], file=file["url"],
        )  # fmt: skip
