"""Every method acts on a net that lives on a GPU, and says why its draws cannot go on elsewhere."""

import pytest
import torch

from dyniso.baselines import CLASSES, attach

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.mark.parametrize("net_name", ["mlp", "cnn", "functional"])
@pytest.mark.parametrize("name", CLASSES)
def test_method_acts_on_a_gpu_and_its_draws_go_on_there_alone(make_net, make_method, train, name, net_name):
    net, x = make_net(net_name)
    before = [p.detach().clone() for p in net.parameters()]
    net.cuda()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    method = attach(make_method(name), net, optimizer, example=x.cuda())
    train(net, x.cuda(), optimizer, method)
    after = [p.detach().cpu() for p in net.parameters()]
    assert all(bool(torch.isfinite(p).all()) for p in after)
    assert any(not torch.equal(p, b) for p, b in zip(after, before, strict=True))
    other, _ = make_net(net_name)
    resumed = attach(make_method(name), other, torch.optim.Adam(other.parameters()), example=x)
    with pytest.raises(ValueError, match="saved random states="):
        resumed.load_state_dict(method.state_dict())
    method.load_state_dict(method.state_dict())
