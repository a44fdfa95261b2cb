"""Sweep: which objects may be deleted. Pure: listings, answers of the API and times in, addresses out.

An object goes for one of two reasons. It was removed by a commit, its grace has passed by the API's word, and that
commit and all before it are in the lake's copy of the catalogue. Or no commit ever named it, and it is older than the
safe age: a commit that names it would be refused since half that age. Age is the store's Last-Modified against the
store's own clock; clocks that differ by minutes stop it all. Keys that are not of our naming are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.lake import Found, Upload
from ingest.position import time_from_text

MOST_APART_US = 120_000_000

_NAME = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_KEYS = (
    rf"fresh/TOPIC/{_NAME}-(rows|late)\.parquet",
    rf"sealed/TOPIC/event_(date=\d{{4,6}}-\d\d-\d\d|hour=\d{{4,6}}-\d\d-\d\d-\d\d)/{_NAME}\.parquet",
    rf"dead_letters/TOPIC/{_NAME}\.parquet",
    rf"deletes/TOPIC/{_NAME}\.parquet",
)


class ClocksApart(Exception):
    """Clocks differ by minutes: no age can be believed, and nothing is deleted."""


class CatalogueStrange(Exception):
    """The lake has a copy of a catalogue that the API does not know: the database is not the one of this lake."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks that answered now, in microseconds: of the store, the database, and this process."""

    store_us: int
    database_us: int
    own_us: int

    def check(self) -> None:
        """Raises ClocksApart."""
        times = (self.store_us, self.database_us, self.own_us)
        if max(times) - min(times) > MOST_APART_US:
            raise ClocksApart(
                f"the clocks of store, database and upkeep are {(max(times) - min(times)) // 1_000_000} s apart: "
                "nothing is swept; set them by NTP"
            )


def ours(prefix_url: str, topic: str, url: str) -> bool:
    """Whether an address is one that we give to data of this topic. `prefix_url`: s3://BUCKET/PREFIX."""
    if not url.startswith(prefix_url):
        return False
    key = url.removeprefix(prefix_url)
    return any(re.fullmatch(form.replace("TOPIC", re.escape(topic)), key) for form in _KEYS)


def orphans(
    found: Iterable[Found], prefix_url: str, topic: str, clocks: Clocks, safe_age_us: int
) -> Iterator[Found]:
    """Objects that are old enough to go if no commit ever named them, which is still to be asked."""
    oldest = clocks.store_us - safe_age_us
    return (each for each in found if each.modified_us < oldest and ours(prefix_url, topic, each.url))


def left_uploads(
    begun: Iterable[Upload], prefix_url: str, topic: str, clocks: Clocks, safe_age_us: int
) -> Iterator[Upload]:
    """Multipart uploads that nobody will end."""
    oldest = clocks.store_us - safe_age_us
    return (each for each in begun if each.begun_us < oldest and ours(prefix_url, topic, each.url))


def sweepable(
    removed: Sequence[Mapping[str, Any]], prefix_url: str, topic: str, copied: int, clocks: Clocks
) -> list[Mapping[str, Any]]:
    """Removed files whose objects may go now. `copied`: the last sequence in the lake's copy of the catalogue."""
    return [
        file
        for file in removed
        if file["removed_sequence"] <= copied
        and (time_from_text(file["sweepable_at"]) or 0) <= clocks.database_us
        and ours(prefix_url, topic, file["url"])
    ]


def check_catalogue(
    topic: str, copies: Mapping[str, int], epochs: Collection[str], epoch: str, head: int
) -> None:
    """Raises CatalogueStrange. `copies`: epoch -> last sequence in the lake; `epochs`: that the API knows."""
    strange = [each for each in copies if each not in epochs]
    if strange:
        raise CatalogueStrange(
            f"topic {topic}: the lake holds a catalogue of epoch {strange[0]}, which the API does not know: its "
            "database is not the one of this lake. Nothing is swept; `tukang rebuild` makes the database again"
        )
    if copies.get(epoch, 0) > head:
        raise CatalogueStrange(
            f"topic {topic}: the lake's catalogue goes to {copies[epoch]}, the API's to {head}: its database was "
            "restored without a new epoch. Nothing is swept"
        )
