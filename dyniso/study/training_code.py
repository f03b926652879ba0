"""Which code decides what a run computes, and its digest: a run that other code made is not reused."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from . import declared, sources
from .sources import PACKAGE
from .specs import Comparison, GameExperiment, Method

TRAINERS = {False: "dyniso.study.train", True: "dyniso.study.rl.train"}  # of streams, of games
NOT_TRAINING = (  # reached by what trains, and without a say in its numbers: settings have a digest of their own
    "dyniso",
    "dyniso.study.specs",
    "dyniso.study.specs.",
    "dyniso.study.store",
    "dyniso.study.training_code",
    "dyniso.study.checkpoint",
    "dyniso.study.files",
    "dyniso.study.sources",
    "dyniso.study.declared",
    "dyniso.study.provenance",
    "dyniso.study.reads",
    "dyniso.checks",
)
PASSED_THROUGH = {"dyniso.baselines"}  # says which file holds which method; what a run needs of it is found by name
KERNELS = ("dyniso.study.instruments.single", "dyniso.entk", "dyniso.kernels")  # only where an experiment measures them


def code_digest(experiment: Comparison, method: Method) -> str:
    """Digest of the code that decides what a run computes; a run made by other code is not reused.

    It covers what the engine of such experiments reaches. A method of `dyniso.baselines` enters with its own classes,
    the others do not; what measures kernels enters where kernels are measured.
    """
    games = isinstance(experiment, GameExperiment)
    measured = games or bool(getattr(experiment, "measures", ()))
    return digest_of_code(TRAINERS[games], method.baseline, measured)


@functools.cache
def digest_of_code(trainer: str, baseline: str | None, measured: bool, folder: Path = PACKAGE) -> str:
    """Digest of what a trainer reaches, with the classes of one method, and with or without what measures kernels."""
    own = dict(declared.method_code(baseline, folder))
    apart = declared.method_modules(folder) - own.keys()
    without = {*NOT_TRAINING, *apart, *(() if measured else KERNELS)}
    shared = sources.reach([trainer, *own], without, folder) - own.keys() - PASSED_THROUGH
    parts = [sources.digest_of(shared, folder), *(text for _, text in sorted(own.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
