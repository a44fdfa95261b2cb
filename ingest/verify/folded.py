"""Where a chain begins whose history is folded: a line per lake partition and day, and the files live then. Pure.

Both laws hold over a folded line as over the lines in it: it starts where the line before ended, and what came is what
became of it, over all kinds of commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ingest.verify.chain import Chain, chained, link_of
from ingest.verify.finding import Finding

CAME = ("consumed", "carried_in", "rows_in", "dead_in", "restored")
WENT = (
    "written", "dead_letters", "carried_out", "rows_out", "dead_out", "duplicates", "lost", "erased", "expired",
)  # fmt: skip


def begin(
    chain: Chain, lines: Iterable[Mapping[str, Any]], live: Iterable[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Takes what is left of the folded commits; the chain then knows all as if it had taken every one of them.

    `live`: the files as of the last folded sequence.
    """
    for line in lines:
        number = line["lake_partition"]
        where = {"lake_partition": number, "sequence": line["sequence"]}
        came, went = (sum(line[name] for name in names) for names in (CAME, WENT))
        if came != went:
            text = f"of the folded line {came} came in, but what became of them adds up to {went}"
            yield Finding("damage", "ledger_line", chain.topic, text, **where)
        if line["position"] is not None:
            try:
                link = link_of(line)
            except (TypeError, ValueError) as error:
                text = f"the folded line has no position that can be read: {error}"
                yield Finding("damage", "ledger_line", chain.topic, text, **where)
                continue
            yield from chained(chain, line, link)
            chain.links[number] = link
        chain.rows[number] += line["written"] + line["rows_out"] - line["rows_in"]
        # A rewrite's `lost` has no ranges: what it could not restore was lost before.
        if lost := min(line["lost"], sum(end - start for start, end in line["lost_ranges"])):
            chain.lost[number] = chain.lost.get(number, 0) + lost
    for file in live:
        chain.live[file["id"]] = dict(file)
        chain.urls.add(file["url"])
