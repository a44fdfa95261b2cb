"""The metadata API: what is in the lake, in which order it came, and that nothing is missing."""
