"""dyniso: dynamical isometry and plasticity in continual learning (companion to arXiv 2606.09762).

Names below are imported from their modules on first use, so `import dyniso` is free. The core needs torch and numpy;
`dyniso.study` declares and trains experiments (extra `study`), `dyniso.report` reads what they stored (extra `report`).
"""

from __future__ import annotations

TYPE_CHECKING = False  # what typing's constant means to editors and type checkers, without the import

if TYPE_CHECKING:  # for editors, type checkers and `dyniso.study.sources`; a test holds it equal to the table below
    # ruff: noqa: F401
    from .activations import Abs, CReLU, GroupSort, Householder, MaxMin, activation
    from .dormancy import dead_units, dormancy_score, dormant_fraction, hidden_activations
    from .entk import empirical_ntk
    from .initialisation import initialise
    from .isometry import gram_deviation, gram_deviation_grad, singular_values, spectrum_summary
    from .kernels import ntk_summary, plasticity
    from .model_report import report_model
    from .nets import cnn, mlp, orthogonal
    from .optim import AdamO, adamo_update, isometry_groups
    from .polar import orthogonalise, polar_factor
    from .pull import IsometryDivergenceError, isometry_step
    from .tracing import trace_activations

__version__ = "0.1.0"

_MODULES = {  # name -> module; the same as above, for a name that is asked for
    "activations": ("Abs", "CReLU", "GroupSort", "Householder", "MaxMin", "activation"),
    "dormancy": ("dead_units", "dormancy_score", "dormant_fraction", "hidden_activations"),
    "entk": ("empirical_ntk",),
    "initialisation": ("initialise",),
    "isometry": ("gram_deviation", "gram_deviation_grad", "singular_values", "spectrum_summary"),
    "kernels": ("ntk_summary", "plasticity"),
    "model_report": ("report_model",),
    "nets": ("cnn", "mlp", "orthogonal"),
    "optim": ("AdamO", "adamo_update", "isometry_groups"),
    "polar": ("orthogonalise", "polar_factor"),
    "pull": ("IsometryDivergenceError", "isometry_step"),
    "tracing": ("trace_activations",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> object:
    """A public name or a module on first use; AttributeError with the nearest name otherwise."""
    import importlib

    if name in _HOME:
        globals()[name] = value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        return value
    try:
        return importlib.import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
    from .checks import nearest

    raise AttributeError(f"module 'dyniso' has no attribute {name!r}; {nearest(name, __all__)}")


def __dir__() -> list[str]:
    """Public names and modules, whether loaded or not."""
    import pkgutil

    return [*__all__, *(module.name for module in pkgutil.iter_modules(__path__))]
