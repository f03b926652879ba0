"""The core gives on a GPU what it gives on a CPU: one small case a function, in float64 where the function takes it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dyniso import (
    AdamO,
    activation,
    dead_units,
    dormancy_score,
    empirical_ntk,
    gram_deviation,
    gram_deviation_grad,
    hidden_activations,
    initialise,
    isometry_groups,
    ntk_summary,
    orthogonalise,
    polar_factor,
    report_model,
    singular_values,
    spectrum_summary,
    trace_activations,
)
from dyniso.nets import cnn, mlp

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

W = torch.randn(3, 12, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
X = torch.randn(16, 10, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def net(device: str, act: str = "relu") -> nn.Module:
    return mlp(10, 3, 8, 2, activation=act, seed=0).to(device)


def hidden(device: str) -> Tensor:
    """Activations of the first hidden layer."""
    with hidden_activations(model := net(device)) as seen:
        model(X.to(device))
    return seen[0]


def trained(device: str, every: int) -> Tensor:
    """Weights of the second layer after 20 steps on fixed data."""
    model = net(device)
    optimizer = AdamO(isometry_groups(model, isometry_strength=0.1), lr=1e-2, isometry_every=every)
    for _ in range(20):
        optimizer.zero_grad()
        model(X.to(device)).square().mean().backward()
        optimizer.step()
    return next(m for m in list(model.modules())[::-1] if isinstance(m, nn.Linear)).weight.detach()


CASES: dict[str, Callable[[str], Tensor]] = {
    "gram deviation": lambda d: gram_deviation(W.to(d)),
    "its gradient": lambda d: gram_deviation_grad(W.to(d)),
    "singular values": lambda d: singular_values(W.to(d)),
    "spectrum summary": lambda d: torch.stack(spectrum_summary(W.to(d))),
    "polar factor by svd": lambda d: polar_factor(W.to(d)),
    "polar factor by Newton-Schulz": lambda d: polar_factor(W.to(d), "newton_schulz"),
    "a Muon step's factor": lambda d: orthogonalise(W.to(d), "muon", 5),
    "kernel of an MLP": lambda d: empirical_ntk(net(d), X.to(d)),
    "kernel of a CNN": lambda d: empirical_ntk(cnn((3, 32, 32), 4, seed=0).to(d), IMAGES.to(d)),
    "kernel by Jacobians": lambda d: empirical_ntk(net(d), X.to(d), method="jacobian"),
    "kernel's summary": lambda d: torch.stack(ntk_summary(empirical_ntk(net(d), X.to(d)))[1:]),
    "dormancy": lambda d: dormancy_score(hidden(d)),
    "traced pass": lambda d: trace_activations(net(d), X.to(d))[1].by_unit(),
    "report": lambda d: torch.tensor(report_model(net(d), X.to(d)).layers[1][2:8], device=d),
    "dead units": lambda d: dead_units(hidden(d)).double(),
    "AdamO": lambda d: trained(d, 1),
    "lazy AdamO": lambda d: trained(d, 5),
    "MaxMin": lambda d: activation("maxmin")(X.to(d)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_what_a_cpu_gives(name):
    on_cpu, on_cuda = CASES[name]("cpu"), CASES[name]("cuda")
    assert on_cuda.device.type == "cuda"
    torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=2e-4, atol=2e-5)


def test_a_net_on_a_gpu_is_initialised_there():
    model = initialise(net("cuda"), "orthogonal")
    weights = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Linear)]
    assert max(float(gram_deviation(w)) for w in weights) < 1e-6
