"""The proof: the lake agrees with the ledger, and the ledger with Kafka where Kafka still has it.

`run.py` is the order of things. What is looked for lives in one file each: `chain.py` (the laws of the ledger; pure),
`objects.py` (the store against the catalogue), `rows.py` (`--deep`: the rows themselves), `source.py` (the broker).
`finding.py` is what they say. Nothing in here changes anything anywhere.
"""

from ingest.verify.run import verify

__all__ = ["verify"]
