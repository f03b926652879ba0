"""What each rival hypothesis predicts of the causal experiments, arm by arm, with the thresholds that decide.

All of this was committed before any run of its experiment on the seeds that judge; what is predicted of the one-sided
pull came after the surgeries. A prediction is a list of checks, of each of which `dyniso.report.rivals` says whether it
holds, fails or is undecided. A rival survives where none of its checks fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MARGIN = 0.05  # of online accuracy: what is smaller counts as no difference
HALF = 0.5  # of the way from the arm that is left alone to a fresh net: above is "high", below is "low"

KINDS = {
    "high": "recovers more than half of the way from the kept net to a fresh one",
    "low": "recovers less than half of it",
    "above": "is better than the other arm, by at least the margin",
    "equal": "differs from the other arm by less than the margin",
    "retains": "loses less than the margin from its own early tasks to the last",
}


class Check(NamedTuple):
    """One prediction: of an arm, or of an arm against another."""

    kind: str  # a key of `KINDS`
    arm: str
    other: str = ""


def high(*arms: str) -> tuple[Check, ...]:
    return tuple(Check("high", a) for a in arms)


def low(*arms: str) -> tuple[Check, ...]:
    return tuple(Check("low", a) for a in arms)


def above(arm: str, *others: str) -> tuple[Check, ...]:
    return tuple(Check("above", arm, other) for other in others)


def equal(arm: str, *others: str) -> tuple[Check, ...]:
    return tuple(Check("equal", arm, other) for other in others)


def retains(*arms: str) -> tuple[Check, ...]:
    return tuple(Check("retains", a) for a in arms)


NAMES = {
    "isometry": "isometry: mean (sigma^2 - 1)^2 of the weights",
    "scale": "scale: only the norm matters (effective step)",
    "scale_free": "scale-free isometry: only the shape of the spectrum matters",
    "state": "the spectrum is the state that is lost",
    "lower_tail": "lower tail, condition number",
    "upper_tail": "upper tail: only large singular values hurt",
    "alignment": "alignment of singular vectors with features",
    "gates": "gates: which units fire, and how often",
    "displacement": "any displacement of that size",
    "function": "the function: weights do not matter beyond it",
    "rank": "rank of the last features",
}

W = ("kept", "scaled", "flat", "re_paired", "haar")
SURGERY = {
    "isometry": (
        *high("flat_own", "flat_collapsed", "flat_balanced", "flat_haar"),
        *low(
            *(
                f"{w}_{g}"
                for w in W
                if w != "flat"
                for g in ("own", "collapsed", "balanced")
                if (w, g) != ("kept", "own")
            )
        ),
    ),
    "scale": (*high("scaled_own", "flat_own"), *low("norm_flat", "re_paired_own", "haar_own")),
    "alignment": (*high("re_paired_own", "haar_own", "flat_own", "flat_haar"), *low("scaled_own")),
    "gates": (*high(*(f"{w}_balanced" for w in W)), *low(*(f"{w}_collapsed" for w in W))),
    "displacement": high("flat_own", "rotated", "noisy", "shrink_perturb"),
    "lower_tail": (*high("lift"), *low("clip")),
    "upper_tail": (*high("clip"), *low("lift")),
}
SHAPES = {
    "isometry": (
        *above("ln_0", "ln_0.5", "ln_1", "ln_1.5"),
        *above("ln_0.5", "ln_1"),
        *above("ln_1", "ln_1.5"),
        *(c for D in ("1", "3") for c in equal(f"ln@{D}", f"bottom@{D}", f"spike4@{D}", f"spike1@{D}")),
    ),
    "state": retains("ln_0", "ln_0.5", "ln_1", "ln_1.5", "bottom@1", "ln@1", "spike4@1", "spike1@1"),
    "lower_tail": tuple(
        c for D in ("1", "3") for s in ("ln", "spike4", "spike1") for c in above(f"{s}@{D}", f"bottom@{D}")
    ),
    "upper_tail": tuple(c for D in ("1", "3") for s in ("bottom", "ln") for c in above(f"{s}@{D}", f"spike1@{D}")),
}
SIDES = {
    "isometry": (
        *above("ln_0", "norm", "clip", "lift", "spectral", "level_1.41", "free"),
        *above("level_1.41", "level_2"),
    ),
    "scale": (*equal("norm", "ln_0"), *above("norm", "free")),
    "scale_free": equal("ln_0", "level_1.41", "level_2"),
    "state": retains("ln_0", "level_1.41", "level_2"),
    "lower_tail": (*equal("lift", "ln_0"), *above("lift", "free"), *equal("clip", "free")),
    "upper_tail": (*equal("clip", "ln_0"), *above("clip", "free"), *equal("lift", "free")),
}
CHAIN = {
    "gates": (*above("ln_1_gates", "ln_1"), *equal("ln_1_gates", "ln_0_gates")),
    "alignment": above("ln_1_re_paired", "ln_1"),
}
FEW = {
    "isometry": (
        *above("ln_0", "ln_1", "clip", "lift", "level_2", "free"),
        *equal("ln@1", "bottom@1", "spike4@1", "spike1@1"),
    ),
    "scale_free": equal("ln_0", "level_2"),
    "state": retains("ln_0", "ln_1", "level_2"),
    "lower_tail": (
        *(c for s in ("ln", "spike4", "spike1") for c in above(f"{s}@1", "bottom@1")),
        *above("lift", "free"),
    ),
    "upper_tail": (*above("bottom@1", "spike1@1"), *equal("clip", "ln_0"), *above("clip", "free")),
}
BOUNDARY = {
    "isometry": above("flat", "none", "scaled", "re_paired", "scaled_re_paired", "re_paired_balanced", "clip", "lift"),
    "scale": (*equal("scaled", "flat"), *above("scaled", "none")),
    "alignment": (*above("re_paired", "none"), *equal("scaled_re_paired", "flat")),
    "gates": (*above("re_paired_balanced", "re_paired"), *above("flat", "flat_gates_.05")),
    "lower_tail": (*above("lift", "none"), *equal("clip", "none")),
    "upper_tail": (*above("clip", "none"), *equal("lift", "none")),
}


def gauge(optimizer: str, *others: str) -> dict[str, tuple[Check, ...]]:
    own = f"normal_0_{optimizer}"
    return {
        "isometry": (
            *above(own, f"normal_1_{optimizer}", f"normal_2_{optimizer}"),
            *(c for name in others if name == "isometric" for c in above(f"isometric_{optimizer}", own)),
        ),
        "function": equal(
            own, *(f"normal_{d}_{optimizer}" for d in ("0.5", "1", "2")), *(f"{o}_{optimizer}" for o in others)
        ),
    }


def joined(*parts: dict[str, tuple[Check, ...]]) -> dict[str, tuple[Check, ...]]:
    """Checks of several tables, rival by rival."""
    return {
        name: tuple(c for part in parts for c in part.get(name, ()))
        for name in dict.fromkeys(k for p in parts for k in p)
    }


RIVALS: dict[str, dict[str, tuple[Check, ...]]] = {
    **{f"surgery_{stream}{width}": SURGERY for stream in ("labels", "pixels") for width in ("", "_128")},
    **{f"held_shapes_{activation}": SHAPES for activation in ("relu", "maxmin")},
    "held_sides_relu": joined(SIDES, CHAIN),
    "held_sides_maxmin": SIDES,
    **{f"held_few_{activation}_128": FEW for activation in ("relu", "maxmin")},
    "every_boundary": BOUNDARY,
    "gauge_fresh": joined(gauge("adam"), gauge("sgd")),
    "gauge_collapsed": joined(gauge("adam", "rows", "isometric"), gauge("sgd", "rows", "isometric")),
    "constructed": {
        "isometry": equal("q0.5_m1_frozen", "q0.1_m1_frozen", "q0.02_m1_frozen", "q0_m1_frozen", "q0_m3_frozen"),
        "gates": (
            *above("q0.5_m1_frozen", "q0.02_m1_frozen", "q0_m3_frozen"),
            *above("q0.1_m1_frozen", "q0_m3_frozen"),
        ),
    },
    "forced_relu": {
        "isometry": retains("held_0.001", "held_0.003", "held_0.01"),
        "gates": above("held_0.001", "held_0.01"),
    },
    "forced_maxmin": {"isometry": retains("held_0.001", "held_0.003", "held_0.01")},
    "rank_or_kernel": {
        "rank": (
            *(c for o in ("adam", "adamo", "held") for c in above(f"{o}_none", f"{o}_lower")),
            *above("adam_raise", "adam_none"),
        ),
        "isometry": (*equal("held_none", "held_lower", "held_raise"), *above("held_lower", "adam_raise")),
    },
}
RIVALS |= {  # written after the surgeries at one boundary were seen, before any run with a one-sided pull
    f"one_sided_{stream}": {
        "isometry": (*above("both_0.1", "adam", "above_0.1"), *above("both_1", "above_1")),
        "upper_tail": (*above("above_0.1", "adam"), *equal("above_0.1", "both_0.1"), *equal("above_1", "both_1")),
    }
    for stream in ("labels", "pixels")
}
LATE = 3  # tasks at the end whose mean is the outcome where nothing branches
EARLY = range(1, 5)  # a run's own best of these is what "retains" compares with


def arms_of(checks: tuple[Check, ...]) -> Iterator[str]:
    """Every arm that some checks name."""
    for check in checks:
        yield check.arm
        if check.other:
            yield check.other
