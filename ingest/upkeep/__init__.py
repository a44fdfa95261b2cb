"""Upkeep: what keeps the lake good to read, beside running workers: seal, expire, erase, sweep, backfill."""
