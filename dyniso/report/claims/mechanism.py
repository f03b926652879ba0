"""Claims about the mechanism: dormant units, isometry of the weights, and the kernel."""

from __future__ import annotations

from ..results import Arm
from .effects import (
    better_conditioned,
    better_kernel,
    decades_below,
    decades_within,
    fewer,
    gained,
    isometry_orders_kernel,
    kernel_follows_score,
    kernel_orders_score,
    kernel_worsened,
    more,
    reactivated_more,
)
from .names import ABSTRACT, ADAMO, ENDS, HYPERPARAMETER, IMAGES, IS_ADAMO, LAST, PRINTED, READERS, SAME_IMAGES, SUITE
from .verdict import Claim

NEAR = 0.05  # mean (sigma^2 - 1)^2; ours: singular values in about .78 to 1.22
MODERATE = 0.5  # rank correlation; ours
KERNEL = ("predictors",)
DEEP = tuple(name for name in IMAGES if name in SUITE)  # the suite's nets of four hidden layers
FIGURE_B4 = "section 4.3 and figure B.4, dormant units over training"
DEFECT = "mean (sigma^2 - 1)^2 of the hidden weights on the last fifth of the tasks"
RATE = "of the dead units, the fraction that the next task makes alive"
DORMANT = "units with a dormancy score up to .025 on the last fifth of the tasks, Adam minus AdamO, mean over layers"

PARTIAL = (  # read as controlling a part of isometry; not those that aim at no spectrum (UPGD, C-CHAIN, Muon, resets)
    "adamw",
    "l2",
    "l2_init",
    "feature_rank",
    "spectral_penalty",
    "spectral_norm",
    "row_norm",
    "weight_clipping",
    "nap",
    "layernorm",
    "crelu",
    "redo",
    "continual_backprop",
    "shrink_perturb",
)


def fewer_dormant(id: str, statement: str, source: str, arm: Arm) -> Claim:
    """Fewer dormant units than Adam on the last tasks."""
    effect = fewer("dormant_0.025", arm, "adam")
    return Claim(id, statement, "paper", source, IMAGES, DORMANT, "fraction of units", effect)


def nearer(id: str, statement: str, source: str, arm: Arm) -> Claim:
    """Weights nearer to isometry than Adam's on the last tasks."""
    effect = decades_below("isometry_defect", arm, ("adam",))
    return Claim(
        id, statement, "paper", source, IMAGES, f"decades by which AdamO is below Adam: {DEFECT}", "decades", effect
    )


def near(id: str, statement: str, source: str, arm: Arm) -> Claim:
    """Weights within our tolerance of isometry on the last tasks."""
    effect = decades_within("isometry_defect", arm, NEAR)
    return Claim(id, statement, "paper", source, IMAGES, f"decades below {NEAR}: {DEFECT}", "decades", effect)


MECHANISM = (
    fewer_dormant(
        "adamo_fewer_dormant",
        f"The paper says that isometry-preserving methods have fewer dormant ReLUs than Adam; here {IS_ADAMO}.",
        FIGURE_B4,
        ADAMO,
    ),
    fewer_dormant(
        "adamo_printed_fewer_dormant",
        "The paper says that AdamO has fewer dormant ReLUs than Adam, and prints the strength 1e-3.",
        f"{FIGURE_B4}; {HYPERPARAMETER}",
        PRINTED,
    ),
    Claim(
        "adamo_reactivates",
        f"The paper says that the regulariser reactivates dormant ReLUs; here {IS_ADAMO}, against Adam.",
        "paper",
        f"{ABSTRACT}; section 4.3",
        SAME_IMAGES,
        f"{RATE}, AdamO minus Adam; 0 in a seed where one of them has no dead unit",
        "fraction of dead units",
        reactivated_more(ADAMO, "adam"),
    ),
    Claim(
        "coupling_reactivates_more",
        "We derive that at one strength, 1e-3, the penalty in the loss reactivates dead units faster than AdamO.",
        "derived",
        "chapter on dormant units",
        ("random_labels",),
        f"{RATE}, coupled minus decoupled",
        "fraction of dead units",
        reactivated_more("adamo_coupled", PRINTED),
    ),
    Claim(
        "pull_on_dead_rows_helps",
        "If waking dead units is what helps, then the pull on the rows of dead units alone does better than Adam.",
        "question",
        "",
        ("dormancy",),
        f"{LAST}, pull on dead rows at 0.1 minus Adam",
        "score",
        gained("dead_rows_0.1", "adam"),
    ),
    nearer(
        "adamo_nearer_isometry",
        f"The paper says that AdamO brings singular values nearer to one than Adam; here {IS_ADAMO}.",
        ABSTRACT,
        ADAMO,
    ),
    nearer(
        "adamo_printed_nearer_isometry",
        "The paper says that AdamO brings singular values nearer to one than Adam, and prints the strength 1e-3.",
        f"{ABSTRACT}; {HYPERPARAMETER}",
        PRINTED,
    ),
    near(
        "adamo_near_isometric",
        f"The paper calls the weights of AdamO near-isometric; here {IS_ADAMO}, and the tolerance is ours.",
        f"{ABSTRACT}; we know of no tolerance there",
        ADAMO,
    ),
    near(
        "adamo_printed_near_isometric",
        "The paper calls the weights of AdamO near-isometric and prints the strength 1e-3; the tolerance is ours.",
        f"{ABSTRACT}; {HYPERPARAMETER}; we know of no tolerance there",
        PRINTED,
    ),
    Claim(
        "earlier_methods_control_a_part",
        f"The paper says that earlier methods control only a part of isometry; here {IS_ADAMO}, against the most "
        "isometric of them.",
        "paper",
        ABSTRACT,
        DEEP,
        f"decades by which AdamO is below the lowest of up to {len(PARTIAL)} methods: {DEFECT}",
        "decades",
        decades_below("isometry_defect", ADAMO, PARTIAL),
    ),
    Claim(
        "adam_kernel_worsens",
        "Readers say that the paper reads loss of plasticity as a kernel that worsens; here that of Adam from before "
        "the first task to before the last.",
        "readers",
        READERS,
        ENDS,
        "log10 of the condition number of the kernel, before the last task minus before the first",
        "decades",
        kernel_worsened("adam"),
    ),
    Claim(
        "adamo_better_conditioned_kernel",
        "Readers say that the paper takes isometry as a surrogate for a well-conditioned kernel; we ask whether "
        "AdamO's kernel before the last task is better conditioned than Adam's.",
        "readers",
        READERS,
        ENDS,
        "log10 of the condition number of the kernel before the last task, Adam minus AdamO",
        "decades",
        better_conditioned("adamo", "adam"),
    ),
    Claim(
        "adamo_more_plastic_kernel",
        "By our derivation P_100 is the fraction of a random task's loss that the kernel removes in 100 steps; we ask "
        "whether it is larger for AdamO than for Adam before the last task.",
        "derived",
        "chapter on the tangent kernel",
        ENDS,
        "P_100 of the kernel before the last task, AdamO minus Adam",
        "fraction of the loss",
        better_kernel("adamo", "adam"),
    ),
    Claim(
        "adamo_higher_activation_rank",
        "Readers say that the paper looks at effective rank over tasks; we ask whether AdamO's activations have "
        "more of it than Adam's.",
        "readers",
        READERS,
        DEEP,
        "effective rank of the hidden activations on the last fifth of the tasks, AdamO minus Adam, mean over layers",
        "dimensions",
        more("activation_rank", "adamo", "adam"),
    ),
    Claim(
        "kernel_orders_learning",
        "Readers say that the paper ties plasticity to the conditioning of the empirical NTK; we ask whether a better "
        "kernel before a task goes with better learning of it.",
        "readers",
        READERS,
        KERNEL,
        "rank correlation of P_100 before a task with its score, over all tasks and methods of a seed",
        "rank correlation",
        kernel_orders_score,
        threshold=MODERATE,
    ),
    Claim(
        "kernel_follows_loss",
        "Readers say that the paper reads loss of plasticity as a kernel that worsens; we ask whether the two go "
        "together over the tasks of one run.",
        "readers",
        READERS,
        KERNEL,
        "the same rank correlation over the tasks of one run, mean over methods",
        "rank correlation",
        kernel_follows_score,
        threshold=MODERATE,
    ),
    Claim(
        "isometry_orders_kernel",
        "Readers say that the paper takes isometry as a surrogate for a well-conditioned kernel; we ask whether nets "
        "with more isometric weights have the better kernel.",
        "readers",
        READERS,
        KERNEL,
        "rank correlation of minus mean (sigma^2 - 1)^2 with P_100 before a task, over all tasks and methods of a seed",
        "rank correlation",
        isometry_orders_kernel,
        threshold=MODERATE,
    ),
)
