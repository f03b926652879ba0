"""One colour and one dash for each arm, in every figure of the book.

An arm's colour says what it is about, its dash which of these it is: AdamO is always orange, at the printed strength
dotted. All colours have a contrast of at least 3 against white and against the book's dark ground. Arms of one
experiment differ in dash wherever a person who sees no red or no green could not tell their colours apart.
"""

from __future__ import annotations

from typing import Any

from ...checks import require

COLOURS = {
    "blue": "#0072b2",  # Adam
    "orange": "#d55e00",  # AdamO
    "sky": "#3b9bd9",  # the same penalty in the loss
    "green": "#009e73",  # activations that keep the norm, with Adam
    "violet": "#8a63d2",  # the same with AdamO
    "pink": "#cc79a7",  # norms of activations and weights
    "brown": "#8c5a44",  # other penalties, and parts of AdamO
    "amber": "#a6761d",  # units and nets that are drawn again
    "crimson": "#d1365a",  # Muon and FIRE
    "grey": "#808080",  # decay towards zero or the start, SGD
}
SOLID, DASHED, MIXED, DOTTED, DOTS, LONG = "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))
ARMS: dict[str, dict[str, Any]] = {  # colour -> arm -> dash
    "blue": {
        "adam": DASHED,
        "adamw": SOLID,
        "adam_reset": MIXED,
        "adam_kept": SOLID,
        "adam_no_bias": MIXED,
        "adam_clip": MIXED,
        "adam_cosine": DOTTED,
        "adam_0.0001": SOLID,
        "adam_0.001": DASHED,
        "adam_0.003": SOLID,
        "adam_0.01": DOTTED,
    },
    "orange": {
        "adamo": SOLID,
        "adamo_0.1": SOLID,
        "adamo_printed": DOTTED,
        "adamo_lazy": DASHED,
        "adamo_no_bias": DASHED,
        "decoupled_1": LONG,
        "decoupled_0.1": SOLID,
        "decoupled_0.01": DASHED,
        "decoupled_0.001": DOTTED,
        "lazy10_0.1": MIXED,
        "lazy50_0.1": DOTS,
        "adamo_0.1_l2": DASHED,
        "adamo_0.1_adamw": MIXED,
        "adamo_0.1_clip": DOTTED,
        "adamo_0.1_cosine": LONG,
    },
    "sky": {
        "parseval": SOLID,
        "adamo_coupled": LONG,
        "coupled_0.01": SOLID,
        "coupled_0.001": LONG,
        "coupled_0.0001": MIXED,
        "coupled_1e-05": DOTTED,
    },
    "green": {"crelu": SOLID, "maxmin": MIXED, "maxmin_no_bias": DOTTED, "maxmin_hard": DASHED, "isometric": LONG},
    "violet": {"maxmin_adamo": SOLID, "maxmin_adamo_0.1": SOLID, "maxmin_adamo_no_bias": DASHED},
    "pink": {
        "layernorm": MIXED,
        "layernorm_0.0001": MIXED,
        "nap": DASHED,
        "row_norm": DOTTED,
        "weight_clipping": SOLID,
    },
    "brown": {
        "spectral": SOLID,
        "spectral_penalty": SOLID,
        "spectral_norm": MIXED,
        "feature_rank": DASHED,
        "churn": DOTTED,
        "after_0.1": SOLID,
        "live_rows_0.1": DASHED,
        "dead_rows_0.1": DOTTED,
    },
    "amber": {
        "redo": DOTS,
        "continual_backprop": DASHED,
        "shrink_perturb": DOTTED,
        "reset_head": MIXED,
        "reset_all": LONG,
        "upgd": SOLID,
    },
    "crimson": {"muon": SOLID, "muon_isometry": DASHED, "fire": DOTTED, "fire_one": MIXED},
    "grey": {
        "l2": DOTTED,
        "l2_init": LONG,
        "l2_init_0.001": DASHED,
        "l2_init_0.01": LONG,
        "l2_init_0.01_at_0.0001": MIXED,
        "sgd": MIXED,
        "sgd_0.01": SOLID,
        "sgd_0.003": DASHED,
        "sgd_0.001": DOTTED,
    },
}
STYLES = {arm: (COLOURS[colour], dash) for colour, arms in ARMS.items() for arm, dash in arms.items()}


def style_of(arm: str) -> dict[str, Any]:
    """Keywords of `Axes.plot` for an arm; a candidate of a sweep, "adamo.3", is drawn like its method.

    Raises:
        ValueError: an arm without a style, with the nearest name.

    >>> style_of("adamo_printed")
    {'color': '#d55e00', 'linestyle': ':'}
    """
    name = arm if arm in STYLES else arm.rpartition(".")[0]
    require("arm", name if name in STYLES else arm, STYLES)
    colour, dash = STYLES[name]
    return {"color": colour, "linestyle": dash}
