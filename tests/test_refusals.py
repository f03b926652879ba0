"""A wrong call of the front door says what came, what is allowed, and the nearest name; dyniso.checks words it all."""

import re

import pytest
import torch
from torch import nn

import dyniso
from dyniso import baselines
from dyniso.activations import activation
from dyniso.checks import require_range
from dyniso.nets import mlp
from dyniso.optim import OPTIONS


def net() -> nn.Sequential:
    return mlp(4, 2, width=4, depth=1)


def adamo(**options):
    return dyniso.AdamO(net().parameters(), **options)


def tuned(**options):
    return dyniso.isometry_groups(net(), **options)


def ntk(x=None, **options):
    return dyniso.empirical_ntk(net(), torch.ones(3, 4) if x is None else x, **options)


class Pair(nn.Linear):
    """A model that returns two things."""

    def forward(self, x):
        return super().forward(x), x


WHOLE, NUMBER = "it must be a whole number from", "it must be a number from 0"
EYE = torch.eye(2)

NAMES = {  # call, what it says of the wrong name, and the one that was meant
    "AdamO option": (lambda: adamo(strength=1), "AdamO has no 'strength'", "isometry_strength"),
    "AdamO option of Adam": (lambda: adamo(beta=(0.9, 0.9)), "AdamO has no 'beta'", "betas"),
    "AdamO every": (lambda: adamo(every=2), "AdamO has no 'every'", "isometry_every"),
    "AdamO group": (lambda: dyniso.AdamO([{"params": [EYE], "isometry_evry": 2}]), "'isometry_evry'", "isometry_every"),
    "isometry_groups option": (lambda: tuned(strength=1), "isometry_groups has no 'strength'", "isometry_strength"),
    "isometry_groups head": (lambda: tuned(head="exlude"), "head='exlude'", "exclude"),
    "isometry_groups heads": (lambda: tuned(head=["33"]), "head='33'", "3"),
    "mlp activation": (lambda: mlp(4, 2, activation="maxmim"), "activation='maxmim'", "maxmin"),
    "mlp norm": (lambda: mlp(4, 2, norm="layer_norm"), "norm='layer_norm'", "layernorm"),
    "mlp init": (lambda: mlp(4, 2, init="orthogonl"), "init='orthogonl'", "orthogonal"),
    "cnn downsample": (lambda: dyniso.cnn(downsample="unshufle"), "downsample='unshufle'", "unshuffle"),
    "initialise": (lambda: dyniso.initialise(net(), "kaimng"), "scheme='kaimng'", "kaiming"),
    "orthogonal": (lambda: dyniso.orthogonal(nn.Linear(2, 2), "caley"), "method='caley'", "cayley"),
    "activation": (lambda: activation("groupsort"), "activation='groupsort'", "groupsort-k"),
    "empirical_ntk": (lambda: ntk(method="jacobi"), "method='jacobi'", "jacobian"),
    "polar_factor": (lambda: dyniso.polar_factor(EYE, "newton"), "method='newton'", "newton_schulz"),
    "orthogonalise": (lambda: dyniso.orthogonalise(EYE, "bjork-2", 3), "scheme='bjork-2'", "bjorck-2"),
    "baselines.make": (lambda: baselines.make("reddo"), "baseline='reddo'", "redo"),
    "baselines.make setting": (lambda: baselines.make("redo", treshold=1), "redo has no 'treshold'", "threshold"),
    "baseline choice": (lambda: baselines.make("reset", layers="heads"), "Reset.layers='heads'", "head"),
}


@pytest.mark.parametrize(("call", "said", "meant"), NAMES.values(), ids=NAMES)
def test_wrong_name_is_named_with_what_is_allowed_and_the_nearest(call, said, meant):
    with pytest.raises(ValueError) as raised:
        call()
    assert re.search(rf"{re.escape(said)}; allowed are .*'{meant}'.*; did you mean '{meant}'\?", str(raised.value))


VALUES = {  # call, and what it says
    "AdamO strength": (lambda: adamo(isometry_strength=-1.0), f"isometry_strength=-1.0; {NUMBER}"),
    "AdamO text": (lambda: adamo(isometry_strength="0.1"), f"isometry_strength='0.1'; {NUMBER}"),
    "AdamO nan": (lambda: adamo(isometry_strength=float("nan")), f"isometry_strength=nan; {NUMBER}"),
    "AdamO every": (lambda: adamo(isometry_every=0), f"isometry_every=0; {WHOLE} 1"),
    "AdamO half": (lambda: adamo(isometry_every=2.5), f"isometry_every=2.5; {WHOLE} 1"),
    "AdamO axes": (lambda: adamo(batch_dims=-1), f"batch_dims=-1; {WHOLE} 0"),
    "AdamO rate": (lambda: adamo(isometry_lr=-0.1), f"isometry_lr=-0.1; {NUMBER}"),
    "isometry_groups empty": (lambda: dyniso.isometry_groups(nn.Linear(3, 3)), "nothing to regularise"),
    "mlp width": (lambda: mlp(4, 2, width=0), f"width=0; {WHOLE} 1"),
    "mlp depth": (lambda: mlp(4, 2, depth=-1), f"depth=-1; {WHOLE} 0"),
    "mlp odd": (lambda: mlp(4, 2, width=5, activation="maxmin"), "width 5 is not divisible by group 2"),
    "cnn kernel": (lambda: dyniso.cnn(kernel=4), "kernel=4; it must be odd"),
    "cnn channels": (lambda: dyniso.cnn(channels=(8, 0)), f"channels[1]=0; {WHOLE} 1"),
    "orthogonal steps": (lambda: dyniso.orthogonal(nn.Linear(2, 2), "newton_schulz", 0), f"steps=0; {WHOLE} 1"),
    "GroupSort": (lambda: dyniso.GroupSort(1), f"group=1; {WHOLE} 2"),
    "empirical_ntk chunk": (lambda: ntk(chunk=0), f"chunk=0; {WHOLE} 1"),
    "empirical_ntk empty": (lambda: ntk(torch.ones(0, 4)), "inputs has shape (0, 4); expected (n, ...)"),
    "empirical_ntk outputs": (
        lambda: dyniso.empirical_ntk(Pair(2, 2), EYE, method="jacobian"),
        "the model's output is of type tuple; expected a tensor of shape (2, C)",
    ),
    "plasticity shape": (lambda: dyniso.plasticity(torch.ones(2, 3), 1), "theta has shape (2, 3); expected"),
    "plasticity steps": (lambda: dyniso.plasticity(EYE, 0), "steps=0; it must be integers of at least 1"),
    "plasticity size": (lambda: dyniso.plasticity(EYE, 1, -1.0), "step_size=-1.0; it must be positive"),
    "dormant_fraction tau": (lambda: dyniso.dormant_fraction(EYE, tau=-1), f"tau=-1; {NUMBER}"),
    "dormant_fraction shape": (lambda: dyniso.dormant_fraction(torch.ones(3)), "activation has shape (3,); expected"),
    "gram_deviation shape": (lambda: dyniso.gram_deviation(torch.ones(3)), "W has shape (3,); expected at least 2"),
    "gram_deviation dtype": (lambda: dyniso.gram_deviation(EYE.int()), "W.dtype=torch.int32; it must be floating"),
    "polar_factor nan": (lambda: dyniso.polar_factor(EYE / 0), "W has 4 of 4 entries that are not finite"),
    "baselines.make": (lambda: baselines.make("redo", threshold=-1.0), f"ReDo.threshold=-1.0; {NUMBER}"),
    "baselines.attach": (lambda: baselines.attach(baselines.L2(), nn.Linear(2, 2)), "needs a hidden layer and a head"),
}


@pytest.mark.parametrize(("call", "said"), VALUES.values(), ids=VALUES)
def test_wrong_value_is_named_with_what_is_allowed(call, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        call()


TYPES = {  # call, what came, and what to write
    "AdamO": (lambda: dyniso.AdamO(net()), "Sequential", "AdamO(isometry_groups(model))"),
    "isometry_groups": (lambda: dyniso.isometry_groups(net().parameters()), "generator", "isometry_groups(model)"),
    "isometry_groups head": (lambda: tuned(head=3), "int", "names of modules"),
    "initialise": (lambda: dyniso.initialise(EYE), "Tensor", "initialise(model)"),
    "orthogonal": (lambda: dyniso.orthogonal(EYE), "Tensor", "a layer with a weight"),
    "empirical_ntk model": (lambda: dyniso.empirical_ntk(EYE, EYE), "Tensor", "empirical_ntk(model, x)"),
    "empirical_ntk inputs": (lambda: ntk([[1.0] * 4]), "list", "a tensor of shape (n, ...)"),
    "plasticity": (lambda: dyniso.plasticity([[1.0]], 1), "list", "empirical_ntk(model, x)"),
    "dormant_fraction": (lambda: dyniso.dormant_fraction([[1.0]]), "list", "(..., samples, units)"),
    "hidden_activations": (lambda: dyniso.hidden_activations(EYE).__enter__(), "Tensor", "a module"),
    "gram_deviation": (lambda: dyniso.gram_deviation([[1.0]]), "list", "(..., out, in)"),
    "polar_factor": (lambda: dyniso.polar_factor([[1.0]]), "list", "(..., out, in)"),
    "baselines.attach": (lambda: baselines.attach("redo", net()), "str", "attach(ReDo(), model, optimizer)"),
    "baselines.attach model": (lambda: baselines.attach(baselines.L2(), EYE), "Tensor", "attach(ReDo(), model"),
}


@pytest.mark.parametrize(("call", "came", "expected"), TYPES.values(), ids=TYPES)
def test_wrong_type_is_named_with_what_to_write(call, came, expected):
    with pytest.raises(TypeError, match=rf"is of type {came}; expected .*{re.escape(expected)}"):
        call()


def test_every_isometry_option_is_a_keyword_of_adamo_and_of_groups():
    values = dict(zip(OPTIONS, (0.1, 1e-3, 2, (1, 1), "above", False, 0), strict=True))
    assert {name: adamo(**values).param_groups[0][name] for name in OPTIONS} == values
    assert {name: tuned(**values)[0][name] for name in OPTIONS} == values


def test_whole_numbers_of_numpy_are_whole_numbers():
    every = adamo(isometry_every=__import__("numpy").int64(10)).param_groups[0]["isometry_every"]
    assert every == 10


@pytest.mark.parametrize("value", [True, False, float("nan"), float("inf"), -float("inf"), "1", None], ids=repr)
@pytest.mark.parametrize("kind", [int, float])
def test_no_range_holds_what_is_no_finite_number(value, kind):
    with pytest.raises(ValueError, match=re.escape(f"x={value!r}; it must be")):
        require_range("x", value, -10, kind=kind)
