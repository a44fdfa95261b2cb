"""The embedded stack, the demo, and what production needs."""
