"""The demo's events are the real flights, in their real order, and the damage done to them is the same each time."""

import collections
import itertools

import numpy as np
import orjson
import pyarrow as pa
import pytest

from deploy import flights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def happened() -> dict[str, pa.Table]:
    return flights.happened()


def values(table: pa.Table) -> list[dict]:
    return [orjson.loads(each) for each in table["value"].to_pylist()]


def test_every_flight_that_left_has_a_departure_and_every_one_that_came_an_arrival(
    happened: dict[str, pa.Table],
) -> None:
    assert {topic: table.num_rows for topic, table in happened.items()} == {
        "departures": 328_521,
        "arrivals": 328_063,
    }


def test_no_two_events_have_the_same_id(happened: dict[str, pa.Table]) -> None:
    ids = [event["id"] for table in happened.values() for event in values(table)]
    assert len(set(ids)) == len(ids)


def test_an_event_is_sent_when_it_happened_and_says_when_it_was_due(happened: dict[str, pa.Table]) -> None:
    for table in happened.values():
        sent = table["timestamp"].to_numpy()
        assert (np.diff(sent) >= 0).all()
        for event, moment in itertools.islice(zip(values(table), sent, strict=True), 0, None, 97):
            scheduled, actual = (np.datetime64(event[name][:-1]) for name in ("scheduled", "actual"))
            assert actual == np.datetime64(int(moment), "ms")
            if event["delay_minutes"] is not None:
                assert actual - scheduled == np.timedelta64(event["delay_minutes"], "m")


def test_local_times_became_utc(happened: dict[str, pa.Table]) -> None:
    """By the clock: out and in; what each of these had against it."""
    known = {
        "UA1545-2013-01-01-EWR": (
            "10:15 10:17",
            "14:19 14:30",
        ),  # Newark 05:17 to Houston 08:30, an hour west
        "HA51-2013-01-09-JFK": ("14:00 11:41", "01:30 22:42"),  # Honolulu, 21 hours late, the next day
        "DL427-2013-10-10-JFK": ("01:00 01:17", "07:20 07:00"),  # in at 2400, due at 20 past midnight
        "B61816-2013-12-09-JFK": ("03:50 05:00", "04:56 05:59"),  # out at 2400
        "B61503-2013-07-04-JFK": ("03:59 03:57", "07:44 07:43"),  # San Juan, which keeps no summer time
        "US623-2013-08-01-JFK": ("10:45 10:35", "16:08 16:09"),  # Phoenix, neither
        "EV4298-2013-01-14-EWR": ("16:20 16:29", "19:36 22:20"),  # diverted: no delay, but a time of arrival
    }
    clocks: dict[str, dict[str, str]] = {}
    for event in itertools.chain(*map(values, happened.values())):
        flight, _, kind = event["id"].rpartition("-")
        clocks.setdefault(flight, {})[kind] = f"{event['scheduled'][11:16]} {event['actual'][11:16]}"
    assert {flight: (clocks[flight]["departure"], clocks[flight]["arrival"]) for flight in known} == known


def test_what_was_sent_holds_the_events_their_copies_and_the_spoiled(happened: dict[str, pa.Table]) -> None:
    for table in happened.values():
        records, sent = flights.sent(table)
        counted = collections.Counter(records["value"].to_pylist())
        assert records.num_rows == sent.records
        assert counted[None] == sent.empty == 4
        assert sum(1 for count in counted.values() if count == 2) == sent.copies
        assert sent.copies == table.num_rows // 100
        spoiled = set(counted) - set(table["value"].to_pylist()) - {None}
        assert len(spoiled) == sent.broken
        for value in spoiled:
            with pytest.raises((orjson.JSONDecodeError, AssertionError)):
                assert isinstance(orjson.loads(value), dict)


def test_a_copy_follows_its_first_and_not_far_behind(happened: dict[str, pa.Table]) -> None:
    records, _ = flights.sent(happened["arrivals"])
    first: dict[bytes, int] = {}
    behind = [
        place - first[value]
        for place, value in enumerate(records["value"].to_pylist())
        if value is not None and first.setdefault(value, place) != place
    ]
    assert min(behind) >= 1
    assert max(behind) < flights.COPY_WITHIN + 50  # other copies stand between


def test_the_same_seed_gives_the_same_records(happened: dict[str, pa.Table]) -> None:
    few = happened["departures"].slice(0, 5_000)
    assert flights.sent(few)[0].equals(flights.sent(few)[0])
    assert not flights.sent(few)[0].equals(flights.sent(few, seed=1)[0])


def test_topics_are_interleaved_by_time_without_a_change_of_their_own_order(
    happened: dict[str, pa.Table],
) -> None:
    sent = {topic: flights.sent(table)[0] for topic, table in happened.items()}
    together = flights.interleaved(sent)
    for topic, records in sent.items():
        mine = together.filter(pa.compute.equal(together["topic"], topic))
        assert mine["value"].equals(records["value"])
    assert len(together["topic"].slice(0, 2_000).unique()) == 2
