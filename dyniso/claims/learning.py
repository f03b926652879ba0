"""Claims about learning: what is lost and kept over a stream, and which method does better."""

from __future__ import annotations

from .effects import accuracy_gained, accuracy_gained_over_strengths, accuracy_kept, accuracy_lost
from .verdict import Claim

LOSS = 0.02  # online accuracy; ours: a smaller change from the first to the last tasks is no loss

STREAMS = (  # every stream with Adam and AdamO at both strengths
    "random_labels",
    "permuted_pixels",
    "earlier_methods",
)
COMPARED = ("earlier_methods",)  # where the rival methods have been run
SWEPT = ("strengths",)

ABSTRACT = "abstract (arXiv 2606.09762)"
PRINTED = "appendix, hyper-parameters: strength 1e-3"
READERS = "summaries by readers of v1"
RL_CODE = "reinforcement-learning scripts that one author published"
LAST = "online accuracy on the last fifth of the tasks"
KEPT = "online accuracy, last minus first fifth of the tasks"

UNNAMED = {  # of the field; whether the paper compares with them is not known to us
    "adamw": "AdamW",
    "l2": "L2 regularisation",
    "layernorm": "LayerNorm",
    "crelu": "CReLU",
    "parseval": "Parseval regularisation",
    "continual_backprop": "Continual Backprop",
    "shrink_perturb": "Shrink and Perturb",
    "reset_all": "a new network for every task",
    "fire": "FIRE",
    "muon": "Muon",
}


def beats(rival: str, statement: str, kind: str, source: str) -> Claim:
    """AdamO at the better of two strengths against one other method with the constants of its source."""
    return Claim(
        id=f"adamo_beats_{rival}",
        statement=statement,
        kind=kind,
        source=source,
        experiments=COMPARED,
        metric=f"{LAST}, AdamO at the better of 1e-3 and 0.1 minus {rival} with untuned constants",
        unit="accuracy",
        effect=accuracy_gained(("adamo", "adamo_0.1"), (rival,)),
    )


LEARNING = (
    Claim(
        "adam_loses_plasticity",
        "The paper says that training on a stream of tasks costs a network its ability to learn; here with Adam.",
        "paper",
        "introduction",
        STREAMS,
        "online accuracy, first minus last fifth of the tasks",
        "accuracy",
        accuracy_lost("adam"),
        threshold=LOSS,
    ),
    Claim(
        "adamo_printed_keeps_plasticity",
        "The paper says that AdamO preserves plasticity, and prints the strength 1e-3.",
        "paper",
        f"title and {ABSTRACT}; {PRINTED}",
        STREAMS,
        KEPT,
        "accuracy",
        accuracy_kept("adamo"),
        threshold=-LOSS,
    ),
    Claim(
        "adamo_strong_keeps_plasticity",
        "The book's strength law asks for more than the printed strength; we ask whether 0.1 preserves plasticity.",
        "our derivation",
        "chapter on AdamO; the authors' reinforcement-learning scripts have 0.1 with half the gradient",
        STREAMS,
        KEPT,
        "accuracy",
        accuracy_kept("adamo_0.1"),
        threshold=-LOSS,
    ),
    Claim(
        "maxmin_adamo_keeps_plasticity",
        "The authors train MaxMin networks with AdamO as near-isometric networks that stay plastic; here at 0.1.",
        "authors' code",
        RL_CODE,
        STREAMS,
        KEPT,
        "accuracy",
        accuracy_kept("maxmin_adamo_0.1"),
        threshold=-LOSS,
    ),
    Claim(
        "isometric_keeps_plasticity",
        "By the paper's argument an isometric network stays plastic; here MaxMin with orthogonal weights.",
        "paper",
        f"{ABSTRACT}; section 3",
        COMPARED,
        KEPT,
        "accuracy",
        accuracy_kept("isometric"),
        threshold=-LOSS,
    ),
    Claim(
        "adamo_printed_beats_adam",
        "If AdamO preserves plasticity, as the paper says, it beats Adam on late tasks; here at the printed 1e-3.",
        "paper",
        f"{ABSTRACT}; {PRINTED}",
        STREAMS,
        f"{LAST}, AdamO 1e-3 minus Adam",
        "accuracy",
        accuracy_gained(("adamo",), ("adam",)),
    ),
    Claim(
        "adamo_strong_beats_adam",
        "If AdamO preserves plasticity, as the paper says, it beats Adam on late tasks; here at strength 0.1.",
        "paper",
        ABSTRACT,
        STREAMS,
        f"{LAST}, AdamO 0.1 minus Adam",
        "accuracy",
        accuracy_gained(("adamo_0.1",), ("adam",)),
    ),
    beats("nap", "Readers of the paper say that AdamO does better than NaP.", "third-party reading", READERS),
    beats("redo", "Readers of the paper say that AdamO does better than ReDo.", "third-party reading", READERS),
    beats("l2_init", "The authors compare AdamO with L2-Init; we ask which is better.", "authors' code", RL_CODE),
    beats(
        "spectral_penalty",
        "The authors compare AdamO with a penalty on the largest singular value; we ask which is better.",
        "authors' code",
        RL_CODE,
    ),
    *(
        beats(name, f"We ask whether AdamO does better than {label}.", "our question", "")
        for name, label in UNNAMED.items()
    ),
    Claim(
        "decoupled_beats_coupled",
        "The paper takes the pull towards isometry out of Adam's gradient; we ask whether that does better than the "
        "same penalty in the loss, each at its best strength.",
        "paper",
        f"{ABSTRACT}; eqs. 19 and 20",
        SWEPT,
        f"{LAST}, best decoupled (1e-3 to 1) minus best coupled (1e-5 to 1e-2)",
        "accuracy",
        accuracy_gained_over_strengths("decoupled_", "coupled_"),
    ),
    Claim(
        "muon_with_pull_beats_muon",
        "One author later adds the pull to Muon; we ask whether that does better than Muon alone.",
        "authors' code",
        "a language-model port that another author published",
        ("interactions",),
        f"{LAST}, Muon with the pull at 0.1 minus Muon",
        "accuracy",
        accuracy_gained(("muon_isometry",), ("muon",)),
    ),
)
