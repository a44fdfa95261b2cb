"""Backfill: what the lake has of a time range is read from Kafka again and put through the steps as the topic is told
now."""
