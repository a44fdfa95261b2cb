"""Metrics: requests by operation, topics as they stand, nothing where nothing is known."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import World


def samples(world: World) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = world.client.get("/metrics")
    assert found.mimetype == "text/plain"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(found.get_data(as_text=True))
        for sample in family.samples
    }


def test_metrics_count_requests_and_show_topics(world: World) -> None:
    maker = world.maker()
    maker.commit(10)
    maker.send(maker.append(maker.line(0, 1, consumed=2)), 422)
    world.client.get("/v1/topics/secret-topic/files?at=17")
    found = samples(world)
    requests = "tukang_api_requests_total"
    assert found[requests, frozenset({("operation", "commit"), ("status", "201")})] == 1
    assert found[requests, frozenset({("operation", "commit"), ("status", "422")})] == 1
    topic = ("topic", "orders")
    assert found["tukang_topic_rows", frozenset({topic})] == 10
    assert found["tukang_topic_sequence", frozenset({topic})] == 1
    assert found["tukang_topic_state", frozenset({topic, ("state", "unknown")})] == 1
    assert found["tukang_api_waiting", frozenset()] == 0
    # No worker has reported: the lag is not zero, it is not known.
    assert ("tukang_topic_lag", frozenset({topic})) not in found
    assert "secret-topic" not in world.client.get("/metrics").get_data(as_text=True)
