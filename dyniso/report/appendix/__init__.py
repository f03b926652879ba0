"""Settings and costs for the book's appendix, read from specs, docstrings and stored tables, as rows and Markdown.

Nothing is typed twice: a new field of a spec, a new method or a new table appears by itself. No torch: the classes and
optimizers that a page describes are handed in by it.
"""

from .costs import Costs, cached, cost_blocks, measured_costs, not_run, run_costs, speed_rows, stack_rows, steps_of
from .experiments import experiment_block, settings_of
from .methods import (
    NAMESAKES,
    PARTS,
    arm_rows,
    described,
    namesake,
    namesake_block,
    optimizer_row,
    part_line,
    settings_text,
    source_of,
    used_parts,
    variant,
    variants,
)
from .sweeps import Sweep, at_the_edge, candidate_rows, sweep_block, sweep_of
from .text import bullets, duration, folded, plain, shown

__all__ = [
    "NAMESAKES",
    "PARTS",
    "Costs",
    "Sweep",
    "arm_rows",
    "at_the_edge",
    "bullets",
    "cached",
    "candidate_rows",
    "cost_blocks",
    "described",
    "duration",
    "experiment_block",
    "folded",
    "measured_costs",
    "namesake",
    "namesake_block",
    "not_run",
    "optimizer_row",
    "part_line",
    "plain",
    "run_costs",
    "settings_of",
    "settings_text",
    "shown",
    "source_of",
    "speed_rows",
    "stack_rows",
    "steps_of",
    "sweep_block",
    "sweep_of",
    "used_parts",
    "variant",
    "variants",
]
