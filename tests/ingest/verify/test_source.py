"""`tukang verify` and what it compares the lake with: a log that is ahead, shorter, another one, or away."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import Producer

from ingest.verify import verify
from tests.ingest.small_lake import SmallLake, rows
from tests.ingest.verify.conftest import Check, codes

pytestmark = pytest.mark.slow


def test_a_ledger_that_is_behind_the_log_is_complete_unless_asked_otherwise(
    lake: SmallLake, check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.append((0, 1))
    assert check(caught_up=True) == (0, [])
    lake.send(1, 7)
    code, [finding] = check()
    assert (code, finding["code"], finding["lake_partition"], finding["offsets"]) == (
        0,
        "behind",
        1,
        [90, 97],
    )
    assert check(caught_up=True)[0] == 1
    assert verify(lake.settings, caught_up=True) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "wrong: 1 findings"


def test_what_is_held_back_is_behind_too(lake: SmallLake, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(lake.settings, as_json=True, caught_up=True) == 1
    [topic] = json.loads(capsys.readouterr().out)["topics"]
    assert topic["behind"] == 2
    assert [(each["code"], each["offsets"]) for each in topic["findings"]] == [("held_back", [158, 160])]


def test_an_open_transaction_is_said_and_does_not_count_as_behind(lake: SmallLake, check: Check) -> None:
    lake.append((0, 1))
    producer = Producer({**lake.kafka.settings.confluent_config(), "transactional.id": lake.topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(lake.topic, b"{}", partition=1)
    producer.flush(30)
    code, [finding] = check(caught_up=True)
    producer.abort_transaction(30)
    assert (code, finding["code"], finding["lake_partition"]) == (0, "open_transaction", 1)


def test_records_that_the_source_deleted_before_they_were_read_are_found(
    lake: SmallLake, check: Check
) -> None:
    lake.send(1, 20)
    lake.kafka.delete_records(lake.topic, 100, partition=1)
    lake.kafka.delete_records(lake.topic, 159, partition=0)
    code, found = check()
    assert code == 1
    lost = {each["lake_partition"]: each["offsets"] for each in found if each["code"] == "lost_at_source"}
    assert lost == {0: [158, 159], 1: [90, 100]}


def test_another_life_of_the_topic_is_found(lake: SmallLake, check: Check) -> None:
    lake.sql("UPDATE ledger SET broker_topic_id = 'another'")
    code, [finding] = check()
    assert (code, finding["code"]) == (1, "new_life")


def test_a_log_that_ends_before_the_position_is_found(lake: SmallLake, check: Check) -> None:
    lake.append((1, 30), send=False)  # the ledger knows records that the broker has lost
    code, [finding] = check()
    assert (code, finding["code"], finding["lake_partition"], finding["offsets"]) == (
        1,
        "truncated",
        1,
        [90, 120],
    )


def test_a_topic_that_the_broker_has_no_more_is_compared_without_it(lake: SmallLake, check: Check) -> None:
    lake.kafka.delete(lake.topic)
    code, [finding] = check()
    assert (code, finding["grade"], finding["code"]) == (0, "note", "source_gone")


def test_a_gap_that_nobody_accepted_is_found(lake: SmallLake, check: Check) -> None:
    lake.append((0, 1))
    lake.send(0, 10)
    lake.publish(
        [lake.next_line(0, 10, written=6, lost=4, lost_ranges=[(161, 165)])], rows(0, range(165, 171))
    )
    code, [finding] = check()
    assert (code, finding["code"]) == (1, "gap")
    lake.sql("UPDATE topics SET gap_sequence = NULL")  # accepted
    assert check() == (0, [])


def test_damage_outweighs_what_could_not_be_checked(
    lake: SmallLake, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append((0, 10), send=False)
    monkeypatch.setattr("ingest.verify.source.Source.behind", lambda *_: {0: "unknown"})
    code, [finding] = check()
    assert (code, finding["grade"]) == (2, "unchecked")
    lake.delete(lake.files()[0])
    assert check()[0] == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"api": "http://127.0.0.1:9"}, "the API at http://127.0.0.1:9/v1/ does not answer"),
        ({"broker": "127.0.0.1:9"}, "no server of the broker answers"),
        ({"bucket": "no-such-bucket"}, "the bucket does not exist"),
        ({"s3_endpoint": "http://127.0.0.1:9"}, "Could not connect to the endpoint"),
    ],
    ids=["API", "broker", "bucket", "store"],
)
def test_what_is_away_cannot_be_checked_and_is_no_damage(
    lake: SmallLake, capsys: pytest.CaptureFixture[str], changes: dict[str, str], says: str
) -> None:
    lake.delete(lake.files()[0])
    assert verify(lake.settings.model_copy(update=changes)) == 2
    said = capsys.readouterr()
    assert says in " ".join(said.err.split())
    assert "complete" not in said.out


def test_an_unknown_topic_or_time_cannot_be_checked(
    lake: SmallLake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(lake.settings, "nobody") == 2
    assert verify(lake.settings, start="yesterday") == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "There is no topic nobody" in err
    assert "'yesterday' is no time: write it like 2026-01-31" in err


def test_what_was_held_back_when_a_topic_began_anew_is_lost_in_the_ledger(
    lake: SmallLake, check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.http.post(f"/topics/{lake.topic}/accept-reset", json={"from": "earliest"}).raise_for_status()
    code, found = check()
    assert (code, codes(found)) == (1, {"gap", "behind"})
    lake.http.post(f"/topics/{lake.topic}/accept-gap").raise_for_status()
    assert verify(lake.settings, as_json=True) == 0
    [topic] = json.loads(capsys.readouterr().out)["topics"]
    assert topic["lost"] == 2
