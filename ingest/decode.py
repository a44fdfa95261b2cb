"""Decode: the records of a chunk become one table with typed columns, and what cannot is kept as dead letters.

Pure: no I/O, no clock. Every record gives exactly one row or one dead letter, in its own place, whatever stands beside
it. The steps: sort out records without a value and too large ones; parse pieces at once (`ingest.fast`); read one by
one what remains (`ingest.strict`), learning what is new (`ingest.learn`); bring all to one schema; add system columns.

The one seam for content types is `ingest.reading`: bytes of records to columns of events.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.chunk import Records
from ingest.columns import TIME, simple_type, table_schema
from ingest.dead_letters import Letter, dead_letters, headers_array
from ingest.declared import NOTHING_DECLARED, Declared
from ingest.identity import HEADER, Rows, event_ids, event_times, parse_path
from ingest.learn import Limits
from ingest.reading import READERS
from ingest.schema import TopicSchema
from ingest.settings import duration_us, size_bytes
from ingest.times import believed, usable_stamps

_Ints = npt.NDArray[np.int64]

DEEPEST = 150  # max_depth may not be more


@dataclass(frozen=True)
class DecodeRules:
    """What a topic's settings say about decoding. Times in microseconds, sizes in bytes."""

    event_id: tuple[str, ...] = ()
    event_time: tuple[str, ...] = ()
    max_ahead_us: int = 600_000_000
    numbers: Literal["integer", "double"] = "integer"
    tombstones: Literal["row", "dead_letter"] = "row"
    max_record_bytes: int = 10_000_000
    max_columns: int = 2_000
    max_depth: int = 100
    map_keys: int = 300
    declared: Declared = NOTHING_DECLARED
    content_type: str = "json"  # one of `reading.READERS`

    @property
    def limits(self) -> Limits:
        return Limits(self.max_columns, self.max_depth, self.map_keys, self.numbers)

    @classmethod
    def from_settings(
        cls, values: Mapping[str, Any], hash_key: bytes | None = None, version: int = 0
    ) -> DecodeRules:
        """From a topic's settings as the API gives them, in this version; those not there have their defaults.

        Raises `ValueError` for a path or a type that is none, and for `hash` without a key.
        """

        def given(name: str, default: Any) -> Any:
            value = values.get(name)
            return default if value is None else value

        if given("hash", ()) and hash_key is None:
            raise ValueError(
                "setting hash: TUKANG_HASH_KEY_FILE is not set, and a hash without a key could be guessed"
            )
        for path in (*given("event_id", ()), *given("event_time", ())):
            if not path.startswith(HEADER):
                parse_path(path)
        default = cls()
        ahead, size = values.get("max_ahead"), values.get("max_record_bytes")
        return cls(
            event_id=tuple(given("event_id", ())),
            event_time=tuple(given("event_time", ())),
            max_ahead_us=default.max_ahead_us if ahead is None else duration_us(str(ahead)),
            numbers=given("numbers", default.numbers),
            tombstones=given("tombstones", default.tombstones),
            max_record_bytes=default.max_record_bytes if size is None else size_bytes(str(size)),
            max_columns=int(given("max_columns", default.max_columns)),
            max_depth=min(int(given("max_depth", default.max_depth)), DEEPEST),
            map_keys=int(given("map_keys", default.map_keys)),
            declared=Declared(
                _declared_types(given("types", {}), given("drop", ()), given("hash", ())),
                # Another worker, whose settings are newer, may have declared a hash: then nobody shall guess ours.
                secrets.token_bytes(32) if hash_key is None else hash_key,
                version,
            ),
        )


def _declared_types(
    types: Mapping[str, str], drop: Iterable[str], hashed: Iterable[str]
) -> dict[tuple[str, ...], str]:
    declared = {parse_path(path): type_ for path, type_ in types.items()}
    for type_ in declared.values():
        simple_type(type_)
    return declared | {parse_path(p): "hash" for p in hashed} | {parse_path(p): "drop" for p in drop}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows in order of offset, dead letters, and the schema of the rows: wider than the one given, if need be."""

    table: pa.Table
    dead: pa.Table
    schema: TopicSchema
    content: npt.NDArray[np.int64]  # of each row, a hash of its record's value


def decode(
    records: Records,
    lake_partition: int,
    schema: TopicSchema,
    rules: DecodeRules,
    fetched_at_us: int | _Ints,
) -> Decoded:
    """Decodes all of `records`. The same records with the schema that came out give the same again.

    `fetched_at_us`: when they were read, all of them or each (dead letters that are decoded again).
    """
    values = records.values
    letters: list[Letter] = []
    events, rows, sizes = _sorted_out(values, rules, letters)
    schema = schema.declare(rules.declared.types, rules.declared.version)
    read = READERS[rules.content_type]
    parsed = read(records, events, sizes, lake_partition, schema, rules.limits, rules.declared)
    letters += parsed.letters
    schema = parsed.schema
    if parsed.letters:
        dead = np.fromiter((letter.index for letter in parsed.letters), np.int64, len(parsed.letters))
        rows = np.setdiff1d(rows, dead, assume_unique=True)
    columns = _in_place(parsed.columns, parsed.at, rows)
    veiled, hidden = rules.declared.veiled, rules.declared.hidden
    event = (lambda record: veiled(parsed.event(record), hidden)) if hidden else parsed.event
    found = Rows(records, rows, schema, columns, event)
    every = len(rows) == len(records)
    offsets = records.offsets if every else records.offsets[rows]
    stamps = usable_stamps(records.timestamps_ms if every else records.timestamps_ms[rows])
    keys = records.keys if every else [records.keys[i] for i in rows]
    bodies = values if every else [values[i] for i in rows]
    fetched = fetched_at_us if every or isinstance(fetched_at_us, int) else fetched_at_us[rows]
    times, source = believed(event_times(found, rules.event_time), stamps, fetched, rules.max_ahead_us)
    unstamped = stamps < 0
    count = len(rows)
    tombstones = np.zeros(count, bool)
    if count != len(events) - len(parsed.letters):  # some rows are tombstones
        tombstones[:] = [body is None for body in bodies]
    table = pa.table(
        [
            pa.array(np.full(count, lake_partition, np.int32)),
            pa.array(offsets),
            event_ids(found, rules.event_id),
            pa.array(times).cast(TIME),
            source,
            pa.array(stamps * 1_000, mask=unstamped if unstamped.any() else None).cast(TIME),
            pa.array(keys, pa.binary()),
            headers_array(records, None if every else rows.tolist()),
            pa.array(np.zeros(count, bool)),
            pa.array(tombstones),
            *columns,
        ],
        schema=table_schema(schema),
    )
    content = np.fromiter(map(hash, bodies), np.int64, count)
    return Decoded(table, dead_letters(records, letters, lake_partition, fetched_at_us), schema, content)


def _sorted_out(
    values: list[bytes | None], rules: DecodeRules, letters: list[Letter]
) -> tuple[_Ints, _Ints, _Ints]:
    """Indexes of records to parse, of those that may become rows (tombstones too), and the size of every value."""
    everything = np.arange(len(values))
    try:
        sizes = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
    except TypeError:  # some have none
        sizes = np.fromiter((-1 if value is None else len(value) for value in values), np.int64, len(values))
    large = sizes > rules.max_record_bytes
    for index in np.flatnonzero(large).tolist():
        text = f"{sizes[index]} bytes, max_record_bytes is {rules.max_record_bytes}"
        letters.append(Letter(index, "too_large", text, None))
    nothing = sizes < 0
    rows = ~large
    if rules.tombstones == "dead_letter":
        text = "a record without a value, and the topic takes no tombstones as rows"
        letters += [Letter(index, "no_value", text, None) for index in np.flatnonzero(nothing).tolist()]
        rows &= ~nothing
    return everything[~large & ~nothing], everything[rows], sizes


def _in_place(
    columns: list[pa.Array], at: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> list[pa.Array]:
    """The columns with one entry for each of `rows`, in order; null where no event was read (tombstones)."""
    if len(at) == len(rows) and np.array_equal(at, rows):
        return columns
    order = np.argsort(at, kind="stable")
    if len(at) == len(rows):
        index = pa.array(order)
    else:
        place = np.searchsorted(at[order], rows)
        place = np.minimum(place, max(len(at) - 1, 0))
        known = at[order][place] == rows if len(at) else np.zeros(len(rows), bool)
        index = pa.array(order[place] if len(at) else np.zeros(len(rows), np.int64), mask=~known)
    return [column.take(index) for column in columns]
