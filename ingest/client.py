"""The Kafka client: how it is made for the source, started however long that takes, and closed.

Nothing here reads, and nothing here knows positions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from ingest.assignor import KnownTopicsOnly, RendezvousAssignor
from ingest.broker import BrokerAway, BrokerRefused, BrokerSettings, knock

log = logging.getLogger(__name__)

CLOSE_SECONDS = 15.0  # to leave the group and close
LONGEST_PAUSE_SECONDS = 5.0  # between two attempts to reach the broker
REFUSALS = 3  # in a row: a broker that has just started may not know its users yet


def arguments(
    *,
    group: str,
    worker_name: str,
    assignor: RendezvousAssignor,
    session_timeout_s: float,
    heartbeat_s: float,
    rebalance_timeout_s: float,
    metadata_max_age_s: float,
    partition_fetch_bytes: int,
    fetch_bytes: int,
    fetch_min_bytes: int,
    fetch_wait_s: float,
    client_rack: str | None,
) -> dict[str, Any]:
    """What `AIOKafkaConsumer` is told, apart from how to reach the broker."""
    return {
        "client_id": f"tukang-{worker_name}",
        "group_id": group,
        "session_timeout_ms": int(session_timeout_s * 1000),
        "heartbeat_interval_ms": int(heartbeat_s * 1000),
        "rebalance_timeout_ms": int(rebalance_timeout_s * 1000),
        "request_timeout_ms": int(rebalance_timeout_s * 1500),  # a join waits for all members in one request
        "max_poll_interval_ms": 10**10,  # a source that is held for long must stay a member
        "metadata_max_age_ms": int(metadata_max_age_s * 1000),
        "auto_offset_reset": "none",  # a jump must be an error
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": partition_fetch_bytes,
        "fetch_max_bytes": fetch_bytes,
        "fetch_min_bytes": fetch_min_bytes,
        "fetch_max_wait_ms": int(fetch_wait_s * 1000),
        "client_rack": client_rack,
        "partition_assignment_strategy": (assignor,),
    }


async def connect(
    broker: BrokerSettings,
    told: dict[str, Any],
    sleep: Callable[[float], Awaitable[None]],
    stopping: Callable[[], bool],
    away: Callable[[str | None], None],
) -> AIOKafkaConsumer | None:
    """A started consumer, however long it takes; `away` hears why it takes long, then None. None: `stopping`.

    Raises BrokerRefused when the broker refuses us again and again.
    """
    pause, refusals = 0.5, 0
    while not stopping():
        consumer = None
        try:
            await knock(broker)
            consumer = AIOKafkaConsumer(**broker.kafka_arguments(), **told)
            consumer._subscription = KnownTopicsOnly()
            await consumer.start()
        except (BrokerAway, BrokerRefused, KafkaError, OSError) as error:
            if consumer is not None:
                await close(consumer)
            refusals = refusals + 1 if isinstance(error, BrokerRefused) else 0
            if refusals == REFUSALS:
                raise
            away(str(error))
            log.warning("waiting for the broker: %s; asking again in %.1f s", error, pause)
            await sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
        except asyncio.CancelledError:
            if consumer is not None:
                await close(consumer)
            raise
        else:
            away(None)
            log.info("connected to the broker at %s", broker.servers)
            return consumer
    return None


async def close(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and close, within a time limit. In a task of its own: while the broker is away the client's own
    close can end in a cancellation, which must not look like ours."""
    leaving = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([leaving], timeout=CLOSE_SECONDS)
    if leaving.done() and not leaving.cancelled() and leaving.exception() is None:
        return
    log.warning("the Kafka client did not close in order: the group notices after the session timeout")
    leaving.cancel()
    closing = asyncio.ensure_future(consumer._client.close())
    await asyncio.wait([closing], timeout=CLOSE_SECONDS)
    if closing.done() and not closing.cancelled():
        closing.exception()
