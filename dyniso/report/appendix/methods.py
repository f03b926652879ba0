"""What every method is: settings with their defaults, source, and which of the methods of its name.

Classes, optimizers and forms are looked at and never imported: the page that shows them hands them in.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ...study.specs import CANDIDATES, Comparison, Method
from .text import bullets, folded, plain, shown, words

PER_METHOD = ("name", "label", "optimizer", "lr", "baseline", "settings")  # shown apart from the other fields of Method
PARTS = {  # (field of Method, value) -> what does it; the values that are a plain Adam with ReLU are there as well
    ("optimizer", "adam"): "torch.optim.Adam",
    ("optimizer", "adamw"): "torch.optim.AdamW",
    ("optimizer", "sgd"): "torch.optim.SGD",
    ("optimizer", "muon"): "torch.optim.Muon",
    ("optimizer", "adamo"): "dyniso.optim.AdamO",
    ("optimizer", "upgd"): "dyniso.baselines.UPGD",
    ("activation", "relu"): "torch.nn.ReLU",
    ("activation", "crelu"): "dyniso.activations.CReLU",
    ("activation", "maxmin"): "dyniso.activations.MaxMin",
    ("norm", "layernorm"): "torch.nn.LayerNorm",
    ("norm", "layernorm_fixed"): "torch.nn.LayerNorm",
    ("parametrization", "newton_schulz"): "dyniso.nets.orthogonal",
}
NAMESAKES = {  # baseline or optimizer -> the methods of its name in use, by papers or by their published code
    "shrink_perturb": {
        "ash": "Ash & Adams 2020: when data arrive, 0.4 times the weights plus 0.1 times a fresh draw, a new optimizer",
        "dohare": "Dohare et al. 2024: after every step, normal noise of one size on all parameters, with L2 beside it",
        "kumar": "Kumar et al. 2023: after every step, a shrink towards zero plus a fresh draw of the initial law",
        "elsayed": "Elsayed & Mahmood 2024: after every step, decay and normal noise, both times the learning rate",
        "fire": "FIRE: at a task boundary, 0.2 times the weights plus 0.8 times their stored initial values",
        "chung": "Chung et al. 2024: AdamW, and a small Xavier draw on the linear weights at every update",
    },
    "redo": {
        "sokar": "Sokar et al. 2023: fresh incoming and zero outgoing weights, Adam's moments of both cleared",
        "kumar": "Kumar et al. 2023: units get their own initial weights back; the optimizer's state stays",
        "dohare": "Dohare et al. 2024: threshold 0.1 every 100 steps; the optimizer's state stays",
        "klein": "a PyTorch port by T. Klein: Adam's step count of whole tensors is reset as well",
    },
    "l2_init": {
        "kumar": "Kumar et al. 2023: the squared distance of all parameters from their initial values, in the loss",
        "elsayed": "Elsayed et al. 2024 (weight clipping): anchored after the first step, partly outside the gradient",
        "chung": "Chung et al. 2024: the squared distance of each tensor divided by its number of entries",
    },
    "parseval": {
        "chung": "Chung et al. 2024: hidden layers, WW' (out × out) towards the squared gain, in the loss; there times "
        "(64/width)², here not",
        "fire": "FIRE's code: all weights with the head, norm scales as well, WW' towards one",
    },
    "upgd": {
        "code": "Elsayed & Mahmood 2024, the code of its experiments: a step of lr times (1 - gate)",
        "readme": "the same, its README and its code for reinforcement learning: a step of 2 lr times (1 - gate)",
    },
}
Classes = Mapping[str, Any]  # name of a baseline -> its class


def own_fields(method: Method) -> dict[str, Any]:
    """The fields of a method that are not at their defaults, but for optimizer, learning rate and baseline."""
    others = [f for f in fields(Method) if f.name not in PER_METHOD]
    return {f.name: getattr(method, f.name) for f in others if getattr(method, f.name) != f.default}


def own_settings(method: Method) -> dict[str, Any]:
    """Learning rate, fields that are not at their defaults, and what is set of the baseline as <baseline>.<setting>."""
    return {"lr": method.lr} | own_fields(method) | {f"{method.baseline}.{k}": v for k, v in method.settings}


def setting_name(key: str) -> str:
    """A key of `own_settings` in words; a baseline may have a rate of its own."""
    return "learning rate" if key == "lr" else words(key.rpartition(".")[2])


def settings_text(method: Method, classes: Classes) -> str:
    """What a method sets beside optimizer and learning rate, and the defaults of its baseline."""
    parts = [", ".join(f"{words(name)} {shown(value)}" for name, value in own_fields(method).items())]
    if method.baseline:
        chosen = dict(method.settings)
        baseline = classes[method.baseline](**chosen)
        values = {f.name: f"{words(f.name)} {shown(getattr(baseline, f.name))}" for f in fields(baseline)}
        own = ", ".join(text for name, text in values.items() if name in chosen)
        default = ", ".join(text for name, text in values.items() if name not in chosen)
        name = type(baseline).__name__ + (f": {own}" if own else "")
        parts.append(name + (f" (by default {default})" if default else ""))
    return plain("; ".join(part for part in parts if part)) or "none"


def arm_rows(experiments: Iterable[Comparison], classes: Classes) -> list[dict[str, str]]:
    """One row for each different arm of some experiments: label, optimizer and learning rate, settings, where it is.

    Args:
        classes: name of a baseline -> its class, `dyniso.baselines.CLASSES`.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for experiment in experiments:
        for m in experiment.methods:
            row = plain(m.label), plain(f"{m.optimizer}, {shown(m.lr)}"), settings_text(m, classes)
            found.setdefault(row, []).append(f"`{experiment.name}`")
    return [
        {"method": label, "optimizer, rate": rate, "settings": text, "in": ", ".join(names)}
        for (label, rate, text), names in found.items()
    ]


def source_of(documented: object) -> str:
    """What a docstring says after "Source:", '' if it says nothing.

    >>> from dyniso.stats import iqm
    >>> source_of(iqm)
    'Agarwal et al. 2021 (rliable).'
    """
    found = re.search(r"^Source: (.*(?:\n[ \t]+\S.*)*)", inspect.getdoc(documented) or "", re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def prose_of(documented: object) -> str:
    """What a docstring says before its sections, on one line."""
    text = re.split(r"^(?:Args|Returns|Raises|Source|>>>)", inspect.getdoc(documented) or "", flags=re.MULTILINE)[0]
    return " ".join(text.split())


def described(documented: type) -> str:
    """One line of Markdown on a class of `dyniso.baselines`: what it does, its source, and which variant it is."""
    source = source_of(documented)
    return f"**{documented.__name__}.** {plain(prose_of(documented))} *Source:* {plain(source or 'none is stated.')}"


def namesake(method: Method) -> str:
    """The name of `NAMESAKES` that a method goes by; '' where its name is used for one method only."""
    return next((name for name in (method.baseline, method.optimizer) if name in NAMESAKES), "")


def variant(method: Method, forms: Mapping[str, Any]) -> str:
    """Which one of `NAMESAKES` a method is; '' where its name is used for one method only.

    Args:
        forms: the published forms of shrink & perturb, `dyniso.baselines.SHRINK_PERTURB`.
    Raises:
        ValueError: a form of shrink & perturb that is none of the published ones.
    """
    name = namesake(method)
    if name != "shrink_perturb":
        return {"redo": "sokar", "l2_init": "kumar", "parseval": "chung", "upgd": "code"}.get(name, "")

    def form(one: Any) -> tuple[Any, ...]:
        return one.draw, one.when, one.scaled_by_lr

    mine = form(type(next(iter(forms.values())))(**dict(method.settings)))
    for key, published in forms.items():
        if form(published) == mine:
            return key
    raise ValueError(f"{method.name}: {mine} is none of the published forms of shrink & perturb")


def variants(methods: Sequence[Method], forms: Mapping[str, Any]) -> dict[str, set[str]]:
    """By name of `NAMESAKES`, which of its methods some methods are."""
    return {name: {variant(m, forms) for m in methods if namesake(m) == name} for name in NAMESAKES}


def namesake_block(name: str, methods: Iterable[Method], forms: Mapping[str, Any]) -> str:
    """The methods that share a name of `NAMESAKES`, folded, and which one some methods of ours are."""
    mine = {variant(m, forms) for m in methods if namesake(m) == name}
    lines = [
        f"{plain(text)}{' **(this one is used)**' if key in mine else ''}" for key, text in NAMESAKES[name].items()
    ]
    return folded(f"{len(lines)} methods called {plain(label_of(CANDIDATES[name]))}", bullets(lines))


def label_of(candidates: Sequence[Method]) -> str:
    """The label of a method without the number of its candidate."""
    return candidates[0].label.rpartition(" ")[0]


def used_parts(methods: Iterable[Method]) -> list[tuple[str, str]]:
    """The (field, value) pairs of `PARTS` that some methods use, in the order of `PARTS`; KeyError for one without."""
    names = list(dict.fromkeys(field for field, _ in PARTS))
    used = {(name, getattr(m, name)) for m in methods for name in names if getattr(m, name) not in (None, "none")}
    if missing := used - PARTS.keys():
        raise KeyError(f"PARTS has no entry for {sorted(missing)}")
    return [part for part in PARTS if part in used]


def part_line(field: str, value: str, documented: object) -> str:
    """One line of Markdown on an optimizer, activation, norm or parametrisation: what does it, and its source.

    Args:
        documented: what `PARTS` names.
    """
    source = source_of(documented)
    return f"{field} *{plain(value)}*: `{PARTS[field, value]}`" + (f". *Source:* {plain(source)}" if source else "")


def optimizer_row(name: str, made: Any, lr: float) -> dict[str, str]:
    """An optimizer as runs get it: what is built, and the settings that it has where a method sets none.

    Args:
        made: what `dyniso.study.optimizers` builds for a method of that name with learning rate `lr` and no more.
    """
    parts = [getattr(part, "each", [part])[0] for part in getattr(made, "parts", [made])]
    texts = []
    for part in parts:
        rate = part.param_groups[0]["lr"] / lr
        texts.append(", ".join([*([f"rate × {shown(rate)}"] if rate != 1 else []), *defaults_of(part)]) or "none")
    built = " and ".join(f"`{type(part).__name__}`" for part in parts)
    return {"optimizer": plain(name), "built": built, "its own settings": plain("; ".join(texts))}


def defaults_of(optimizer: Any) -> list[str]:
    """The defaults of a torch optimizer that change what it computes; zero, False and None do not."""
    left_out = {"lr", "isometry_strength", "isometry_every", "batch_dims", "fused"}  # set by the method or by the stack
    kept = {k: v for k, v in optimizer.defaults.items() if k not in left_out and v not in (None, False, 0, "")}
    return [f"{words(k)} ({shown(v)})" if isinstance(v, tuple) else f"{words(k)} {shown(v)}" for k, v in kept.items()]
