"""Claims that one method does better than another on the last tasks of a stream, paired by seed."""

from __future__ import annotations

from .effects import gained
from .names import (
    ABSTRACT,
    ADAMO,
    HYPERPARAMETER,
    IS_ADAMO,
    LAST,
    LONG_AND_SUITE,
    LOSS,
    MAXMIN_ADAMO,
    PRINTED,
    READERS,
    RL_CODE,
    SUITE,
    TUNED,
)
from .verdict import Claim

RL = "code", RL_CODE
READ = "readers", READERS
QUESTION = "question", ""  # of the field; whether the paper compares with them is not known to us

RIVALS = {  # method of the suite: (statement, kind, source)
    "nap": ("Readers of the paper say that AdamO does better than NaP.", *READ),
    "redo": ("Readers of the paper say that AdamO does better than ReDo.", *READ),
    "l2_init": ("The authors compare AdamO with L2-Init; we ask which is better.", *RL),
    "spectral_penalty": (
        "The authors compare AdamO with a penalty on the largest singular value; we ask which is better.",
        *RL,
    ),
    "adam_reset": (
        "The authors clear Adam's state at every change of game; we ask whether AdamO, which keeps its state here, "
        "does better than Adam so cleared.",
        *RL,
    ),
    **{
        name: (f"We ask whether AdamO does better than {label}.", *QUESTION)
        for name, label in {
            "sgd": "plain SGD",
            "adamw": "AdamW",
            "l2": "L2 regularisation",
            "layernorm": "LayerNorm",
            "crelu": "CReLU",
            "parseval": "Parseval regularisation",
            "continual_backprop": "Continual Backprop",
            "shrink_perturb": "Shrink and Perturb",
            "upgd": "UPGD",
            "fire": "FIRE",
            "muon": "Muon",
            "reset_head": "a new head for every task",
            "reset_all": "a new network for every task",
        }.items()
    },
}

COMPARISONS = (
    Claim(
        "adamo_beats_adam",
        f"If AdamO preserves plasticity, as the paper says, it beats Adam on late tasks; here {IS_ADAMO}.",
        "paper",
        ABSTRACT,
        LONG_AND_SUITE,
        f"{LAST}, AdamO minus Adam",
        "score",
        gained(ADAMO, "adam"),
    ),
    Claim(
        "adamo_printed_beats_adam",
        "If AdamO preserves plasticity, as the paper says, it beats Adam on late tasks; here at the printed 1e-3.",
        "paper",
        f"{ABSTRACT}; {HYPERPARAMETER}",
        LONG_AND_SUITE,
        f"{LAST}, AdamO 1e-3 minus Adam",
        "score",
        gained(PRINTED, "adam"),
    ),
    *(
        Claim(
            f"adamo_beats_{rival}",
            statement,
            kind,
            source,
            SUITE,
            f"{LAST}, adamo minus {rival}, {TUNED}",
            "score",
            gained("adamo", rival),
        )
        for rival, (statement, kind, source) in RIVALS.items()
    ),
    Claim(
        "decoupled_beats_coupled",
        "The paper takes the pull towards isometry out of Adam's gradient; we ask whether that does better than the "
        "same penalty in the loss, both tuned equally.",
        "paper",
        f"{ABSTRACT}; eqs. 19 and 20",
        SUITE,
        f"{LAST}, decoupled minus coupled, {TUNED}",
        "score",
        gained("adamo", "adamo_coupled"),
    ),
    Claim(
        "lazy_pull_costs_nothing",
        "We derive that AdamO may pull at every tenth step alone, ten times as far; we ask whether it does as well.",
        "derived",
        "chapter on the regulariser",
        SUITE,
        f"{LAST}, pull at every tenth step minus pull at every step",
        "score",
        gained(("lazy10_0.1", "adamo_lazy"), ("decoupled_0.1", "adamo")),
        -LOSS,
    ),
    Claim(
        "maxmin_adamo_beats_maxmin",
        "We ask whether the pull towards isometry adds to what MaxMin does alone.",
        "question",
        "",
        LONG_AND_SUITE,
        f"{LAST}, MaxMin with AdamO minus MaxMin with Adam",
        "score",
        gained(MAXMIN_ADAMO, "maxmin"),
    ),
    Claim(
        "muon_with_pull_beats_muon",
        "One author later adds the pull to Muon; we ask whether that does better than Muon alone.",
        "code",
        "a language-model port that another author published",
        ("interactions",),
        f"{LAST}, Muon with the pull at 0.1 minus Muon",
        "score",
        gained("muon_isometry", "muon"),
    ),
)
