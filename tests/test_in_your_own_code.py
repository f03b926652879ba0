"""The code blocks of the chapter "In your own code" that the book does not execute, run as they stand."""

import os
import re
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from dyniso import AdamO, isometry_groups, mlp

CHAPTER = Path(__file__).parents[1] / "notebooks" / "in_your_own_code.py"
MARKDOWN = "\n".join(line[2:] for line in CHAPTER.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
BLOCKS = re.findall(r"```python\n(.*?)```", MARKDOWN.replace("\n\n", "\n"), re.DOTALL)


def block(word):
    """The one code block that holds a word."""
    (found,) = [text for text in BLOCKS if word in text]
    return found


def data():
    g = torch.Generator().manual_seed(0)
    return torch.randn(64, 12, generator=g), torch.randint(3, (64,), generator=g)


def test_every_block_of_the_chapter_is_run_here():
    assert len(BLOCKS) == sum(len([b for b in BLOCKS if word in b]) for word in ("ddp", "lightning", "transformers"))


def test_groups_of_a_distributed_model_train_it():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=0, world_size=1)
    try:
        scope = {"nn": nn, "AdamO": AdamO, "isometry_groups": isometry_groups, "model": mlp(12, 3, width=8, depth=2)}
        exec(block("ddp"), scope)
        x, y = data()
        before = [p.detach().clone() for p in scope["model"].parameters()]
        nn.functional.cross_entropy(scope["ddp"](x), y).backward()
        scope["optimizer"].step()
    finally:
        dist.destroy_process_group()
    assert scope["optimizer"].param_groups[0]["isometry_strength"] == 0.5
    assert not any(torch.equal(a, b) for a, b in zip(before, scope["model"].parameters(), strict=True))


def test_lightning_trains_with_the_optimizer(tmp_path):
    lightning = pytest.importorskip("lightning")
    scope = {"nn": nn, "AdamO": AdamO, "isometry_groups": isometry_groups, "lightning": lightning}
    exec(block("lightning"), scope)
    model = mlp(12, 3, width=8, depth=2)
    before = model[3].weight.detach().clone()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=16)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(scope["Lit"](model), loader)
    assert isinstance(trainer.optimizers[0], AdamO) and not torch.equal(before, model[3].weight)


def test_trainer_of_transformers_trains_with_the_optimizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.GPT2Config(vocab_size=16, n_positions=8, n_embd=12, n_layer=1, n_head=2, num_labels=2)
    config.pad_token_id = 0
    model = transformers.GPT2ForSequenceClassification(config)
    groups = isometry_groups(model, head="score")
    assert groups.pulled["transformer.h.0.attn.c_attn.weight"] == "3 maps of 12 x 12"
    dataset = [{"input_ids": torch.arange(1, 7), "labels": torch.tensor(i % 2)} for i in range(16)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True
    )
    before = model.transformer.h[0].attn.c_attn.weight.detach().clone()
    scope = {"AdamO": AdamO, "isometry_groups": isometry_groups, "transformers": transformers, "model": model}
    exec(block("transformers"), scope | {"arguments": arguments, "dataset": dataset})
    assert not torch.equal(before, model.transformer.h[0].attn.c_attn.weight)
