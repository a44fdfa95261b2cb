"""The private names of aiokafka, Faust and mode that the source uses, and the check at start that they are there.

The source reaches into the client, since no public way gives whole batches. Another version may keep the names and
change what they mean, so the versions must be exactly those that were tried; and a patched build may keep the version
and change the names, so these are looked at too.
"""

from __future__ import annotations

import dis
import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import faust
import mode
from aiokafka import AIOKafkaConsumer, codec
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import fetcher, group_coordinator, subscription_state
from aiokafka.record.control_record import ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import MemoryRecords

VERSIONS = {"aiokafka": "0.14.0", "faust-streaming": "0.15.3", "mode-streaming": "0.7.1"}

_BATCH = ("validate_crc", "next_offset", "producer_id", "is_control_batch", "is_transactional")

NAMES: dict[Any, tuple[str, ...]] = {
    AIOKafkaConsumer: ("_client", "_closed", "_coordinator", "_fetcher", "_subscription", "seek", "pause", "resume"),
    AIOKafkaClient: ("_sync_task", "cluster", "close", "force_metadata_update", "send"),
    ClusterMetadata: ("topics", "partitions_for_topic", "leader_for_partition"),
    fetcher: ("READ_COMMITTED", "FetchError", "FetchResult", "MemoryRecords", "PartitionRecords"),
    fetcher.Fetcher: (
        "_create_fetch_waiter", "_fetch_task", "_isolation_level", "_notify", "_prefetch_backoff", "_records",
        "_wait_consume_future", "beginning_offsets", "end_offsets", "seek_to",
    ),
    fetcher.FetchResult: ("_partition_records", "_update_position", "check_assignment"),
    fetcher.FetchError: ("_error",),
    fetcher.PartitionRecords: (
        "_aborted_producers", "_consume_aborted_up_to", "_isolation_level", "_records", "_records_iterator",
        "next_fetch_offset",
    ),
    group_coordinator.GroupCoordinator: (
        "_coordination_task", "check_errors", "coordinator_id", "generation", "request_rejoin",
    ),
    subscription_state.SubscriptionState: (
        "assign_from_subscribed", "fetch_context", "pause", "seek", "subscription", "topics",
    ),
    subscription_state.Subscription: ("assignment",),
    subscription_state.Assignment: ("active", "state_value", "tps"),
    subscription_state.TopicPartitionState: ("highwater", "lso", "position", "timestamp"),
    ControlRecord: ("parse", "type_"),
    DefaultRecordBatch: (*_BATCH, "base_offset"),
    LegacyRecordBatch: _BATCH,
    MemoryRecords: ("has_next", "next_batch", "size_in_bytes"),
    codec: ("gzip_decode", "lz4_decode", "snappy_decode", "zstd_decode"),
    faust.App: ("_create_directories",),
    faust.App.BootStrategy: ("enable_kafka",),
    faust.Channel: ("put", "subscriber_count"),
    mode.Service: (
        "_crash", "add_runtime_dependency", "crash", "crashed", "on_start", "on_stop", "should_stop", "sleep",
    ),
}  # fmt: skip
"""Where -> names that must be found there: as attributes, or as attributes that a method of it assigns."""


class InternalsChanged(Exception):
    """A library is not the one that the source was made for. The worker must not run."""


def check() -> None:
    """Raises InternalsChanged, which names everything that is not as it was."""
    wrong = []
    for package, wanted in VERSIONS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append(f"{package} is {found}, wanted {wanted}")
    for place, names in NAMES.items():
        there = _set_on_self(place) if inspect.isclass(place) else set()
        where = (
            f"{getattr(place, '__module__', '')}.{place.__qualname__}"
            if inspect.isclass(place)
            else place.__name__
        )
        wrong += [f"{where} has no {name}" for name in names if not (hasattr(place, name) or name in there)]
    if wrong:
        raise InternalsChanged(
            "the Kafka source uses private names of its libraries, and they are not as they were: "
            + "; ".join(wrong)
            + ". Install the versions that Tukang pins; the worker does not run with others."
        )


def _set_on_self(place: type[Any]) -> set[str]:
    """Every attribute that a method of a class, or of a class it is made of, assigns."""
    methods = [each for base in place.__mro__ for each in vars(base).values() if inspect.isfunction(each)]
    steps = [step for each in methods for step in dis.get_instructions(each)]
    return {str(step.argval) for step in steps if step.opname == "STORE_ATTR"}
