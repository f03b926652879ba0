"""Every experiment, declared once: frozen specs, cost tiers as `replace` of the same spec, and the registry.

Stdlib only: command line, notebooks, figures and tables are generated from here without loading torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...checks import require
from .causal import CAUSAL
from .external import EXTERNAL, PUBLISHED, Published
from .intervention import Intervention, Trunk
from .model import (
    ACTIVATIONS,
    BASELINES,
    BITS,
    MEASURES,
    NORMS,
    OPTIMIZERS,
    SCALES,
    STREAM_KINDS,
    TIERS,
    Comparison,
    Experiment,
    Method,
    Net,
    Stream,
    digest,
    only_methods,
    with_seeds,
)
from .own import OWN
from .reinforcement import REINFORCEMENT, GameExperiment
from .supervised import CANDIDATES, SUPERVISED
from .theory import ADAM, ADAMO, DORMANCY, EARLIER_METHODS, INTERACTIONS, METHODS, PREDICTORS, STRENGTHS, THEORY, tiers

__all__ = [
    "ACTIVATIONS",
    "ADAM",
    "ADAMO",
    "BASELINES",
    "BITS",
    "CANDIDATES",
    "CAUSAL",
    "DORMANCY",
    "EARLIER_METHODS",
    "EXTERNAL",
    "INTERACTIONS",
    "MEASURES",
    "METHODS",
    "NORMS",
    "OPTIMIZERS",
    "OWN",
    "PREDICTORS",
    "PUBLISHED",
    "REGISTRY",
    "REINFORCEMENT",
    "SCALES",
    "STREAM_KINDS",
    "STRENGTHS",
    "SUPERVISED",
    "THEORY",
    "TIERS",
    "Comparison",
    "Experiment",
    "GameExperiment",
    "Intervention",
    "Method",
    "Net",
    "Published",
    "Stream",
    "Trunk",
    "digest",
    "everything",
    "find",
    "get",
    "only_methods",
    "tiers",
    "with_seeds",
]

REGISTRY: dict[str, dict[str, Experiment]] = THEORY | CAUSAL | SUPERVISED | EXTERNAL


def get(name: str, tier: str = "smoke") -> Experiment:
    """The registered experiment at a tier.

    Raises:
        ValueError: unknown name or tier; names the value, what is allowed, and the nearest name.

    >>> get("random_labels", "paper").net.width
    512
    """
    require("experiment", name, REGISTRY)
    require("tier", tier, TIERS)
    return REGISTRY[name][tier]


def everything() -> dict[str, Mapping[str, Comparison]]:
    """All experiments, those on games too."""
    return {**REGISTRY, **REINFORCEMENT}


def find(name: str, tier: str = "smoke") -> Comparison:
    """As `get`, and also the experiments on games.

    >>> find("minatar", "paper").net.width
    64
    """
    require("experiment", name, everything())
    require("tier", tier, TIERS)
    return everything()[name][tier]
