"""What the sweeps found: the late score of every candidate, the best one, and the text of `specs/tuned.py`.

Reads committed tables; no torch. `tools/tuned.py` writes the file, the book's appendix shows what it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from ..stats import Array
from ..study import specs, store
from ..study.specs import Experiment

TIER = "check"  # whose sweeps decide
SWEEP = "tune_"
HEAD = '"""Which candidate of `supervised.CANDIDATES` each method takes on each stream; written by `tools/tuned.py`."""'
Read = Callable[[Experiment], pd.DataFrame]


def swept_streams() -> list[str]:
    """The streams of the suite that have a sweep, in the order of the registry."""
    return [name.removeprefix(SWEEP) for name in specs.REGISTRY if name.startswith(SWEEP)]


def best(scores: Array) -> int:
    """Index of the highest score; NaN stands for a candidate that diverged and is the worst; the first of equals.

    >>> best(np.array([np.nan, 0.25, 0.5, 0.5]))
    2
    """
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def late_scores(sweep: Experiment, rows: pd.DataFrame) -> dict[str, Array]:
    """Mean of the stream's score over seeds and the last third of the tasks: by method, one entry a candidate.

    The last third, because the suite is judged on its last tasks, and a candidate may learn fast and then collapse.

    Args:
        sweep: its methods are called <method>.<candidate>, e.g. "adam.0".
        rows: its rows in long form.
    Returns:
        The metric as it is, e.g. a loss in its own unit; NaN where a run of the candidate has diverged.
    Raises:
        UnusableError: a candidate has not one score for each seed and task (names it).
    """
    tasks, metric = max(1, sweep.stream.tasks // 3), sweep.stream.score
    expected = len(sweep.seeds) * tasks
    rows = rows[rows["task"] >= sweep.stream.tasks - tasks]
    values = {name: cells.to_numpy(float) for name, cells in rows[rows["metric"] == metric].groupby("method")["value"]}
    found: dict[str, list[float]] = {}
    for candidate in sweep.methods:
        scores = values.get(candidate.name, np.empty(0))
        if len(scores) != expected:
            have = f"{len(scores)} values of {metric} for {candidate.name}, not {expected}"
            raise store.UnusableError(f"{sweep.name}-{sweep.tier} has {have}; run the experiment again")
        mean = scores.mean() if np.isfinite(scores).all() else np.nan
        found.setdefault(candidate.name.rpartition(".")[0], []).append(mean)
    return {name: np.array(means) for name, means in found.items()}


def best_candidates(sweep: Experiment, rows: pd.DataFrame) -> dict[str, int]:
    """The index of each method's best candidate; a loss counts negatively."""
    sign = -1.0 if sweep.stream.score == "online_loss" else 1.0
    return {name: best(sign * means) for name, means in late_scores(sweep, rows).items()}


def choices(read: Read = store.read_compact) -> dict[str, dict[str, int]]:
    """What `tuned.TUNED` has to be: stream -> method -> candidate, for every stream whose sweep is stored.

    Args:
        read: gives a sweep's rows, or raises FileNotFoundError where there is no table.
    Raises:
        UnusableError: a table is damaged, incomplete, or of other settings; nothing is left out in silence.
    """
    found = {}
    for stream in swept_streams():
        sweep = specs.get(SWEEP + stream, TIER)
        try:
            found[stream] = best_candidates(sweep, read(sweep))
        except FileNotFoundError:
            continue
    return found


def module_text(chosen: Mapping[str, Mapping[str, int]]) -> str:
    """The source of `dyniso/study/specs/tuned.py`, in the project's format.

    >>> print(module_text({"pixels": {"adam": 2}}).partition("TUNED")[2], end="")
    : dict[str, dict[str, int]] = {
        "pixels": {
            "adam": 2,
        },
    }
    """
    lines = []
    for stream, methods in chosen.items():
        lines += [f'    "{stream}": {{', *(f'        "{name}": {index},' for name, index in methods.items()), "    },"]
    body = "\n".join(["{", *lines, "}"]) if lines else "{}"
    return f"{HEAD}\n\nTUNED: dict[str, dict[str, int]] = {body}\n"
