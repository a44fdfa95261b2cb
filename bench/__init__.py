"""Tukang against what one would write otherwise: same broker, same topic, same store, rows checked."""
