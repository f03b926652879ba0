"""Claims about sequences of games: what agents lose and keep, whom AdamO beats, and what of its arm does it.

A score is a return over that of a fresh agent in the same game (`dyniso.report.results`). Thresholds:

    LOSS  a change, or a distance from a fresh agent, below a tenth of that agent's return is no loss. Five times that
          of streams: a return has no upper end and rests on a few hundred episodes a visit, an accuracy on thousands
          of samples.
    0     for comparisons, as on streams
    NEAR  for isometry, as on streams. Hidden weights start at gain sqrt 2, a defect of 1, so that what Adam does is
          measured from there.

They were set before any verdict was computed, and are not to be tuned to one.
"""

from __future__ import annotations

from ...study.specs.reinforcement import SINGLE
from .effects import (
    decades_above_start,
    decades_below,
    decades_within,
    difference,
    fewer,
    gained,
    gained_on_average,
    kept,
    lost,
)
from .mechanism import NEAR
from .names import ABSTRACT, RL_CODE
from .verdict import Claim

MINATAR = ("minatar",)
LOSS = 0.1  # of the score; ours
LAST = "score in the last fifth of the cycles"
DEFECT = "mean (sigma^2 - 1)^2 of the hidden weights in the last fifth of the cycles"
OURS = "maxmin_adamo_no_bias"  # the main arm of the authors' scripts
RELU = "adamo_no_bias"
CODE, QUESTION = ("code", RL_CODE), ("question", "")
ARMS = (("maxmin_adamo", OURS, "MaxMin"), ("adamo", RELU, "ReLU"))  # name in ids, arm, activation
FRESH = "a fresh agent for every visit"


def of_suite(suite: str, appendix: str) -> tuple[Claim, ...]:
    """What is asked of both suites; the appendix is that of the paper."""
    experiments = (suite,)
    return (
        Claim(
            f"{suite}_adam_loses_plasticity",
            f"The paper says that training on a stream of tasks costs a network its ability to learn; here {suite}.",
            "paper",
            f"introduction; {appendix}",
            experiments,
            "score, first minus last fifth of the cycles",
            "score",
            lost("adam"),
            LOSS,
        ),
        Claim(
            f"{suite}_adam_below_fresh",
            f"We ask whether PPO with Adam ends below {FRESH} of {suite}.",
            *QUESTION,
            experiments,
            f"{LAST}, fresh agent minus Adam",
            "score",
            gained(SINGLE, "adam"),
            LOSS,
        ),
        *(
            Claim(
                f"{suite}_{name}_as_fresh",
                f"We ask whether AdamO with {activation} ends no lower than {FRESH} of {suite}.",
                *QUESTION,
                experiments,
                f"{LAST}, AdamO minus fresh agent",
                "score",
                gained(arm, SINGLE),
                -LOSS,
                control=gained("adam", SINGLE),
            )
            for name, arm, activation in ARMS
        ),
        *(
            Claim(
                f"{suite}_{name}_keeps_plasticity",
                f"The paper says that AdamO preserves plasticity; here PPO with {activation} and no biases on {suite}.",
                "paper",
                f"title and {ABSTRACT}; {appendix}",
                experiments,
                "score, last minus first fifth of the cycles",
                "score",
                kept(arm),
                -LOSS,
                control=kept("adam"),
            )
            for name, arm, activation in ARMS
        ),
        *(
            Claim(
                f"{suite}_{name}_beats_adam",
                f"If AdamO preserves plasticity, as the paper says, it beats Adam; here with {activation} on {suite}.",
                "paper",
                f"{ABSTRACT}; {appendix}",
                experiments,
                f"{LAST}, AdamO minus Adam",
                "score",
                gained(arm, "adam"),
            )
            for name, arm, activation in ARMS
        ),
        Claim(
            f"{suite}_adamo_stays_isometric",
            f"The authors' scripts log Gram deviations; we ask whether AdamO with MaxMin stays isometric on {suite}.",
            *CODE,
            experiments,
            f"decades below {NEAR:g}: {DEFECT}",
            "decades",
            decades_within("isometry_defect", OURS, NEAR),
        ),
        Claim(
            f"{suite}_adamo_nearer_isometry",
            f"The paper says that AdamO brings singular values nearer to one than Adam; here with MaxMin on {suite}.",
            "paper",
            ABSTRACT,
            experiments,
            f"decades by which AdamO is below Adam: {DEFECT}",
            "decades",
            decades_below("isometry_defect", OURS, ("adam",)),
        ),
        Claim(
            f"{suite}_adam_leaves_isometry",
            f"The authors' scripts log the Gram deviation; we ask whether Adam's grows from start to end on {suite}.",
            *CODE,
            experiments,
            f"decades above the untrained nets: {DEFECT}",
            "decades",
            decades_above_start("isometry_defect", "adam"),
        ),
        Claim(
            f"{suite}_penalty_adds_to_maxmin",
            f"We ask whether the penalty adds to MaxMin on {suite}: the authors' arm against the same without it.",
            *QUESTION,
            experiments,
            f"{LAST}, with the penalty minus without",
            "score",
            gained(OURS, "maxmin_no_bias"),
        ),
        Claim(
            f"{suite}_maxmin_alone_beats_adam",
            f"As a control we ask whether MaxMin alone, with biases and no penalty, ends above Adam on {suite}.",
            *QUESTION,
            experiments,
            f"{LAST}, MaxMin minus ReLU, both Adam",
            "score",
            gained("maxmin", "adam"),
        ),
    )


def factor(id: str, what: str, pairs: tuple[tuple[str, str], ...]) -> Claim:
    """A main effect of the design activation x biases x penalty."""
    return Claim(
        f"minatar_{id}",
        f"The authors' arms change activation, biases, penalty at once; we ask whether {what} alone raises the score.",
        *QUESTION,
        MINATAR,
        f"{LAST}, mean difference over the four settings of the other two",
        "score",
        gained_on_average(pairs),
    )


PENALTY = (  # pairs of arms that differ in it alone, the one with it first
    ("adamo", "adam"),
    ("adamo_no_bias", "adam_no_bias"),
    ("maxmin_adamo", "maxmin"),
    ("maxmin_adamo_no_bias", "maxmin_no_bias"),
)
SORTING = (
    ("maxmin", "adam"),
    ("maxmin_no_bias", "adam_no_bias"),
    ("maxmin_adamo", "adamo"),
    ("maxmin_adamo_no_bias", "adamo_no_bias"),
)
UNBIASED = (
    ("adam_no_bias", "adam"),
    ("adamo_no_bias", "adamo"),
    ("maxmin_no_bias", "maxmin"),
    ("maxmin_adamo_no_bias", "maxmin_adamo"),
)
RIVALS = {"l2_init": "L2-Init", "nap": "NaP", "spectral": "the spectral penalty"}  # of the authors' scripts
OTHERS = {
    "redo": "ReDo",
    "layernorm": "LayerNorm",
    "crelu": "CReLU",
    "shrink_perturb": "Shrink and Perturb",
    "fire": "FIRE",
}
CONTROLS = {  # the authors' arm without its penalty, and less
    "no_penalty": ("maxmin_no_bias", "their arm without its penalty, MaxMin without biases,"),
    "no_biases_alone": ("adam_no_bias", "leaving out biases alone"),
}
GAMES = (
    *of_suite("minatar", "appendix B.5"),
    *of_suite("octax", "appendix B.6"),
    *(
        Claim(
            f"minatar_beats_{rival}",
            f"The authors compare AdamO with {label} in games; we ask whether AdamO with MaxMin ends above it.",
            *CODE,
            MINATAR,
            f"{LAST}, AdamO minus {label}",
            "score",
            gained(OURS, rival),
        )
        for rival, label in RIVALS.items()
    ),
    *(
        Claim(
            f"minatar_beats_{rival}",
            f"We ask whether AdamO with MaxMin ends above {label} in games.",
            *QUESTION,
            MINATAR,
            f"{LAST}, AdamO minus {label}",
            "score",
            gained(OURS, rival),
        )
        for rival, label in OTHERS.items()
    ),
    *(
        Claim(
            f"minatar_{name}_beats_adam",
            f"The authors' arm differs from their Adam in three ways; as a control we ask whether {what} beats Adam.",
            *QUESTION,
            MINATAR,
            f"{LAST}, control minus Adam",
            "score",
            gained(arm, "adam"),
        )
        for name, (arm, what) in CONTROLS.items()
    ),
    factor("penalty", "the penalty", PENALTY),
    factor("sorting", "MaxMin in place of ReLU", SORTING),
    factor("no_biases", "leaving out biases", UNBIASED),
    Claim(
        "minatar_penalty_more_than_sorting",
        "We ask whether the penalty does more than MaxMin in place of ReLU.",
        *QUESTION,
        MINATAR,
        f"{LAST}, main effect of the penalty minus that of MaxMin",
        "score",
        difference(gained_on_average(PENALTY), gained_on_average(SORTING)),
    ),
    Claim(
        "minatar_fewer_dormant",
        "The paper reports dormant units; we ask whether the authors' AdamO with ReLU leaves fewer of them than Adam.",
        *QUESTION,
        MINATAR,
        "dormant fraction (tau = .025) in the last fifth of the cycles, Adam minus AdamO",
        "share of units",
        fewer("dormant_0.025", RELU, "adam"),
    ),
    Claim(
        "minatar_penalty_fewer_dormant",
        "We ask whether the penalty alone leaves fewer dormant units: ReLU with biases, AdamO against Adam.",
        *QUESTION,
        MINATAR,
        "dormant fraction (tau = .025) in the last fifth of the cycles, Adam minus AdamO",
        "share of units",
        fewer("dormant_0.025", "adamo", "adam"),
    ),
    Claim(
        "minatar_cleared_state",
        "The authors clear Adam's state at every change of game; we ask whether that raises the score.",
        *CODE,
        MINATAR,
        f"{LAST}, cleared minus kept",
        "score",
        gained("adam", "adam_kept"),
    ),
    Claim(
        "minatar_penalty_depends_on_activation",
        "We ask whether the penalty does more with MaxMin than with ReLU.",
        *QUESTION,
        MINATAR,
        f"{LAST}, gain by the penalty with MaxMin minus gain with ReLU, no biases",
        "score",
        difference(gained("maxmin_adamo_no_bias", "maxmin_no_bias"), gained("adamo_no_bias", "adam_no_bias")),
    ),
)
