"""Metrics for Prometheus: what this process served, and how each topic stands, computed when asked.

Labels are operations of the contract and names of topics, never paths or queries.
"""

import time
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import select

from api.access import caller
from api.contract import Contract
from api.process import here
from api.tables import topics
from api.times import parse_time
from api.topic_state import STATES, describe

blueprint = Blueprint("metrics", __name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EXTENSION = "tukang-metrics"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def register(app: Flask, contract: Contract) -> None:
    """Counts and times the requests of the application, by operation."""
    registry = CollectorRegistry()
    app.extensions[EXTENSION] = registry
    requests = Counter(
        "tukang_api_requests", "Requests answered.", ("operation", "status"), registry=registry
    )
    seconds = Histogram(
        "tukang_api_request_seconds", "Time to the answer, long polls too.", ("operation",), buckets=SECONDS,
        registry=registry,
    )  # fmt: skip
    waiting = Gauge("tukang_api_waiting", "Long polls that wait now.", registry=registry)

    @app.before_request
    def _begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def _end(response: Response) -> Response:
        operation = contract.operation(request)
        name = operation.name if operation is not None else "none"
        requests.labels(name, str(response.status_code)).inc()
        seconds.labels(name).observe(time.perf_counter() - g.began)
        return response

    # Asked when scraped; a gauge of its own would have to be kept right by every waiter.
    waiting.set_function(lambda: here().heads.waiters())


GAUGES = {
    "sequence": "Head of the topic.",
    "files": "Live files.",
    "rows": "Live rows.",
    "bytes": "Live bytes.",
    "dead_letters": "Live dead letters.",
    "lag": "Records at the source that are in no commit yet; absent: unknown.",
}


def _topics() -> Iterator[Metric]:
    """One sample of each figure for each topic that the caller may see; what is unknown has none."""
    database = here().database
    with database.read() as connection:
        rows = [row for row in connection.execute(select(topics)) if caller().sees(row.name)]
        shown = describe(connection, rows, database.clock(connection))
    for name, about in GAUGES.items():
        family = GaugeMetricFamily(f"tukang_topic_{name}", about, labels=["topic"])
        for topic in shown:
            if topic[name] is not None:
                family.add_metric([topic["topic"]], topic[name])
        yield family
    for name, about in (
        ("complete_until", "Event time up to which the topic is complete."),
        ("fresh_until", "Event time up to which every partition has come."),
        ("last_commit_at", "Time of the newest commit."),
    ):
        family = GaugeMetricFamily(f"tukang_topic_{name}_seconds", f"{about} Since 1970.", labels=["topic"])
        for topic in shown:
            if topic[name] is not None:
                family.add_metric([topic["topic"]], parse_time(topic[name]) / 1_000_000)
        yield family
    family = GaugeMetricFamily("tukang_topic_state", "1 for the state that holds.", labels=["topic", "state"])
    for topic in shown:
        for state in STATES:
            family.add_metric([topic["topic"], state], float(topic["state"] == state))
    yield family


class _Topics(Collector):
    """The figures of topics, as Prometheus' library wants them."""

    def collect(self) -> Iterator[Metric]:
        yield from _topics()

    def describe(self) -> list[Metric]:
        """None: without it the library would collect once to find the names."""
        return []


@blueprint.get("/metrics")
def metrics() -> Response:
    figures = CollectorRegistry(auto_describe=False)
    figures.register(_Topics())
    process: CollectorRegistry = current_app.extensions[EXTENSION]
    return Response(generate_latest(process) + generate_latest(figures), content_type=CONTENT_TYPE)
