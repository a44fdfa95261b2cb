"""How the broker is reached: settings that contradict themselves, refusals in one line, topic ids."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.part import LOOPBACK, free_ports
from ingest.broker import BrokerAway, BrokerRefused, BrokerSettings, TopicIds, knock
from tests.stack.kafka import Kafka

NOWHERE = Path("/nowhere/file")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"protocol": "SASL_SSL"}, "TUKANG_BROKER_SASL_MECHANISM"),
        (
            {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "me"},
            "TUKANG_BROKER_PASSWORD_FILE",
        ),
        ({"protocol": "SSL", "cert": NOWHERE}, "TUKANG_BROKER_KEY"),
        ({"ca": NOWHERE}, "TUKANG_BROKER_PROTOCOL=PLAINTEXT"),
        ({"servers": " "}, "TUKANG_BROKER=' ': ' ' is no server"),
        ({"servers": "a:1,,b:2"}, "TUKANG_BROKER='a:1,,b:2': '' is no server"),
        ({"servers": "a:many"}, "TUKANG_BROKER='a:many'"),
        ({"servers": "a"}, "TUKANG_BROKER='a'"),
        ({"servers": "a:70000"}, "TUKANG_BROKER='a:70000'"),
    ],
)
def test_settings_that_contradict_each_other_name_their_keys(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        BrokerSettings(**wrong)


def test_a_password_file_that_is_missing_is_named() -> None:
    settings = BrokerSettings(
        protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", username="me", password_file=NOWHERE
    )
    for ask in (settings.kafka_arguments, settings.confluent_config):
        with pytest.raises(
            BrokerRefused, match=r"TUKANG_BROKER_PASSWORD_FILE cannot be read: .*/nowhere/file"
        ):
            ask()


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    junk = tmp_path / "ca.pem"
    junk.write_text("no certificate")
    for ca in (junk, NOWHERE):
        with pytest.raises(BrokerRefused, match=f"TUKANG_BROKER_CA={ca} cannot be used"):
            BrokerSettings(protocol="SSL", ca=ca).kafka_arguments()


def test_nobody_there_is_no_refusal() -> None:
    nobody = BrokerSettings(servers=",".join(f"{LOOPBACK}:{port}" for port in free_ports(2)))
    with pytest.raises(
        BrokerAway, match=r"no server of the broker answers: .*Connect call failed.*Connect call failed"
    ):
        asyncio.run(knock(nobody))


def test_a_name_that_does_not_exist_is_no_refusal() -> None:
    with pytest.raises(BrokerAway, match=r"no-such-host.invalid:9092"):
        asyncio.run(knock(BrokerSettings(servers="no-such-host.invalid:9092")))


@pytest.mark.slow
def test_the_first_server_that_answers_is_enough(kafka: Kafka) -> None:
    (port,) = free_ports(1)
    asyncio.run(knock(replace(kafka.settings, servers=f"{LOOPBACK}:{port},{kafka.settings.servers}")))


@pytest.mark.slow
def test_scram_over_tls_and_mutual_tls_are_let_in(secure_kafka: Kafka) -> None:
    asyncio.run(knock(secure_kafka.secure))
    asyncio.run(knock(secure_kafka.mutual))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password_file": "other"}, "wrong user name or password for user 'tukang'"),
        ({"username": "stranger"}, "wrong user name or password for user 'stranger'"),
        ({"ca": None}, "its certificate is not trusted"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "does not offer TUKANG_BROKER_SASL_MECHANISM=SCRAM-SHA-256"),
    ],
)
def test_a_refusal_says_what_to_mend(
    secure_kafka: Kafka, tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    if "password_file" in wrong:
        (tmp_path / "password").write_text("another")
        wrong = {"password_file": tmp_path / "password"}
    with pytest.raises(BrokerRefused) as refused:
        asyncio.run(knock(replace(secure_kafka.secure, **wrong)))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_port_at_which_nobody_logs_in_is_said(secure_kafka: Kafka) -> None:
    settings = replace(
        secure_kafka.secure, servers=secure_kafka.settings.servers, protocol="SASL_PLAINTEXT", ca=None
    )
    with pytest.raises(BrokerRefused, match="is TUKANG_BROKER_PROTOCOL=SASL_PLAINTEXT right for it"):
        asyncio.run(knock(settings))


@pytest.mark.slow
def test_a_broker_that_hangs_up_is_taken_for_one_that_is_spoken_to_wrongly(secure_kafka: Kafka) -> None:
    plain, secure, mutual = secure_kafka.settings, secure_kafka.secure, secure_kafka.mutual
    for settings, said in (
        (replace(secure, servers=plain.servers), "is TUKANG_BROKER_PROTOCOL=SASL_SSL right for this port"),
        (replace(plain, servers=secure.servers), "is TUKANG_BROKER_PROTOCOL=PLAINTEXT right for this port?"),
        (replace(mutual, cert=None, key=None), "does it want TUKANG_BROKER_CERT?"),
    ):
        with pytest.raises(BrokerAway) as away:
            asyncio.run(knock(settings))
        assert said in str(away.value)


@pytest.mark.slow
def test_topic_ids_tell_lives_apart_and_miss_what_is_not_there(secure_kafka: Kafka) -> None:
    first, second = secure_kafka.topic(), secure_kafka.topic()

    async def run(settings: BrokerSettings) -> dict[str, str | None]:
        ids = TopicIds(settings)
        while len(found := await ids.ask([first, second, first, "never-made"])) < 2:
            await asyncio.sleep(0.1)  # a new topic is not known everywhere at once
        return found

    plain = asyncio.run(run(secure_kafka.settings))
    assert plain.keys() == {first, second}
    assert plain[first] is not None
    assert plain[first] != plain[second]
    assert asyncio.run(run(secure_kafka.secure)) == asyncio.run(run(secure_kafka.mutual)) == plain


def test_topic_ids_of_nobody_are_an_absence() -> None:
    nobody = BrokerSettings(servers=f"{LOOPBACK}:{free_ports(1)[0]}")
    with pytest.raises(BrokerAway, match="the id of topic some was not told"):
        asyncio.run(TopicIds(nobody, seconds=1).ask(["some"]))


def test_no_topics_are_not_asked_for() -> None:
    nobody = BrokerSettings(servers=f"{LOOPBACK}:{free_ports(1)[0]}")
    assert asyncio.run(TopicIds(nobody).ask([])) == {}
