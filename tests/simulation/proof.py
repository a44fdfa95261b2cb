"""The proof: what the broker took, held against what the database and the store have.

It reads the tables and the objects themselves and computes every law anew, from the records that were produced.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from ingest.position import carried_from_text, time_from_text
from tests.simulation.events import HOUR_US, Record
from tests.simulation.lake import Line, Part, Row, life_of, read_parts, rows_of

if TYPE_CHECKING:
    from tests.simulation.world import World

CLOCKS_THAT_JUMP = {"worker clock", "a day passes"}
SLOWEST_CLOCK = 0.97  # of the workers', by which idleness is measured


class Proof:
    def __init__(self, world: World) -> None:
        self.world = world
        self.figures: Counter[str] = Counter()
        self._committed: dict[str, float] = {}  # commit -> when it was taken
        self._partitions: dict[tuple[str, int], int] = {}
        self._places: dict[str, dict[tuple[int, int, int], Record]] = {}

    # -- while it runs --------------------------------------------------------------------------------------------

    def check_commit(self, name: str, content: dict[str, Any]) -> None:
        """A carried row must be newer than the stored watermark, or it would be late when it is read again."""
        self._committed[content["id"]] = self.world.scheduler.now
        topic = self.world.topics[name]
        for line in content["lines"]:
            position = line["position"]
            if not line["carried_out"]:
                continue
            partition = self._partition(name, line["lake_partition"])
            life = life_of(position["topic_id"])
            watermark = time_from_text(position["watermark"])
            for offset in carried_from_text(position["carried"], position["next"]).tolist():
                record = self._at(name, life or topic.life, partition, offset)
                if record is None or record.event.bad:
                    self._wrong(
                        f"{name}-{partition}: offset {offset} is carried, and no good record is there"
                    )
                elif watermark is not None and record.event.time_us <= watermark:
                    self._wrong(
                        f"{name}-{partition}: offset {offset} of {record.event.time_us} is carried, at or before the"
                        f" stored watermark {watermark}"
                    )

    def _partition(self, name: str, lake_partition: int) -> int:
        if (name, lake_partition) not in self._partitions:
            self._partitions = {
                (row["topic"], row["lake_partition"]): row["broker_partition"]
                for row in self.world.stored_positions()
            }
        return self._partitions[name, lake_partition]

    def _at(self, name: str, life: int, partition: int, offset: int) -> Record | None:
        places = self._places.setdefault(name, {})
        made = self.world.topics[name].made
        for record in itertools.islice(made, len(places), None):
            places[record.life, record.partition, record.offset] = record
        return places.get((life, partition, offset))

    def _wrong(self, what: str) -> None:
        self.world.wrong.append(what)

    # -- at the end -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """All laws; what is broken goes to the world's `wrong`."""
        parts = read_parts(self.world)
        self._check_sequences()
        self._check_answers()
        self._read_files(parts)
        for part in parts.values():
            for line in part.lines:
                self._check_line(part, line)
            self._check_chain(part)
            self._check_records(part)

    def _check_sequences(self) -> None:
        """1, 2, 3 ... without a gap, one for each accepted commit and each reset that gave carried records up."""
        rows = self.world.rows
        accepted = Counter(body["topic"] for _, body in self.world.api.answers.values())
        for topic in rows("SELECT id, name, sequence FROM topics"):
            made = rows(
                f"SELECT sequence, worker FROM commits WHERE topic_id = {topic['id']} ORDER BY sequence"
            )
            found = [row["sequence"] for row in made]
            by_workers = sum(row["worker"] != "accept-reset" for row in made)
            if found != list(range(1, topic["sequence"] + 1)) or by_workers != accepted[topic["name"]]:
                self._wrong(f"{topic['name']}: sequences {found}, head {topic['sequence']}")
            self.figures["commits"] += len(found)

    def _check_answers(self) -> None:
        """A commit asked again at any later time gets its first answer; its id with other content is refused."""
        answers = self.world.api.answers
        rng = random.Random(self.world.plan.seed)
        for commit in rng.sample(sorted(answers), min(2, len(answers))):
            content, first = answers[commit]
            path = f"/topics/{first['topic']}/commits"
            again = self.world.api.serve("POST", path, content)
            if again != (200, first):
                self._wrong(f"commit {commit} asked again: {again}, first {first}")
            other = orjson.dumps({**orjson.loads(content), "worker": "somebody else"})
            status, said = self.world.api.serve("POST", path, other)
            if status != 422 or not said["type"].endswith("commit-id-reused"):
                self._wrong(f"commit {commit} with other content: {status} {said}")
        self.world.wrong += self.world.api.wrong

    def _read_files(self, parts: dict[tuple[str, int], Part]) -> None:
        """Every live file is in the store as it was committed; its rows go to their ledger lines."""
        lines = {
            (line.topic, line.sequence, line.lake_partition): line
            for part in parts.values()
            for line in part.lines
        }
        for file in self.world.rows(
            "SELECT t.name AS topic, f.* FROM files f JOIN topics t ON t.id = f.topic_id"
            " WHERE f.removed_sequence IS NULL ORDER BY f.id"
        ):
            stored = self.world.store.objects.get(file["url"])
            if stored is None:
                self._wrong(f"the live file {file['url']} is not in the store")
                continue
            parcel = stored.parcel
            if (parcel.sha256, len(parcel), len(parcel.rows)) != (
                file["sha256"].hex(),
                file["bytes"],
                file["rows"],
            ):
                self._wrong(f"the live file {file['url']} is not what was committed")
                continue
            self.figures["files"] += 1
            rows = list(rows_of(self.world, file, parcel.table))
            if file["what"] == "rows":
                order = [(row.time_us, row.lake_partition, row.offset) for row in rows]
                if order != sorted(order):
                    self._wrong(f"the rows of {file['url']} are not in order")
            for row in rows:
                line = lines.get((file["topic"], file["added_sequence"], row.lake_partition))
                if line is None:
                    self._wrong(f"{file['url']} has a row of a lake partition that its commit does not name")
                else:
                    (line.rows if file["what"] == "rows" else line.dead).append(row)

    def _check_line(self, part: Part, line: Line) -> None:
        where = f"{part}, sequence {line.sequence}"
        counts = line.counts
        came = counts["consumed"] + counts["carried_in"]
        went = sum(counts[name] for name in ("written", "duplicates", "dead_letters", "lost", "carried_out"))
        if came != went:
            self._wrong(f"{where}: {came} records came, {went} went: {counts}")
        if len(line.rows) != counts["written"] or len(line.dead) != counts["dead_letters"]:
            self._wrong(f"{where}: {len(line.rows)} rows, {len(line.dead)} dead letters, but {counts}")
        if counts["carried_out"] != len(line.carried):
            self._wrong(f"{where}: carried_out {counts['carried_out']}, in the set {len(line.carried)}")
        mine = line.before.carried if line.before is not None else set()
        for row in [*line.rows, *line.dead]:
            if not (line.from_offset <= row.offset < line.to_offset or row.offset in mine):
                self._wrong(f"{where}: offset {row.offset} is not of this line")
        limit = line.late_before
        early = [
            row.time_us
            for row in line.rows
            if not self._stood_in(row.record)
            and (limit is None or row.time_us >= limit)
            and (line.watermark is None or row.time_us > line.watermark)
        ]
        for row in line.rows:
            late = limit is not None and row.time_us < limit
            if row.late != late or row.file_late != late:
                self._wrong(f"{where}: offset {row.offset} has late = {row.late}, it should be {late}")
        if counts["late"] != sum(row.late for row in line.rows):
            self._wrong(f"{where}: late {counts['late']}, rows say otherwise")
        if counts["early"] != len(early):
            self._wrong(f"{where}: early {counts['early']}, {len(early)} rows are newer than the watermark")
        before = line.before.published_to if line.before is not None else None
        self._check_idle(part, line)
        if line.published_to != max((time for time in (before, *early) if time is not None), default=None):
            self._wrong(f"{where}: published_to is {line.published_to}, before {before}, early rows {early}")

    def _check_idle(self, part: Part, line: Line) -> None:
        """A watermark above `highest less lateness` says: idle. Then nobody had sent anything for `lateness` after the
        record with the highest time, and what was sent before that is read."""
        plan, before = self.world.plan, line.before.watermark if line.before is not None else None
        if line.watermark is None or line.highest is None or line.watermark == before:
            return
        if line.watermark <= line.highest - plan.lateness_us or plan.faults.keys() & CLOCKS_THAT_JUMP:
            return
        quiet_s = plan.lateness_us / 1_000_000 * SLOWEST_CLOCK
        records = list(self._records(part))
        highest = [
            r
            for r in records
            if r.event.time_us == line.highest and not self._stood_in(r) and not r.event.bad
        ]
        since = min(record.at for record in highest)
        taken = self._committed[line.id]
        if taken < since + quiet_s:
            self._wrong(f"{part}, sequence {line.sequence}: idle, {quiet_s} s before it can be")
        unread = [
            r.offset
            for r in records
            if r.at < since + quiet_s
            and r.offset >= line.to_offset
            and (r.gone_at is None or r.gone_at > taken)
        ]
        if unread:
            self._wrong(f"{part}, sequence {line.sequence}: idle, although {unread} wait to be read")

    def _check_chain(self, part: Part) -> None:
        for line in part.lines:
            before = line.before
            if before is None:
                if line.from_version is not None or line.counts["carried_in"]:
                    self._wrong(f"{part}, sequence {line.sequence}: the first line follows something")
                continue
            if (line.from_version, line.from_offset) != (before.id, before.to_offset):
                self._wrong(f"{part}, sequence {line.sequence} does not start where {before.sequence} ended")
            if line.counts["carried_in"] != len(before.carried):
                self._wrong(f"{part}, sequence {line.sequence}: carried_in is not what was carried")
            strange = {each for each in line.carried if each < line.from_offset} - before.carried
            if strange:
                self._wrong(
                    f"{part}, sequence {line.sequence}: carries {strange}, which was not carried before"
                )
            for name in ("highest", "watermark", "published_to"):
                old, new = getattr(before, name), getattr(line, name)
                if old is not None and (new is None or new < old):
                    self._wrong(f"{part}, sequence {line.sequence}: {name} went back")
        if part.lines:
            last, row = part.lines[-1], part.row
            position = (str(UUID(row["version"])), row["next"], row["watermark_us"], row["carried_count"])
            if position != (last.id, last.to_offset, last.watermark, len(last.carried)):
                self._wrong(f"{part}: the position is not that of its last line")

    def _check_records(self, part: Part) -> None:
        """Every record below the position is a row once, a dead letter once, a duplicate with its twin, or lost."""
        if not part.lines:
            return
        first, last = part.lines[0], part.lines[-1]
        rows = self._once(part, [row for line in part.lines for row in line.rows], bad=False)
        dead = self._once(part, [row for line in part.lines for row in line.dead], bad=True)
        lost = {offset for line in part.lines for offset in line.lost}
        if wrongly := lost & (rows.keys() | dead.keys()):
            self._wrong(f"{part}: {sorted(wrongly)} are lost and in the lake")
        given_up: set[int] = set()
        if (part.topic, part.number) in self.world.closed and last.before is not None:
            given_up = last.lost & last.before.carried
            if last.carried:
                self._wrong(f"{part} is closed and carries {last.carried}")
        by_id: dict[str, list[Record]] = defaultdict(list)
        for row in rows.values():
            if row.record.event.id is not None:
                by_id[row.record.event.id].append(row.record)
        missing, gone = [], 0
        for record in self._records(part):
            if record.offset in lost:
                if record.gone_at is None and record.offset not in given_up:
                    self._wrong(f"{part}: offset {record.offset} is lost, but the broker has it")
                if record.event.id is not None:
                    by_id[record.event.id].append(record)  # its repeats may have been dropped for it
            elif record.offset < first.from_offset:
                if record.gone_at is None and not part.row["start_from"]:
                    self._wrong(f"{part}: offset {record.offset} stands before the first line")
            elif record.offset < last.to_offset:
                if record.offset in last.carried:  # of a topic that was stopped
                    if record.event.id is not None:
                        by_id[record.event.id].append(record)
                elif record.offset not in rows and record.offset not in dead:
                    if record.gone_by == "compaction":
                        gone += 1
                    else:
                        missing.append(record)
        for record in missing:
            if not any(self._near(record, twin) for twin in by_id.get(record.event.id or "", ())):
                self._wrong(
                    f"{part}: offset {record.offset} is neither a row, nor a dead letter, nor carried, nor lost, and"
                    f" has no twin in the lake: {record}"
                )
        dropped = sum(line.counts["duplicates"] for line in part.lines)
        if not len(missing) <= dropped <= len(missing) + gone:
            self._wrong(f"{part}: {dropped} duplicates in the ledger, {len(missing)} records are missing")
        self._check_repeats(part, by_id, lost)
        self.figures["rows"] += len(rows)
        self.figures["dead letters"] += len(dead)
        self.figures["duplicates"] += dropped
        self.figures["lost"] += sum(line.counts["lost"] for line in part.lines)
        self.figures["late"] += sum(line.counts["late"] for line in part.lines)
        self.figures["early"] += sum(line.counts["early"] for line in part.lines)

    def _records(self, part: Part) -> Iterator[Record]:
        """What a reader of committed records could have read in the life of this lake partition."""
        opened = self.world.opened.get((part.topic, part.number))
        closed = self.world.closed.get((part.topic, part.number))
        for record in self.world.topics[part.topic].made:
            if (record.life, record.partition) != (part.life, part.partition) or record.aborted:
                continue
            gone_before = opened is not None and record.gone_at is not None and record.gone_at <= opened
            if not gone_before and (closed is None or record.at <= closed):
                yield record

    def _once(self, part: Part, rows: list[Row], *, bad: bool) -> dict[int, Row]:
        found: dict[int, Row] = {}
        for row in rows:
            record = row.record
            if row.offset in found:
                self._wrong(
                    f"{part}: offset {row.offset} is there twice, in {found[row.offset].sequence} and {row.sequence}"
                )
            if (record.life, record.partition, record.offset) != (part.life, part.partition, row.offset):
                self._wrong(f"{part}: offset {row.offset} is another record: {record}")
            if record.aborted or record.event.bad != bad:
                self._wrong(f"{part}: offset {row.offset} should not be there: {record}")
            found[row.offset] = row
        return found

    def _check_repeats(self, part: Part, by_id: dict[str, list[Record]], lost: set[int]) -> None:
        """No copy was missed that the memory of the window had to know."""
        horizons = [
            (line.from_offset, line.to_offset, line.before.watermark if line.before else None)
            for line in part.lines
        ]
        for records in by_id.values():
            found = sorted(
                (record for record in records if record.offset not in lost), key=lambda record: record.offset
            )
            for one, other in itertools.combinations(found, 2):
                if self._stood_in(one) or self._stood_in(other) or not self._near(one, other):
                    continue
                if self.world.plan.keep_differing and one.event.content != other.event.content:
                    continue
                watermark = next(mark for start, end, mark in horizons if start <= other.offset < end)
                window_us = self.world.plan.window_us
                if watermark is None or one.event.time_us >= (watermark - window_us) // HOUR_US * HOUR_US:
                    self._wrong(f"{part}: {one} and {other} are both in the lake")

    def _stood_in(self, record: Record) -> bool:
        return record.event.stood_in and self.world.plan.timed

    def _near(self, one: Record, other: Record) -> bool:
        if self._stood_in(one) or self._stood_in(other):
            return True
        return abs(one.event.time_us - other.event.time_us) <= self.world.plan.window_us
