"""The worker's figures for Prometheus, read when they are asked for. Names begin with `tukang_`.

Counters count what was committed, so that they agree with the ledger; gauges show what is held and how far it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingest.ledger import Line

if TYPE_CHECKING:
    from ingest.worker import Worker

_COUNTED = {
    "consumed": "Records read, in commits.",
    "written": "Rows in the lake.",
    "duplicates": "Records dropped because their event id was seen.",
    "differing": "Duplicates whose bytes differ.",
    "dead_letters": "Records that cannot become a row.",
    "lost": "Records that Kafka deleted before they were read.",
    "late": "Rows flagged late.",
    "early": "Rows published before the watermark reached them, for want of memory or log.",
    "tombstones": "Rows without a value.",
}


def count(totals: Counter[str], lines: Iterable[Line]) -> None:
    """Adds the lines of a commit to a topic's totals."""
    for line in lines:
        totals.update({name: getattr(line, name) for name in _COUNTED})
    totals["commits"] += 1


class WorkerFigures(Collector):
    """All figures of one worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def collect(self) -> Iterator[Metric]:
        """Families with a label `topic`, then those of the whole worker."""
        topics = list(self.worker.topics.items())
        for name, text in {
            **_COUNTED,
            "commits": "Commits.",
            "conflicts": "Commits refused with 409.",
        }.items():
            counter = CounterMetricFamily(f"tukang_{name}", text, labels=["topic"])
            for topic_name, topic in topics:
                counter.add_metric([topic_name], topic.totals[name])
            yield counter
        state = GaugeMetricFamily(
            "tukang_topic_state", "1 for the state that the topic is in.", labels=["topic", "state"]
        )
        held = GaugeMetricFamily("tukang_held_bytes", "Rows held, in bytes.", labels=["topic"])
        lag = GaugeMetricFamily(
            "tukang_lag_records", "Offsets not committed yet.", labels=["topic", "partition"]
        )
        window = GaugeMetricFamily(
            "tukang_window_cut_short",
            "1 when memory holds less than the dedup window.",
            labels=["topic", "partition"],
        )
        share = GaugeMetricFamily(
            "tukang_dead_letter_share", "Dead letters of the records of the last 5 minutes.", labels=["topic"]
        )
        alarm = GaugeMetricFamily(
            "tukang_dead_letter_alarm", "1 while that share is above dead_letter_alarm.", labels=["topic"]
        )
        for topic_name, topic in topics:
            share.add_metric([topic_name], topic.letter_rate.share(topic.means.now_us()))
            alarm.add_metric([topic_name], topic.alarm() is not None)
            state.add_metric([topic_name, topic.state], 1)
            held.add_metric([topic_name], topic.bytes)
            for partition, part in list(topic.parts.items()):
                labels = [topic_name, str(partition)]
                if part.end >= 0 and part.committed.next is not None:
                    lag.add_metric(labels, max(0, part.end - part.committed.next))
                window.add_metric(labels, part.held.seen.window_from_us is not None)
        yield from (state, held, lag, window, share, alarm)
        yield from self._whole()

    def _whole(self) -> Iterator[Metric]:
        worker, source = self.worker, self.worker.source
        dropped = source.tap.dropped if source.tap is not None else 0
        figures: dict[str, tuple[str, float]] = {
            "memory_bytes": ("What is held in all, in bytes.", worker.used_bytes()),
            "memory_limit_bytes": ("The ceiling.", int(worker.settings.memory)),
            "holding": ("1 while fetching is paused for want of memory.", worker.holding),
            "in_flight_bytes": ("Fetched and not decoded yet, in bytes.", source.in_flight.bytes),
            "unplaced_partitions": ("Assigned partitions that are not read.", source.positions.unplaced()),
            "group_generation": (
                "Generation of the consumer group, -1 outside of it.",
                source.membership.generation,
            ),
        }
        for name, (text, value) in figures.items():
            yield GaugeMetricFamily(f"tukang_{name}", text, value=value)
        counted = {
            "dropped_chunks": (
                "Fetched results dropped because they were not where reading goes on.",
                dropped,
            ),
            "acknowledge_errors": ("Advisory commits to Kafka that failed.", source.membership.commit_errors),
        }
        for name, (text, number) in counted.items():
            yield CounterMetricFamily(f"tukang_{name}", text, value=number)
