"""Dead letters after they were kept: found, looked at, taken out, and read again once what was wrong is mended."""
