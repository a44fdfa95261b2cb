"""The protocol under faults: production code on simulated time, broker, store, network and clocks."""
