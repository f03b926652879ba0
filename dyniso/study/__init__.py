"""Declare experiments and train them: specs, streams, games, and the runner that stores one file a run.

Source of its own packages: the extra `study`; games also need the extra `rl`.
"""

from ..checks import require_extra

require_extra("study", "duckdb", "pandas", "pooch", "tqdm")
