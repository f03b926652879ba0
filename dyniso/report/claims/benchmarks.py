"""Which experiments are on the paper's own benchmarks, and which are ours beside them.

A benchmark is a kind of stream on a data set, or a suite of games; ours are smaller than the paper's in every tier that
is stored. The paper's streams are random labels and permuted pixels of CIFAR-10, permuted MNIST and renamed classes of
CIFAR-100, as a reader of its first version lists them; its games are MinAtar (appendix B.5) and Octax (B.6).
"""

from __future__ import annotations

from ...study.specs import Comparison, Experiment, GameExperiment

PAPER_STREAMS = (  # (kind, data set) of a stream; whole changes from task to task, as far as we know
    ("random_labels", "cifar10"),
    ("permuted_pixels", "mnist"),
    ("permuted_pixels", "mnist-small"),  # a subset of MNIST
    ("permuted_pixels", "cifar10"),
    ("shuffled_classes", "cifar100"),
)
PAPER_SUITES = ("minatar", "octax")


def is_of_the_paper(experiment: Comparison) -> bool:
    """Whether an experiment is on a benchmark of the paper, at whatever scale and with whatever net."""
    if isinstance(experiment, Experiment):
        stream = experiment.stream
        return (stream.kind, stream.dataset) in PAPER_STREAMS and not stream.transition
    return isinstance(experiment, GameExperiment) and experiment.games.suite in PAPER_SUITES
