"""Every experiment, declared once: frozen specs, cost tiers as `replace` of the same spec, and the registry.

Stdlib only: command line, notebooks, figures and tables are generated from here without loading torch.
"""

from __future__ import annotations

from .external import EXTERNAL, PUBLISHED, Published
from .model import (
    BASELINES,
    BITS,
    MEASURES,
    NORMS,
    OPTIMIZERS,
    SCALES,
    STREAMS,
    TIERS,
    Experiment,
    Method,
    Net,
    Stream,
    digest,
    nearest,
    only_methods,
    require,
    require_range,
    with_seeds,
)
from .supervised import CANDIDATES, SUPERVISED
from .theory import ADAM, ADAMO, DORMANCY, EARLIER_METHODS, INTERACTIONS, METHODS, PREDICTORS, STRENGTHS, THEORY, tiers

__all__ = [
    "ADAM",
    "ADAMO",
    "BASELINES",
    "BITS",
    "CANDIDATES",
    "DORMANCY",
    "EARLIER_METHODS",
    "EXTERNAL",
    "INTERACTIONS",
    "MEASURES",
    "METHODS",
    "NORMS",
    "OPTIMIZERS",
    "PREDICTORS",
    "PUBLISHED",
    "REGISTRY",
    "SCALES",
    "STREAMS",
    "STRENGTHS",
    "SUPERVISED",
    "THEORY",
    "TIERS",
    "Experiment",
    "Method",
    "Net",
    "Published",
    "Stream",
    "digest",
    "get",
    "nearest",
    "only_methods",
    "require",
    "require_range",
    "tiers",
    "with_seeds",
]

REGISTRY: dict[str, dict[str, Experiment]] = THEORY | SUPERVISED | EXTERNAL


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
