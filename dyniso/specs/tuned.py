"""Which candidate of `supervised.CANDIDATES` each method takes on each stream; written by `tools/tuned.py`."""

TUNED: dict[str, dict[str, int]] = {}
