"""The way of an event from Kafka to the lake: workers, upkeep and verify."""
