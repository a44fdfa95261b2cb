"""What Kafka lost, for real: deleted records, topics made again, logs cut short; and partitions added.

What is shown is asked of the API, as an operator would see it. Nothing is guessed: where it is not known how to go on,
the topic stops until somebody says so.
"""

from __future__ import annotations

import signal
import time
import uuid
from typing import Any

import pytest

from deploy.part import Part
from tests.ingest.test_way import START_MS, count, event, events, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow

RETRY_S = 10.0  # how often a worker looks at a stopped topic again


@pytest.fixture
def topic(kafka: Kafka, services: Services) -> str:
    name = kafka.topic(partitions=2, retention_ms=-1)
    services.create(name, event_id=["id"], event_time=["at"], lateness="1s")
    return name


def shown(services: Services, topic: str) -> dict[str, Any]:
    answer: dict[str, Any] = services.get(f"/topics/{topic}")
    return answer


def wait_state(services: Services, topic: str, state: str) -> dict[str, Any]:
    services.wait(f"state {state} of {topic}", lambda: shown(services, topic)["state"] == state)
    return shown(services, topic)


def accept(services: Services, topic: str, what: str, **body: str) -> None:
    services.http.post(f"/topics/{topic}/{what}", json=body or None).raise_for_status()


def lost_ranges(services: Services, topic: str) -> dict[int, list[list[int]]]:
    """By lake partition, the ranges of offsets that the ledger calls lost."""
    ranges: dict[int, list[list[int]]] = {}
    for line in services.get(f"/topics/{topic}/ledger", limit=1000)["lines"]:
        if line["lost_ranges"]:
            ranges.setdefault(line["lake_partition"], []).extend(line["lost_ranges"])
    return ranges


def stop(part: Part) -> None:
    assert part.process is not None
    part.process.send_signal(signal.SIGTERM)
    assert part.process.wait(60) == 0, part.tail()


def make_again(kafka: Kafka, topic: str, partitions: int) -> None:
    kafka.delete(topic)
    end = time.monotonic() + 60
    while True:
        try:
            kafka.topic(topic, partitions=partitions, retention_ms=-1)
            return
        except Exception:  # the broker is still deleting
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_records_deleted_while_no_worker_ran_are_a_gap_and_reading_goes_on(
    kafka: Kafka, services: Services, topic: str
) -> None:
    part = worker(services, topic)
    produce(kafka, topic, events(0, 1000))
    services.wait_committed(topic, 1000)
    stop(part)
    produce(kafka, topic, events(1000, 2000))
    kafka.delete_records(topic, 800, partition=1)
    part = worker(services, topic)
    services.wait_committed(topic, 2000)
    state = wait_state(services, topic, "gap")
    assert "lost" in state["reason"]
    assert "accept-gap" in state["todo"]
    assert lost_ranges(services, topic) == {1: [[500, 800]]}
    assert "no longer has offsets 500 to 800 of partition 1" in part.log.read_text()
    assert count(services, topic) == (1700, 1700)
    accept(services, topic, "accept-gap")
    wait_state(services, topic, "running")
    assert lost_ranges(services, topic) == {1: [[500, 800]]}


def test_records_deleted_ahead_of_a_reader_that_hangs_are_a_gap(
    kafka: Kafka, services: Services, topic: str
) -> None:
    part = worker(services, topic, BROKER_SESSION_TIMEOUT="30s")
    produce(kafka, topic, events(0, 1000))
    services.wait_committed(topic, 1000)
    assert part.process is not None
    part.process.send_signal(signal.SIGSTOP)
    time.sleep(2)  # a fetch that was under way is answered, with nothing
    produce(kafka, topic, events(1000, 3000))
    kafka.delete_records(topic, 1200, partition=0)
    part.process.send_signal(signal.SIGCONT)
    produce(kafka, topic, events(3000, 4000))
    services.wait_committed(topic, 4000)
    wait_state(services, topic, "gap")
    assert lost_ranges(services, topic) == {0: [[500, 1200]]}
    assert count(services, topic) == (3300, 3300)


def test_carried_records_that_kafka_deleted_are_lost_one_by_one(
    kafka: Kafka, services: Services, topic: str
) -> None:
    services.http.patch(
        f"/topics/{topic}",
        json={"settings": {"lateness": "100s"}},
        headers={"If-Match": f'"{shown(services, topic)["settings_version"]}"'},
    ).raise_for_status()
    part = worker(services, topic)
    produce(kafka, topic, events(0, 1000))
    services.wait("the first commits", lambda: services.committed(topic) >= 800)
    stop(part)
    carried = {p["lake_partition"]: p["carried_count"] for p in shown(services, topic)["partitions"]}
    assert all(carried.values()), carried
    kafka.delete_records(topic, 480, partition=0)  # some of the carried ones of partition 0
    worker(services, topic)
    wait_state(services, topic, "gap")
    gone = lost_ranges(services, topic)[0]
    assert all(500 - carried[0] <= start < end <= 480 for start, end in gone)
    assert 480 - (500 - carried[0]) == sum(end - start for start, end in gone)


@pytest.mark.parametrize("new_log", ["shorter than the old one", "longer than the old one"])
def test_a_topic_made_again_stops_until_an_operator_says_where_it_begins(
    kafka: Kafka, services: Services, topic: str, new_log: str
) -> None:
    part = worker(services, topic)
    produce(kafka, topic, events(0, 1000))
    services.wait_committed(topic, 1000)
    make_again(kafka, topic, 2)
    number = 200 if new_log.startswith("shorter") else 3000
    produce(kafka, topic, events(5000, 5000 + number))
    state = wait_state(services, topic, "new_life")
    assert "accept-reset" in state["todo"]
    time.sleep(RETRY_S)  # asked again, and still not read
    assert count(services, topic) == (1000, 1000)
    assert part.alive(), part.tail()
    accept(services, topic, "accept-reset", **{"from": "earliest"})
    services.wait_committed(topic, 1000 + number)
    wait_state(services, topic, "running")
    assert count(services, topic) == (1000 + number, 1000 + number)
    lives = services.rows(topic).sql("SELECT _lake_partition, min(n), max(n) FROM rows GROUP BY 1 ORDER BY 1")
    assert [row[0] for row in lives.fetchall()] == [0, 1, 2, 3]


def test_a_topic_made_again_while_no_worker_ran_is_seen_and_the_end_is_where_it_was_when_it_was_accepted(
    kafka: Kafka, services: Services, topic: str
) -> None:
    part = worker(services, topic)
    produce(kafka, topic, events(0, 1000))
    services.wait_committed(topic, 1000)
    stop(part)
    make_again(kafka, topic, 2)
    produce(kafka, topic, events(5000, 8000))
    part = worker(services, topic)
    wait_state(services, topic, "new_life")
    assert count(services, topic) == (1000, 1000)
    assert part.alive(), part.tail()
    accept(services, topic, "accept-reset", **{"from": "end"})

    def stored() -> bool:
        return all(each["next"] is not None for each in shown(services, topic)["partitions"])

    services.wait("the end is stored, although nothing came", stored)
    stop(part)
    produce(kafka, topic, events(9000, 9100))  # after that end, and before a worker asks for it again
    worker(services, topic)
    services.wait_committed(topic, 1100)
    assert count(services, topic) == (1100, 1100)


def move_beyond(services: Services, topic: str, partition: int, by: int) -> None:
    """Commits a position beyond the log's end, as it looks when a log was cut short."""
    (found,) = services.http.post(
        "/positions", json={"topics": [{"topic": topic, "topic_id": None, "partitions": [partition]}]}
    ).json()["topics"]
    (position,) = found["positions"]
    following = position["next"] + by
    kept = ("carried", "highest", "watermark", "published_to", "topic_id")
    line = {
        "lake_partition": position["lake_partition"],
        "from_version": position["version"],
        "from_offset": position["next"],
        "to_offset": following,
        **dict.fromkeys(
            ("consumed", "carried_in", "written", "duplicates", "differing", "dead_letters", "lost"), 0
        ),
        **dict.fromkeys(("carried_out", "late", "early", "tombstones"), 0),
        "lost_ranges": [],
        "position": {"next": following, **{name: position[name] for name in kept}},
    }
    services.http.post(
        f"/topics/{topic}/commits",
        json={
            "id": str(uuid.UUID(int=(time.time_ns() // 10**6 << 80) | 7 << 76 | 2 << 62, version=None)),
            "kind": "append",
            "epoch": found["epoch"],
            "worker": "test",
            "rule_version": found["rule_version"],
            "schema_version": found["schema_version"],
            "lines": [line],
            "files": [],
        },
    ).raise_for_status()


def test_a_truncated_log_stays_stopped_when_it_grows_past_the_old_position(
    kafka: Kafka, services: Services, topic: str
) -> None:
    part = worker(services, topic)
    produce(kafka, topic, events(0, 1000))
    services.wait_committed(topic, 1000)
    services.wait(
        "nothing carried", lambda: not any(p["carried_count"] for p in shown(services, topic)["partitions"])
    )
    stop(part)
    move_beyond(services, topic, partition=1, by=100)
    part = worker(services, topic)
    state = wait_state(services, topic, "truncated")
    assert "ended at 500" in state["reason"]
    assert "up to 600" in state["reason"]
    time.sleep(RETRY_S * 1.5)  # a second look
    produce(kafka, topic, [(1, event(number), START_MS) for number in range(2000, 2300)])
    time.sleep(RETRY_S * 1.5)
    assert shown(services, topic)["state"] == "truncated"
    assert count(services, topic) == (1000, 1000)
    accept(services, topic, "accept-reset", **{"from": "500"})
    services.wait_committed(topic, 1300)
    wait_state(services, topic, "running")
    assert part.alive(), part.tail()


def test_partitions_added_to_a_topic_are_read_without_a_restart(
    kafka: Kafka, services: Services, topic: str
) -> None:
    part = worker(services, topic)
    produce(kafka, topic, events(0, 1000))
    services.wait_committed(topic, 1000)
    kafka.add_partitions(topic, 5)
    produce(kafka, topic, events(1000, 3000, partitions=5))
    services.wait_committed(topic, 3000)
    assert count(services, topic) == (3000, 3000)
    assert [p["broker_partition"] for p in shown(services, topic)["partitions"]] == [0, 1, 2, 3, 4]
    assert part.alive(), part.tail()
