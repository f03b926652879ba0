"""A method that is saved, copied or pickled goes on as if nothing had happened, its start included."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch

from dyniso.baselines import CLASSES, L2Init, NormProjection, ReDo, attach


def loop(train, triple, x, steps=3):
    net, optimizer, method = triple
    train(net, x, optimizer, method, steps)


def equal(net, other) -> bool:
    return all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))


def saved(state):
    """As it comes back from a file that holds tensors and numbers only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.fixture
def begun(make_net, make_method, train):
    """A net, its optimizer and a method, three steps and a change of task into training, with the inputs."""

    def begin(name, net_name="mlp"):
        net, x = make_net(net_name)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        triple = (net, optimizer, attach(make_method(name), net, optimizer, example=x))
        loop(train, triple, x)
        return triple, x

    return begin


@pytest.mark.parametrize("net_name", ["mlp", "cnn", "functional"])
@pytest.mark.parametrize("name", CLASSES)
def test_method_attached_after_the_weights_were_loaded_goes_on_from_its_saved_state(
    make_net, make_method, train, begun, name, net_name
):
    triple, x = begun(name, net_name)
    state = saved([part.state_dict() for part in triple])
    net, _ = make_net(net_name)
    net.load_state_dict(state[0])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    optimizer.load_state_dict(state[1])
    method = attach(make_method(name), net, optimizer, seed=5, example=x)
    method.load_state_dict(state[2])
    loop(train, triple, x)
    loop(train, (net, optimizer, method), x)
    assert equal(triple[0], net)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["copy", "pickle"])
@pytest.mark.parametrize("name", CLASSES)
def test_copy_of_net_optimizer_and_method_goes_on_like_the_original_and_apart_from_it(train, begun, name, copied):
    triple, x = begun(name)
    other = copied(triple)
    before = [p.detach().clone() for p in triple[0].parameters()]
    loop(train, other, x)
    assert all(torch.equal(p, b) for p, b in zip(triple[0].parameters(), before, strict=True))
    loop(train, triple, x)
    assert equal(triple[0], other[0])


@pytest.mark.parametrize("net_name", ["mlp", "functional"])
def test_copy_of_the_net_alone_records_nothing_for_the_method(begun, net_name):
    (net, _, method), x = begun("redo", net_name)
    target = copy.deepcopy(net)
    net(x)
    seen = [h.clone() for h in method.activations]
    target(2 * x + 1)
    assert len(seen) == 2 and all(torch.equal(h, s) for h, s in zip(method.activations, seen, strict=True))


def test_anchor_and_norms_of_the_start_survive_a_resume(begun, make_net, make_method):
    for kind in (L2Init(strength=1.0), NormProjection()):
        (net, optimizer, _), _ = begun(kind.name)
        start = attach(kind, net, optimizer)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(3.0)
        state, penalty = saved(start.state_dict()), start.penalty().detach()
        resumed = attach(kind, net, optimizer)
        resumed.load_state_dict(state)
        torch.testing.assert_close(resumed.penalty().detach(), penalty)
        resumed.after_step()
        moved = 1.0 if kind.name == "norm_projection" else 3.0
        torch.testing.assert_close(net[2].weight.norm(), moved * resumed.initial[id(net[2].weight)].norm())


def test_state_that_is_loaded_into_two_methods_is_shared_by_neither(begun, make_method):
    (net, optimizer, method), _x = begun("continual_backprop")
    state = method.state_dict()
    others = [attach(make_method("continual_backprop"), net, optimizer) for _ in range(2)]
    for other in others:
        other.load_state_dict(state)
    others[0].state["age"][0].add_(7)
    assert torch.equal(others[1].state["age"][0], method.state["age"][0])


def test_state_of_another_method_or_net_is_refused(begun, make_net, make_method):
    (net, optimizer, method), _ = begun("redo")
    with pytest.raises(ValueError, match=r"saved method='redo'; it must be 'l2_init'"):
        attach(L2Init(), net, optimizer).load_state_dict(method.state_dict())
    other, x = make_net("residual")
    with pytest.raises(ValueError, match="saved shapes="):
        attach(ReDo(), other, example=x).load_state_dict(method.state_dict())


FRESH = """
import sys, torch
from torch import nn
from dyniso.baselines import L2Init, attach
net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
kept = torch.load(sys.argv[1], weights_only=True)
net.load_state_dict(kept["net"])
method = attach(L2Init(strength=2.0), net)
method.load_state_dict(kept["method"])
print(float(method.penalty().detach()))
"""


def test_anchor_is_there_in_a_fresh_process(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    method = attach(L2Init(strength=2.0), net)
    with torch.no_grad():
        net[0].weight.add_(1.0)
    torch.save({"net": net.state_dict(), "method": method.state_dict()}, tmp_path / "kept.pt")
    done = subprocess.run([sys.executable, "-c", FRESH, tmp_path / "kept.pt"], capture_output=True, text=True)
    assert (done.stderr, float(done.stdout)) == ("", pytest.approx(16.0))
