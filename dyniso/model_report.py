"""One call that tells what a user would look at first in a model: `report_model`."""

from __future__ import annotations

import copy
import html
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .checks import require_range, require_shape, require_type
from .dormancy import dead_units, dormant_fraction
from .entk import empirical_ntk
from .isometry import effective_rank, singular_values
from .kernels import ntk_summary, plasticity
from .matrices import Matrix, matrices
from .passes import capture
from .spectra import scale_free_defect
from .steady import call, require_steady
from .tracing import ActivationSite, Trace, eager, readable, trace

T = TypeVar("T")
TAU = 0.025  # dormancy threshold of Sokar et al. 2023
FIRES_OR_NOT = ("ReLU", "ReLU6", "relu", "relu6")  # where a unit that is never above zero gets no gradient
KERNEL_ROWS, JACOBIAN_ENTRIES = 1024, 2**26  # at most: eigenvalues within a second, half a GiB in float64
FAILURES = (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError, IndexError, KeyError)


class LayerReport(NamedTuple):
    """One matrix and the activation that its layer feeds; NaN where a number does not exist, `note` says why.

    Attributes:
        name: of the weight; "in_proj_weight[q]" is a part of it. For an activation that no one layer feeds, its own.
        shape: (out, in), or (groups, out, in); kernels as matrices (out, in k k). () for an activation alone.
        sigma_min, sigma_mean, sigma_max: singular values.
        gram_deviation: sum of (sigma^2 - 1)^2, what AdamO pulls down.
        isometry_defect: its mean over the singular values.
        scale_free_defect: that mean once mean(sigma^2) is 1, mean (sigma^2 / mean(sigma^2) - 1)^2; 0 for every multiple
            of an isometry, m - 1 at most.
        activation: name and kind of the activation that the layer feeds, "" if none.
        dormant: fraction of its units with score at most 0.025 on the batch. dead: fraction that never fires (ReLU).
        feature_rank: effective rank of its outputs (samples, units).
        backward_condition: median over samples of the condition number of B B', B = d outputs / d layer output.
        note: what could not be read of this layer, and why.
    """

    name: str
    shape: tuple[int, ...] = ()
    sigma_min: float = nan
    sigma_mean: float = nan
    sigma_max: float = nan
    gram_deviation: float = nan
    isometry_defect: float = nan
    scale_free_defect: float = nan
    activation: str = ""
    dormant: float = nan
    dead: float = nan
    feature_rank: float = nan
    backward_condition: float = nan
    note: str = ""


@dataclass(frozen=True, repr=False)
class ModelReport:
    """What `report_model` found; prints as a table.

    Attributes:
        model: class of the model. samples, outputs: of the batch, and C (0 if unknown).
        layers: one row a matrix, in order of the calls.
        kernel_samples: how many samples of the batch the kernel is of.
        kernel_condition, kernel_mean_over_max, kernel_effective_rank, kernel_trace: as in `dyniso.kernels.NTKSummary`,
            of the whole kernel in float64, the constant output with it.
        plasticity_100: P_100, the expected fraction of the squared loss that 100 steps of 1/lambda_max remove.
        not_read: what could not be read of the model, and why.
    """

    model: str
    samples: int
    outputs: int
    layers: tuple[LayerReport, ...]
    kernel_samples: int = 0
    kernel_condition: float = nan
    kernel_mean_over_max: float = nan
    kernel_effective_rank: float = nan
    kernel_trace: float = nan
    plasticity_100: float = nan
    not_read: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """The layers as plain dictionaries, e.g. for a data frame."""
        return [layer._asdict() for layer in self.layers]

    def __repr__(self) -> str:
        table = [list(COLUMNS), *_cells(self)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
        return "\n".join([_title(self), "", *lines, "", *_below(self)])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in _cells(self)]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        below = "".join(f"<p>{html.escape(line)}</p>" for line in _below(self))
        return f"<p>{html.escape(_title(self))}</p><table><tr>{head}</tr>{body}</table>{below}"


def report_model(model: nn.Module, batch: Tensor, kernel_samples: int = 32) -> ModelReport:
    """Weights, activations, backward maps and kernel of a model on one batch.

    Args:
        model: any module; call its eval() first, as dropout leaves no kernel. Left untouched.
        batch: inputs (n, ...), as the model is called with.
        kernel_samples: the kernel and the backward maps are of at most so many of the batch; of fewer where outputs are
            many (1,024 rows of the kernel at most). Memory: float64, (samples) (outputs) (units of all layers).
    Returns:
        ModelReport: fields, `rows()`, and a table when printed or shown in a notebook. What could not be read is named
        in a layer's `note` or in `not_read`, with the reason.
    Raises:
        TypeError: model is no module, or batch no tensor.
        ValueError: no samples, kernel_samples < 1, a scripted or lazy model.

    >>> report = report_model(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(4, 2))
    >>> [(row["name"], row["shape"], row["activation"]) for row in report.rows()]
    [('0.weight', (3, 2), '1 (ReLU)'), ('2.weight', (2, 3), '')]
    """
    model = readable(model)
    require_type("batch", batch, Tensor, "a tensor of inputs (n, ...), without labels: report_model(model, batch)")
    require_shape(batch.ndim and len(batch), "batch", batch, "(n, ...) with at least 1 sample")
    require_range("kernel_samples", kernel_samples, 1)
    seen = trace(model, batch)
    reading = _Reading(model, batch, kernel_samples)
    found, skipped = matrices(model, seen.layers)
    conditions = reading.backward_conditions(seen)
    rows = [_layer_row(matrix, seen, conditions) for matrix in found]
    fed = {matrix.layer for matrix in found if matrix.is_whole}
    rows += [LayerReport(s.name, **({"note": s.why} | _activation_fields(s))) for s in seen.sites if s.layer not in fed]
    kernel = reading.kernel()
    return ModelReport(
        type(model).__name__,
        len(batch),
        reading.outputs,
        tuple(rows),
        **kernel,
        not_read=(*skipped, *reading.reasons),
    )


class _Reading:
    """A copy in float64, and what it gives; what fails is a reason."""

    def __init__(self, model: nn.Module, batch: Tensor, kernel_samples: int) -> None:
        self.reasons: list[str] = []
        self.x = batch.detach().double() if batch.is_floating_point() else batch.detach()
        self.model = self.tried("a copy of the model in float64", lambda: copy.deepcopy(model).double())
        self.outputs = self.tried("outputs", self.count_outputs) or 0
        self.samples = min(kernel_samples, len(batch), max(KERNEL_ROWS // self.outputs, 1)) if self.outputs else 0

    def tried(self, what: str, function: Callable[[], T]) -> T | None:
        try:
            return function()
        except FAILURES as error:
            self.reasons.append(f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            return None

    def count_outputs(self) -> int:
        assert self.model is not None
        with torch.random.fork_rng([self.x.device] if self.x.is_cuda else []), torch.no_grad(), eager():
            return call(self.model, self.x).shape[1]

    def backward_conditions(self, seen: Trace) -> dict[str, float | str]:
        """Median over samples of the condition number of B B' for every layer, or why there is none."""
        if self.model is None or not self.outputs:
            return {}
        return self.tried("backward maps", lambda: self.conditions(seen)) or {}

    @torch.inference_mode(False)
    @torch.enable_grad()
    def conditions(self, seen: Trace) -> dict[str, float | str]:
        assert self.model is not None
        found: dict[str, float | str] = dict.fromkeys(seen.repeated, "no one backward map: it is called more than once")
        modules: dict[str, nn.Module] = {}
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and name not in found:
                modules[name] = module
        with eager():
            require_steady(self.model, self.x[: self.samples])
            maps = capture(self.model, self.x[: self.samples], modules, None)
        found |= {name: float(_squared_condition(layer.B.flatten(2)).median()) for name, layer in maps.items()}
        missing = "no backward map: it is read of Linear and Conv2d that are called as such"
        return dict.fromkeys(seen.layers, missing) | dict.fromkeys(modules, missing) | found

    def kernel(self) -> dict[str, Any]:
        """The fields of the report that come from the kernel."""
        if self.model is None or not self.outputs:
            return {}
        theta = self.tried("kernel", self.theta)
        if theta is None:
            return {}
        summary = ntk_summary(theta)
        return {
            "kernel_samples": self.samples,
            "kernel_condition": float(summary.condition_number),
            "kernel_mean_over_max": float(summary.mean_over_max),
            "kernel_effective_rank": float(summary.effective_rank),
            "kernel_trace": float(summary.trace),
            "plasticity_100": float(plasticity(theta, 100)),
        }

    def theta(self) -> Tensor:
        assert self.model is not None
        x = self.x[: self.samples]
        try:
            return empirical_ntk(self.model, x)
        except ValueError as error:
            entries = self.samples * self.outputs * sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            if "jacobian" not in str(error) or entries > JACOBIAN_ENTRIES:
                raise
            return empirical_ntk(self.model, x, method="jacobian")


def _squared_condition(B: Tensor) -> Tensor:
    """Condition number of B B' for maps (n, C, units); infinite where a direction is lost, as with C > units."""
    sigma = torch.linalg.svdvals(B.double())
    high, low = sigma[..., 0], sigma[..., -1]
    rounding = max(B.shape[-2:]) * torch.finfo(sigma.dtype).eps * high
    is_lost = (low <= rounding) | (B.shape[-1] < B.shape[-2])
    return torch.where(is_lost, torch.inf, high / low).square()


def _layer_row(matrix: Matrix, seen: Trace, conditions: dict[str, float | str]) -> LayerReport:
    notes: list[str] = [] if matrix.is_called else ["not called in this pass"]
    numbers: dict[str, Any] = {}
    try:
        numbers = _spectrum_fields(matrix.weight)
    except ValueError as error:
        notes.append(str(error))
    fed = [site for site in seen.sites if site.layer == matrix.layer and matrix.is_whole]
    if fed:
        numbers |= _activation_fields(fed[0])
        notes += [numbers.pop("note")] if "note" in numbers else []
        notes += [site.why for site in fed if site.why]
    condition = (
        conditions.get(matrix.layer, nan) if matrix.is_whole else "no backward map: it is a part of a layer's map"
    )
    if isinstance(condition, str):
        notes += [condition] if conditions and matrix.is_called else []
        condition = nan
    return LayerReport(
        matrix.name,
        tuple(matrix.weight.shape),
        **numbers,
        backward_condition=condition,
        note="; ".join(dict.fromkeys(notes)),
    )


def _spectrum_fields(W: Tensor) -> dict[str, float]:
    sigma = singular_values(W).double().flatten()
    deviation = (sigma.square() - 1).square()
    return {
        "sigma_min": float(sigma.min()),
        "sigma_mean": float(sigma.mean()),
        "sigma_max": float(sigma.max()),
        "gram_deviation": float(deviation.sum()),
        "isometry_defect": float(deviation.mean()),
        "scale_free_defect": float(scale_free_defect(sigma)),
    }


def _activation_fields(site: ActivationSite) -> dict[str, Any]:
    h = site.by_unit().float() if site.output.dtype != torch.float64 else site.by_unit()
    found: dict[str, Any] = {"activation": f"{site.name} ({site.kind})"}
    if not h.numel() or not bool(torch.isfinite(h).all()):
        found["note"] = "its activation is empty or not finite"
    else:
        found["dormant"] = float(dormant_fraction(h, TAU))
        found["feature_rank"] = float(effective_rank(singular_values(h)))
        if site.kind in FIRES_OR_NOT:
            found["dead"] = float(dead_units(h).double().mean())
    return found


# ---------------------------------------------------------------------------------------------------- as a table

COLUMNS = {  # heading -> cell of a row
    "weight": lambda row: row.name,
    "shape": lambda row: " x ".join(map(str, row.shape)),
    "σ min": lambda row: _short(row.sigma_min),
    "σ mean": lambda row: _short(row.sigma_mean),
    "σ max": lambda row: _short(row.sigma_max),
    "defect": lambda row: _short(row.isometry_defect),
    "scale-free": lambda row: _short(row.scale_free_defect),
    "activation": lambda row: row.activation,
    "dormant": lambda row: _short(row.dormant),
    "dead": lambda row: _short(row.dead),
    "rank": lambda row: _short(row.feature_rank),
    "κ(BB')": lambda row: _short(row.backward_condition),
}


def _short(value: float) -> str:
    return "" if value != value else f"{value:.3g}"


def _cells(report: ModelReport) -> list[list[str]]:
    return [[cell(row) for cell in COLUMNS.values()] for row in report.layers]


def _title(report: ModelReport) -> str:
    return f"{report.model} on {report.samples} samples, {report.outputs or 'unknown'} outputs"


def _below(report: ModelReport) -> list[str]:
    """The kernel's line, and what could not be read."""
    lines = []
    if report.kernel_samples:
        lines.append(
            f"kernel on {report.kernel_samples} samples: condition {_short(report.kernel_condition)}, "
            f"mean/max eigenvalue {_short(report.kernel_mean_over_max)}, "
            f"effective rank {_short(report.kernel_effective_rank)}, P_100 {_short(report.plasticity_100)}"
        )
    lines += [f"not read: {reason}" for reason in report.not_read]
    named: dict[str, list[str]] = {}  # note -> rows
    for row in report.layers:
        named.setdefault(row.note, []).append(row.name)
    return lines + [f"{', '.join(names)}: {note}" for note, names in named.items() if note]
