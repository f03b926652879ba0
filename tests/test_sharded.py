"""AdamO on parameters that FSDP2 has spread over two processes: the result of one process."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from dyniso.optim import AdamO, isometry_groups

OPTIONS = [{}, {"isometry_every": 3}, {"weight_decay": 0.1}, {"coupled": True}]


def trained(net, options, strength=0.5):
    """Weights after 12 steps on fixed data, gathered."""
    optimizer = AdamO(isometry_groups(net, isometry_strength=strength), lr=1e-2, **options)
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
    for _ in range(12):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    return [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in net.parameters()]


def net(sharded=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 15), nn.ReLU(), nn.Linear(15, 3))
    if sharded:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for part in (*(m for m in model if isinstance(m, nn.Linear)), model):
            fully_shard(part, mesh=mesh)
        assert all(p.to_local().numel() < p.numel() for p in model.parameters() if p.ndim > 1)
    return model


def work(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    results[rank] = [trained(net(sharded=True), options) for options in OPTIONS]
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(work, args=(port, results), nprocs=2)
        return dict(results)


@pytest.mark.parametrize("case", range(len(OPTIONS)), ids=lambda i: str(OPTIONS[i]))
def test_sharded_weights_end_where_those_of_one_process_do(sharded, case):
    alone = trained(net(), OPTIONS[case])
    for rank in range(2):
        for a, b in zip(alone, sharded[rank][case], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert float((alone[0] - trained(net(), OPTIONS[case], strength=0.0)[0]).abs().max()) > 1e-2
