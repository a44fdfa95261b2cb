"""How long Kafka keeps what was carried: carried records exist nowhere else, so they go out before they vanish there.

The decision is pure; the limits of a topic are asked of the broker by `Limits`, where the principal may.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from ingest.broker import BrokerSettings

NEAR = 0.1  # of the log: so close to its start is too close


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a record's life in a topic's log, in milliseconds; None: nothing that is known."""

    retention_ms: int | None = None
    cleaning_lag_ms: int | None = None

    @property
    def safe_ms(self) -> int | None:
        """Up to this age a record is safe: half of the shorter limit."""
        known = [
            limit for limit in (self.retention_ms, self.cleaning_lag_ms) if limit is not None and limit > 0
        ]
        return min(known) // 2 if known else None


def endangered(
    needed: int, oldest_ms: int | None, log: tuple[int, int], limits: Limits, lake_next: int, now_ms: int
) -> bool:
    """Whether a lake partition's held-back rows must go now.

    `needed`: the lowest offset that a restart would have to read again; `oldest_ms`: the oldest timestamp held; `log`:
    first offset and end; `lake_next`: the stored next. A log that was never cut (it starts at 0) is not near its start.
    """
    start, end = log
    if start > 0 and needed < lake_next and needed - start < (end - start) * NEAR:
        return True
    safe_ms = limits.safe_ms
    return safe_ms is not None and oldest_ms is not None and now_ms - oldest_ms > safe_ms


class LogLimits:
    """Asks the broker for the limits of topics. One connection, opened when first used."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._client: AdminClient | None = None

    async def ask(self, topic: str) -> Limits:
        """The limits of a topic; unknown ones where the broker does not tell (no answer, or no right to ask)."""
        return await asyncio.to_thread(self._ask, topic)

    def _ask(self, topic: str) -> Limits:
        if self._client is None:
            self._client = AdminClient({**self._settings.confluent_config(), "log_level": 0})
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            found = self._client.describe_configs([resource], request_timeout=15)[resource].result()
        except KafkaException:
            return Limits()
        policy = str(found["cleanup.policy"].value) if "cleanup.policy" in found else "delete"
        return Limits(
            retention_ms=_milliseconds(found, "retention.ms") if "delete" in policy else None,
            cleaning_lag_ms=_milliseconds(found, "min.compaction.lag.ms") if "compact" in policy else None,
        )


def _milliseconds(found: dict[str, object], name: str) -> int | None:
    value = getattr(found.get(name), "value", None)
    return None if value is None or int(value) < 0 else int(value)
