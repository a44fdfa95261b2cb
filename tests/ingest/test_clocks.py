"""Time and order over the real decoder: clocks that are wrong, times that are equal, and who counts as idle.

Records come with clocks of 1970, of 2099 and of the year 9999, in the event and in the record's timestamp; they are cut
anywhere, and the worker starts again anywhere. What was published is compared with what each record may say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import batch
from ingest.batch import Cut, FlushRules
from ingest.chunk import Records
from ingest.decode import DecodeRules, decode
from ingest.dedup import Seen
from ingest.held import Held, stands_in
from ingest.position import Position
from ingest.schema import TopicSchema

MINUTE_US = 60_000_000
NOW_US = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z
DECODING = DecodeRules(event_time=("at",))
YEAR_1970, YEAR_2099, YEAR_9999 = "1970-01-01T00:00:00Z", "2099-12-31T23:59:00Z", "9999-12-31T23:59:59Z"


@dataclass(frozen=True)
class Sent:
    """A record: its time as it stands in the event, and the producer's clock."""

    at: object
    stamp_ms: int
    ahead_us: int | None = None  # the event's time against `NOW_US`, when it is a sane one

    @property
    def value(self) -> bytes:
        return json.dumps({"at": self.at}).encode()

    @property
    def believed_us(self) -> int | None:
        """The event time that the rules let it have; None: something stands in."""
        believable = self.ahead_us is not None or self.at == YEAR_1970
        time_us = 0 if self.ahead_us is None else NOW_US + self.ahead_us
        stamp_us = self.stamp_ms * 1000 if 0 <= self.stamp_ms * 1000 <= NOW_US else NOW_US
        return time_us if believable and time_us <= stamp_us + DECODING.max_ahead_us else None


def text(ahead_us: int) -> str:
    return str(np.datetime64(NOW_US + ahead_us, "us")) + "Z"


minutes = st.integers(-30, 12).map(lambda number: number * MINUTE_US)  # grained by the minute: many are equal
stamps = st.sampled_from(
    [NOW_US // 1000, NOW_US // 1000 - 600_000, 0, -1, 4_102_444_740_000, 253_402_300_799_000]
)
sent = st.one_of(
    st.builds(lambda ahead, stamp: Sent(text(ahead), stamp, ahead), minutes, stamps),
    st.builds(Sent, st.sampled_from([YEAR_1970, YEAR_2099, YEAR_9999, None, "soon", [], 10**30]), stamps),
)


@dataclass
class World:
    """A log, the position that is stored, and the rows that were published: (offset, late)."""

    log: list[Sent]
    lateness_us: int
    position: Position = field(default_factory=lambda: Position(0, 0))
    published: list[tuple[int, bool]] = field(default_factory=list)
    schema: TopicSchema = field(default_factory=TopicSchema)

    def start(self) -> Held:
        return Held(self.position, 0, Seen(3_600_000_000), NOW_US)

    def read(self, held: Held, until: int) -> None:
        offsets = np.arange(held.next, until)
        if (mask := held.wanted(offsets)) is not None:
            offsets = offsets[mask]
        taken = [self.log[offset] for offset in offsets]
        stamps_ms = np.array([each.stamp_ms for each in taken], np.int64)
        records = Records(offsets, stamps_ms, [None] * len(taken), [each.value for each in taken])
        decoded = decode(records, 0, self.schema, DECODING, NOW_US)
        self.schema = decoded.schema
        held.add(
            decoded.table,
            decoded.dead,
            decoded.content,
            stands_in(decoded.table),
            offsets,
            until,
            NOW_US,
            keep_differing=False,
        )

    def cut(self, held: Held, *, idle: bool, early: bool = False) -> Cut | None:
        rules = FlushRules(rows=10**9, bytes=10**12, age_us=0, lateness_us=self.lateness_us)
        done = batch.cut(
            "t", [held], self.schema, rules, {0: idle}, "c", most_rows=10**9, early=[0] if early else []
        )
        if done is not None:
            for table in done.tables()[:2]:
                self.published += zip(
                    table.column("_offset").to_pylist(), table.column("_late").to_pylist(), strict=True
                )
            self.position = done.lines[0].position
        return done


@given(
    st.lists(sent, min_size=1, max_size=30),
    st.lists(
        st.tuples(st.integers(1, 8), st.sampled_from(["cut", "idle", "restart", "nothing"])), max_size=12
    ),
    st.sampled_from([0, MINUTE_US, 5 * MINUTE_US, 3_600_000_000]),
)
@settings(max_examples=200, deadline=None)
def test_whatever_clocks_say_every_record_is_published_once_and_none_moves_time_beyond_belief(
    log: list[Sent], steps: list[tuple[int, str]], lateness_us: int
) -> None:
    world = World(log, lateness_us)
    held = world.start()
    for number, then in [*steps, (len(log), "cut")]:
        until = min(held.next + number, len(log))
        if until > held.next:
            world.read(held, until)
        if then == "restart":
            held = world.start()
        elif then in ("cut", "idle"):
            before = world.position
            done = world.cut(held, idle=then == "idle" and not len(held.awaited))
            if done is not None:
                check(world, before, done, lateness_us, idle=then == "idle")
    while held.next < len(log) or len(held.awaited):
        world.read(held, len(log))
    world.cut(held, idle=False, early=True)
    assert sorted(offset for offset, _ in world.published) == list(range(len(log)))


def check(world: World, before: Position, done: Cut, lateness_us: int, *, idle: bool) -> None:
    after = world.position
    read = world.log[: after.next]
    believed = [each.believed_us for each in read if each.believed_us is not None]
    assert after.highest_us == max(believed, default=None)
    if believed:
        wanted = max(believed) - (0 if idle else lateness_us)
        assert after.watermark_us == max(
            wanted, before.watermark_us if before.watermark_us is not None else wanted
        )
    for offset in after.carried:
        waits = world.log[offset].believed_us
        assert waits is not None, "what stands in for an event time never waits"
        assert after.watermark_us is not None
        assert waits > after.watermark_us
    if lateness_us == 0:
        assert len(after.carried) == 0
    late = done.tables()[1]
    for time in late.column("_event_time").cast("int64").to_pylist():
        assert before.watermark_us is not None
        assert time < before.watermark_us


@pytest.mark.parametrize("at", [YEAR_2099, YEAR_9999, 10**30, "soon", None])
@pytest.mark.parametrize("stamp_ms", [NOW_US // 1000, 4_102_444_740_000, -1])
def test_a_time_that_is_not_believed_never_moves_the_watermark_and_never_waits(
    at: object, stamp_ms: int
) -> None:
    world = World([Sent(text(0), NOW_US // 1000, 0), Sent(at, stamp_ms)], MINUTE_US)
    held = world.start()
    world.read(held, 2)
    world.cut(held, idle=False)
    assert world.position.watermark_us == NOW_US - MINUTE_US
    assert world.published == [(1, False)]
    assert world.position.carried.tolist() == [0]


def test_rows_of_one_minute_stay_together_in_order_of_offset() -> None:
    world = World([Sent(text(0), NOW_US // 1000, 0)] * 5, 0)
    held = world.start()
    world.read(held, 3)
    world.cut(held, idle=False)
    world.read(held, 5)
    world.cut(held, idle=False)
    assert world.published == [(offset, False) for offset in range(5)], "equal to the watermark is not late"


def quiet() -> Held:
    """A partition whose newest row was read at 0, and an older one after it."""
    one = World(
        [Sent(text(0), NOW_US // 1000, 0), Sent(text(-MINUTE_US), NOW_US // 1000, -MINUTE_US)], MINUTE_US
    )
    held = one.start()
    held.quiet_since_us = 0
    one.read(held, 1)
    held.quiet_since_us = 0  # `read` uses one clock for everything
    one.read(held, 2)
    return held


def test_a_partition_is_idle_when_its_end_was_confirmed_a_lateness_after_its_newest_row() -> None:
    held = quiet()
    assert not held.idle(end=2, confirmed_at_us=MINUTE_US - 1, lateness_us=MINUTE_US)
    assert held.idle(end=2, confirmed_at_us=MINUTE_US, lateness_us=MINUTE_US)


def test_a_tail_of_old_events_after_a_new_one_keeps_nobody_waiting() -> None:
    """Quiet runs from the newest row: producers that send what they had kept do not start it anew."""
    assert quiet().idle(end=2, confirmed_at_us=MINUTE_US, lateness_us=MINUTE_US)


def test_a_backlog_is_never_idle_however_old_it_is() -> None:
    assert not quiet().idle(end=3, confirmed_at_us=10**9 * MINUTE_US, lateness_us=MINUTE_US)


def test_an_outage_does_not_look_idle_because_nobody_confirms_the_end() -> None:
    """The clock runs on while the broker is away; the last confirmation does not."""
    assert not quiet().idle(end=2, confirmed_at_us=1_000_000, lateness_us=MINUTE_US)


def test_a_hanging_transaction_hides_the_end_and_nobody_is_idle() -> None:
    assert not quiet().idle(end=-1, confirmed_at_us=10 * MINUTE_US, lateness_us=MINUTE_US)
