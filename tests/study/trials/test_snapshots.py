"""Weights of one run between tasks are those of the stored run's net."""

import torch

from dyniso.study import train
from dyniso.study.stack import Run
from dyniso.study.tasks import load_source
from dyniso.study.trials.snapshots import snapshots


def test_snapshots_end_at_the_accuracy_that_the_same_run_stores(tiny):
    source = load_source(tiny.stream, torch.device("cpu"))
    method = tiny.method("adam")
    seen = snapshots(tiny, method, 0, source)
    (rows,) = train.train_group(tiny, [Run(method, 0)], source)
    stored = rows[rows["metric"] == "online_accuracy"].set_index("task")["value"]
    assert torch.allclose(torch.tensor(seen.accuracy), torch.tensor(stored[[0, 1]].to_numpy(), dtype=torch.float32))
    norms = rows[(rows["metric"] == "weight_norm")].set_index("task")["value"]
    norm = torch.cat([p.flatten() for p in seen.weights[-1].values()]).norm()
    assert torch.isclose(norm, torch.tensor(norms[1], dtype=torch.float32), rtol=1e-5)


def test_first_snapshot_is_the_initialisation(tiny):
    source = load_source(tiny.stream, torch.device("cpu"))
    first = snapshots(tiny, tiny.method("adam"), 1, source).weights[0]
    net = train.make_net(tiny, tiny.method("adam"), 1, source)
    assert all(torch.equal(first[name], p) for name, p in net.named_parameters())


def test_the_net_meets_a_change_of_task_between_two_tasks_and_none_before_the_first(tiny, monkeypatch):
    met, original = [], train.Trainer.new_task
    monkeypatch.setattr(train.Trainer, "new_task", lambda self, n: (met.append(n), original(self, n))[1])
    snapshots(tiny, tiny.method("adam"), 0, load_source(tiny.stream, torch.device("cpu")))
    assert met == [1]
