"""Read what was stored: tables, figures, claims with verdicts, the ledger, and what a chapter needs. Never torch."""

from ..checks import require_extra

require_extra("report", "duckdb", "pandas", "pooch", "tqdm", "matplotlib", "seaborn")
