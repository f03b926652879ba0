"""Experiments, arms, sources and phrases that several claims share."""

from __future__ import annotations

from ...study.specs import REGISTRY, supervised

LOSS = 0.02  # of the score; ours: a smaller change from the first to the last tasks is no loss

SUITE = tuple(supervised.SUITE)  # small nets, every method tuned alike; not all of these streams are the paper's
LONG = ("random_labels", "permuted_pixels")  # wider nets, more steps, nothing tuned
LONG_AND_SUITE = (*LONG, *SUITE)  # every stream with Adam and AdamO at both strengths
IMAGES = tuple(name for name in LONG_AND_SUITE if not REGISTRY[name]["check"].stream.is_regression)
CNN = (supervised.CNN["check"].name,)
GRADUAL = tuple(supervised.GRADUAL)
ENDS = tuple(  # with the kernel before the first and the last task
    name for name in supervised.SUPERVISED if "kernel_ends" in REGISTRY[name]["check"].measures
)
SAME_IMAGES = tuple(  # where units are dead or alive on the same inputs in every task
    name for name in LONG_AND_SUITE if REGISTRY[name]["check"].stream.kind in ("random_labels", "shuffled_classes")
)

ADAMO = ("adamo_0.1", "adamo")  # fixed where nothing is tuned, tuned in the suite
PRINTED = "adamo_printed"
MAXMIN_ADAMO = ("maxmin_adamo_0.1", "maxmin_adamo")

ABSTRACT = "abstract (arXiv 2606.09762)"
HYPERPARAMETER = "appendix, hyper-parameters: strength 1e-3"
READERS = "summaries by readers of v1"
RL_CODE = "reinforcement-learning scripts that one author published"

LAST = "score on the last fifth of the tasks"
KEPT = "score, last minus first fifth of the tasks"
TUNED = f"each at the best of {supervised.BUDGET} candidates of a sweep on other seeds"
IS_ADAMO = "AdamO tuned in the suite and at 0.1 elsewhere"
