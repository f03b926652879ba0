"""Claims about the mechanism: dormant units, isometry of the weights, and the kernel."""

from __future__ import annotations

from .effects import (
    accuracy_gained,
    decades_below,
    decades_within,
    fewer,
    isometry_orders_kernel,
    kernel_follows_accuracy,
    kernel_orders_accuracy,
    reactivated_more,
)
from .learning import ABSTRACT, COMPARED, LAST, PRINTED, READERS, STREAMS
from .verdict import Claim

NEAR = 0.05  # mean (sigma^2 - 1)^2; ours: singular values in about .78 to 1.22
MODERATE = 0.5  # rank correlation; ours
KERNEL = ("predictors",)
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
MECHANISM = (
    Claim(
        "adamo_printed_fewer_dormant",
        "The paper says that AdamO has fewer dormant ReLUs than Adam, and prints the strength 1e-3.",
        "paper",
        f"{FIGURE_B4}; {PRINTED}",
        STREAMS,
        DORMANT,
        "fraction of units",
        fewer("dormant_0.025", "adamo", "adam"),
    ),
    Claim(
        "adamo_strong_fewer_dormant",
        "The paper says that isometry-preserving methods have fewer dormant ReLUs than Adam; here AdamO at 0.1.",
        "paper",
        FIGURE_B4,
        STREAMS,
        DORMANT,
        "fraction of units",
        fewer("dormant_0.025", "adamo_0.1", "adam"),
    ),
    Claim(
        "adamo_reactivates",
        "The paper says that the regulariser reactivates dormant ReLUs; here AdamO at strength 0.1 against Adam.",
        "paper",
        f"{ABSTRACT}; section 4.3",
        STREAMS,
        f"{RATE}, AdamO 0.1 minus Adam",
        "fraction of dead units",
        reactivated_more("adamo_0.1", "adam"),
    ),
    Claim(
        "coupling_reactivates_more",
        "We derive that at one strength, 1e-3, the penalty in the loss reactivates dead units faster than AdamO.",
        "our derivation",
        "chapter on dormant units",
        ("random_labels", "permuted_pixels"),
        f"{RATE}, coupled minus decoupled",
        "fraction of dead units",
        reactivated_more("adamo_coupled", "adamo"),
    ),
    Claim(
        "pull_on_dead_rows_helps",
        "If waking dead units is what helps, then the pull on the rows of dead units alone does better than Adam.",
        "our question",
        "",
        ("dormancy",),
        f"{LAST}, pull on dead rows at 0.1 minus Adam",
        "accuracy",
        accuracy_gained(("dead_rows_0.1",), ("adam",)),
    ),
    Claim(
        "adamo_printed_nearer_isometry",
        "The paper says that AdamO brings singular values nearer to one than Adam, and prints the strength 1e-3.",
        "paper",
        f"{ABSTRACT}; {PRINTED}",
        STREAMS,
        f"decades by which AdamO 1e-3 is below Adam: {DEFECT}",
        "decades",
        decades_below("isometry_defect", "adamo", ("adam",)),
    ),
    Claim(
        "adamo_printed_near_isometric",
        "The paper calls the weights of AdamO near-isometric and prints the strength 1e-3; the tolerance is ours.",
        "paper",
        f"{ABSTRACT}; {PRINTED}; we know of no tolerance there",
        STREAMS,
        f"decades below {NEAR}: {DEFECT}",
        "decades",
        decades_within("isometry_defect", "adamo", NEAR),
    ),
    Claim(
        "adamo_strong_near_isometric",
        "The paper calls the weights of AdamO near-isometric; here at strength 0.1, and the tolerance is ours.",
        "paper",
        f"{ABSTRACT}; we know of no tolerance there",
        STREAMS,
        f"decades below {NEAR}: {DEFECT}",
        "decades",
        decades_within("isometry_defect", "adamo_0.1", NEAR),
    ),
    Claim(
        "kernel_orders_learning",
        "Readers say that the paper ties plasticity to the conditioning of the empirical NTK; we ask whether a better "
        "kernel before a task goes with better learning of it.",
        "third-party reading",
        READERS,
        KERNEL,
        "rank correlation of P_100 before a task with its online accuracy, over all tasks and methods of a seed",
        "rank correlation",
        kernel_orders_accuracy,
        threshold=MODERATE,
    ),
    Claim(
        "kernel_follows_loss",
        "Readers say that the paper reads loss of plasticity as a kernel that worsens; we ask whether the two go "
        "together over the tasks of one run.",
        "third-party reading",
        READERS,
        KERNEL,
        "the same rank correlation over the tasks of one run, mean over methods",
        "rank correlation",
        kernel_follows_accuracy,
        threshold=MODERATE,
    ),
    Claim(
        "isometry_orders_kernel",
        "Readers say that the paper takes isometry as a surrogate for a well-conditioned kernel; we ask whether nets "
        "with more isometric weights have the better kernel.",
        "third-party reading",
        READERS,
        KERNEL,
        "rank correlation of minus mean (sigma^2 - 1)^2 with P_100 before a task, over all tasks and methods of a seed",
        "rank correlation",
        isometry_orders_kernel,
        threshold=MODERATE,
    ),
    Claim(
        "earlier_methods_control_a_part",
        "The paper says that earlier methods control only a part of isometry; here AdamO at strength 0.1 against the "
        "most isometric of them.",
        "paper",
        ABSTRACT,
        COMPARED,
        f"decades by which AdamO 0.1 is below the lowest of {len(PARTIAL)} methods: {DEFECT}",
        "decades",
        decades_below("isometry_defect", "adamo_0.1", PARTIAL),
    ),
)
