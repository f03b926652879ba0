"""The candidates of every method, what the sweeps found, and what the suite takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...stats import Array
from ...study import specs, store
from ...study.specs import Method
from .. import tuning
from ..notebook import table
from .methods import label_of, own_settings, setting_name
from .text import folded, plain, reason, shown, words


def varied(candidates: Sequence[Method]) -> list[str]:
    """The settings in which the candidates of a method differ, the learning rate first."""
    every = [own_settings(m) for m in candidates]
    keys = dict.fromkeys(key for one in every for key in one)
    return [key for key in keys if len({one.get(key) for one in every}) > 1]


def candidate_text(candidate: Method, keys: Iterable[str]) -> str:
    """Some settings of a candidate, e.g. "0.001, 0.1"."""
    return ", ".join(shown(own_settings(candidate).get(key)) for key in keys)


def candidate_rows(candidates: Mapping[str, Sequence[Method]]) -> list[dict[str, str]]:
    """One row a method: what varies, and its value in each candidate."""
    rows = []
    for arms in candidates.values():
        keys = varied(arms)
        texts = [f"{index}: {candidate_text(arm, keys)}" for index, arm in enumerate(arms)]
        names = ", ".join(setting_name(key) for key in keys)
        rows.append({"method": plain(label_of(arms)), "varies": names, "candidates": " · ".join(texts)})
    return rows


class Sweep(NamedTuple):
    """A sweep's stored result beside what the suite takes."""

    stream: str
    missing: str  # why there is no result; '' if there is one
    scores: dict[str, Array]  # method -> late score of each candidate, NaN where one diverged
    best: dict[str, int]
    taken: dict[str, int]  # what `tuned.TUNED` says, 0 where it says nothing

    @property
    def wrong(self) -> list[str]:
        """The methods that do not take their best candidate."""
        return [name for name, index in self.best.items() if self.taken[name] != index]


def sweep_of(stream: str, read: tuning.Read = store.read_compact, taken: Mapping[str, int] | None = None) -> Sweep:
    """The sweep of a stream, whether it is stored or not.

    Args:
        read: gives an experiment's rows, or raises FileNotFoundError or UnusableError.
        taken: method -> candidate; `tuned.TUNED`'s entry by default.
    """
    from ...study.specs.tuned import TUNED

    taken = TUNED.get(stream, {}) if taken is None else taken
    sweep = specs.get(tuning.SWEEP + stream, tuning.TIER)
    every = {name: taken.get(name, 0) for name in specs.CANDIDATES}
    try:
        rows = read(sweep)
        return Sweep(stream, "", tuning.late_scores(sweep, rows), tuning.best_candidates(sweep, rows), every)
    except (FileNotFoundError, store.UnusableError) as error:
        return Sweep(stream, reason(error), {}, {}, every)


def sweep_block(sweep: Sweep) -> str:
    """A sweep folded: each method's scores, the best in bold, and the candidate that it takes."""
    experiment = specs.get(tuning.SWEEP + sweep.stream, tuning.TIER)
    metric = words(experiment.stream.score)
    seeds = f"seeds {shown(experiment.seeds)}"
    rows = []
    for name, means in sweep.scores.items():
        arms, index = specs.CANDIDATES[name], sweep.taken[name]
        texts = ["diverged" if np.isnan(mean) else f"{mean:.3f}" for mean in means]
        texts[sweep.best[name]] = f"**{texts[sweep.best[name]]}**"
        takes = f"{index}: {candidate_text(arms[index], varied(arms))}"
        rows.append({"method": plain(label_of(arms)), "candidates 0 to 3": " · ".join(texts), "takes": takes})
    size = f"Mean {metric} over {experiment.stream.tasks} tasks and {seeds}"
    return folded(plain(experiment.title), f"{size}; bold: the best.", table(rows))


def at_the_edge(sweep: Sweep) -> tuple[int, int]:
    """Of the methods whose candidates are learning rates alone: how many take the largest or smallest; how many."""
    arms = {n: specs.CANDIDATES[n] for n in sweep.best if varied(specs.CANDIDATES[n]) == ["lr"]}
    chosen = [(sorted(m.lr for m in one), one[sweep.best[n]].lr) for n, one in arms.items()]
    return sum(rate in (rates[0], rates[-1]) for rates, rate in chosen), len(arms)
