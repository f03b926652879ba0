"""Claims about learning: what is lost and kept over a stream, and what the first task costs."""

from __future__ import annotations

from ..results import Arm
from .effects import gained, gained_on_first_task, kept, lost
from .names import (
    ABSTRACT,
    ADAMO,
    CNN,
    GRADUAL,
    HYPERPARAMETER,
    IS_ADAMO,
    KEPT,
    LAST,
    LONG_AND_SUITE,
    LOSS,
    MAXMIN_ADAMO,
    PRINTED,
    RL_CODE,
    SUITE,
)
from .verdict import Claim

LOST = "score, first minus last fifth of the tasks"


def keeps(id: str, statement: str, kind: str, source: str, experiments: tuple[str, ...], arm: Arm) -> Claim:
    """An arm's score on the last tasks is at most `LOSS` below that on the first; Adam's is the control."""
    return Claim(id, statement, kind, source, experiments, KEPT, "score", kept(arm), -LOSS, control=kept("adam"))


def elsewhere(suffix: str, where: str, experiments: tuple[str, ...]) -> tuple[Claim, ...]:
    """What is claimed of all streams, asked again of other experiments."""
    return (
        Claim(
            f"adam_loses_plasticity_{suffix}",
            f"We also ask whether Adam loses plasticity {where}.",
            "question",
            "",
            experiments,
            LOST,
            "score",
            lost("adam"),
            LOSS,
        ),
        keeps(
            f"adamo_keeps_plasticity_{suffix}",
            f"We also ask whether AdamO preserves plasticity {where}.",
            "question",
            "",
            experiments,
            ADAMO,
        ),
        Claim(
            f"adamo_beats_adam_{suffix}",
            f"We also ask whether AdamO beats Adam on late tasks {where}.",
            "question",
            "",
            experiments,
            f"{LAST}, AdamO minus Adam",
            "score",
            gained(ADAMO, "adam"),
        ),
    )


LEARNING = (
    Claim(
        "adam_loses_plasticity",
        "The paper says that training on a stream of tasks costs a network its ability to learn; here with Adam.",
        "paper",
        "introduction",
        LONG_AND_SUITE,
        LOST,
        "score",
        lost("adam"),
        LOSS,
    ),
    keeps(
        "adamo_keeps_plasticity",
        f"The paper says that AdamO preserves plasticity; here {IS_ADAMO}.",
        "paper",
        f"title and {ABSTRACT}",
        LONG_AND_SUITE,
        ADAMO,
    ),
    keeps(
        "adamo_printed_keeps_plasticity",
        "The paper says that AdamO preserves plasticity, and prints the strength 1e-3.",
        "paper",
        f"title and {ABSTRACT}; {HYPERPARAMETER}",
        LONG_AND_SUITE,
        PRINTED,
    ),
    keeps(
        "maxmin_adamo_keeps_plasticity",
        "The authors train MaxMin networks with AdamO as near-isometric networks that stay plastic; here tuned in the "
        "suite and at 0.1 elsewhere.",
        "code",
        RL_CODE,
        LONG_AND_SUITE,
        MAXMIN_ADAMO,
    ),
    keeps(
        "isometric_keeps_plasticity",
        "By the paper's argument an isometric network stays plastic; here MaxMin with hidden weights kept "
        "orthogonal by a Newton-Schulz step after every update.",
        "paper",
        f"{ABSTRACT}; section 3",
        SUITE,
        "maxmin_hard",
    ),
    keeps(
        "maxmin_keeps_plasticity",
        "As a control of the isometric networks we ask whether MaxMin with plain Adam, whose weights are free, stays "
        "plastic as well.",
        "question",
        "",
        LONG_AND_SUITE,
        "maxmin",
    ),
    Claim(
        "adamo_costs_no_first_task",
        "We ask whether AdamO leaves a first task as fast as Adam does; each at its own learning rate in the suite.",
        "question",
        "",
        LONG_AND_SUITE,
        f"score on the first task, {IS_ADAMO} minus Adam",
        "score",
        gained_on_first_task(ADAMO, "adam"),
        -LOSS,
    ),
    *elsewhere("with_gradual_transitions", "where tasks fade into each other", GRADUAL),
    *elsewhere("with_a_cnn", "in a convolutional net", CNN),
)
