"""Actors and critics of several runs as one: stacked parameters, one optimizer, one method on top."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from ... import baselines, nets
from ..instruments import Measures, activation_measures, run_norm, weight_measures
from ..specs.model import Method
from ..specs.reinforcement import ACTIONS, GameExperiment
from ..stack import Run, Stack, clip_norm, make_optimizer

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0  # of the heads, as in the authors' scripts
RENEWED = 1_000_003  # times the visit, added to the seed: the nets of a fresh agent
CONVOLUTIONS = (((8, 4), (4, 2)), ((4, 4), (2, 2)), ((3, 3), (1, 1)))  # window and stride (Octax)


class FramesAsRows(nn.Module):
    """(..., frames, rows, columns) -> (..., columns, frames, rows): columns as channels of an image four rows high.

    That is what the Octax package's network, and the authors' copy of it, makes of an observation.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(-1, -3)


def backbone(shape: tuple[int, ...], outputs: tuple[int, ...], frames_as_rows: bool, seed: int) -> nn.Sequential:
    """Three convolutions with ReLU and padding that keeps ceil(size / stride) pixels, then flattened.

    Args:
        shape: (frames, rows, columns) of an observation. outputs: channels of each convolution.
        frames_as_rows: see `FramesAsRows`; otherwise frames are the channels.
        seed: of the initialisation, torch's default law.
    """
    frames, rows, columns = shape
    channels, height, width = (columns, frames, rows) if frames_as_rows else (frames, rows, columns)
    layers: OrderedDict[str, nn.Module] = OrderedDict({"layout": FramesAsRows()} if frames_as_rows else {})
    for index, (out, (window, stride)) in enumerate(zip(outputs, CONVOLUTIONS, strict=True)):
        pads, sizes = [], []
        for size, k, s in zip((height, width), window, stride, strict=True):
            total = max((math.ceil(size / s) - 1) * s + k - size, 0)
            pads.append((total // 2, total - total // 2))
            sizes.append(math.ceil(size / s))
        even = all(before == after for before, after in pads)  # which the convolution pads by itself, faster
        if not even:
            layers[f"pad{index}"] = nn.ZeroPad2d((*pads[1], *pads[0]))
        padding = (pads[0][0], pads[1][0]) if even else 0
        layers[f"conv{index}"] = nn.utils.skip_init(nn.Conv2d, channels, out, window, stride, padding)
        layers[f"relu{index}"] = nn.ReLU()
        channels, (height, width) = out, sizes
    layers["flatten"] = nn.Flatten()
    made = nn.Sequential(layers)
    nets.initialise(made, "default", generator=torch.Generator().manual_seed(seed))
    return made


def make_nets(
    experiment: GameExperiment, method: Method, seed: int, shape: tuple[int, ...]
) -> dict[str, nn.Sequential]:
    """The nets of one run; every method of a seed starts from the same weights wherever the shapes agree."""
    net, made = experiment.net, {}
    features = math.prod(shape)
    if net.backbone:
        made["backbone"] = backbone(shape, net.backbone, net.frames_as_rows, seed)
        with torch.no_grad():
            features = made["backbone"](torch.zeros(1, *shape)).shape[1]
    for part, outputs, head_gain, own in (("actor", ACTIONS, POLICY_GAIN, 0), ("critic", 1, VALUE_GAIN, 1)):
        made[part] = nets.mlp(
            features,
            outputs,
            net.width,
            net.depth,
            method.activation,
            bias=method.bias is not False,
            norm=method.norm or "none",
            gain=net.gain,
            head_gain=head_gain,
            seed=2 * seed + own,
        )
    return made


class Agent:
    """Policies and values of a group of runs that differ only in seed and isometry strength.

    Args:
        experiment: net and PPO settings. runs: methods x seeds. shape: of one observation. device: where they live.
    """

    def __init__(self, experiment: GameExperiment, runs: list[Run], shape: tuple[int, ...], device: torch.device):
        self.method = runs[0].method
        made = [make_nets(experiment, run.method, run.seed, shape) for run in runs]
        self.parts = {part: Stack([nets_of_run[part] for nets_of_run in made], device) for part in made[0]}
        self.params = {f"{part}.{name}": p for part, s in self.parts.items() for name, p in s.params.items()}
        self.optimizer = make_optimizer(runs, self.params, self.regularised, eps=experiment.ppo.eps)
        self.attached: dict[str, baselines.Attached] = {}
        baseline = baselines.make(self.method.baseline, **dict(self.method.settings)) if self.method.baseline else None
        self.renewed = baseline == baselines.Reset("all")
        self.draw = lambda number: [
            make_nets(experiment, run.method, run.seed + RENEWED * number, shape) for run in runs
        ]
        if baseline and not self.renewed:
            for part in ("actor", "critic"):
                layers = self.parts[part].linear_maps()
                elementwise = baselines.is_elementwise(self.parts[part].template)
                seeds = [2 * run.seed + (part == "critic") for run in runs]
                self.attached[part] = baselines.Attached(
                    baseline, layers, self.optimizer, self.parts[part], seeds, 1, elementwise
                )
        self.initial = [p.detach().clone() for p in self.params.values()]

    def regularised(self) -> list[str]:
        """Names of the weights that AdamO pulls: hidden matrices of actor and critic; heads and convolutions are left.

        The authors' Octax script also pulls the value's head, one row.
        """
        return [f"{part}.{name}" for part in ("actor", "critic") for name in self.parts[part].regularised()]

    def features(self, obs: Tensor) -> Tensor:
        """What actor and critic see, (runs, batch, ...), of observations (runs, batch, *shape), bool."""
        x = obs.float()
        return self.parts["backbone"](x) if "backbone" in self.parts else x

    def __call__(self, obs: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (runs, batch, actions) and values (runs, batch); what a method on top wants to see is recorded.

        Args:
            obs: (runs, batch, *shape), bool. columns: see `Envs`; None for whole observations.
        """
        x = self.features(obs)
        outputs = {}
        for part in ("actor", "critic"):
            seen: list[Tensor] | None = [] if part in self.attached else None
            outputs[part] = self.parts[part](x, seen, columns)
            if seen is not None:
                self.attached[part].inputs, self.attached[part].activations = x, seen
        return outputs["actor"], outputs["critic"][..., 0]

    def value(self, obs: Tensor, columns: Tensor | None = None) -> Tensor:
        """Values (runs, batch)."""
        return self.parts["critic"](self.features(obs), columns=columns)[..., 0]

    def logits(self, obs: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits (runs, batch, actions)."""
        return self.parts["actor"](self.features(obs), columns=columns)

    def penalty(self) -> Tensor:
        """What the method adds to the loss, summed over runs."""
        return torch.stack([a.penalty().sum() for a in self.attached.values()]).sum()

    def clip(self, limit: float, by: str) -> None:
        """Clip the gradients: by the global norm of each run, or entry by entry."""
        if by == "norm":
            clip_norm(self.params.values(), limit)
        else:
            for p in self.params.values():
                if p.grad is not None:
                    p.grad.clamp_(-limit, limit)

    @torch.no_grad()
    def new_game(self, number: int) -> None:
        """What happens at the change to visit `number`; a fresh agent is drawn as the first one was, head and all."""
        if self.method.reset_optimizer:
            baselines.forget(self.optimizer)
        for attached in self.attached.values():
            attached.new_task()
        if self.renewed:
            drawn = self.draw(number)
            for part, stack in self.parts.items():
                for name, p in stack.params.items():
                    p.copy_(torch.stack([nets_of_run[part].get_parameter(name) for nets_of_run in drawn]))

    def finite(self) -> Tensor:
        """Which runs have only finite parameters, (runs,), bool."""
        return torch.stack([part.finite() for part in self.parts.values()]).all(0)

    def give_up(self, runs: list[int]) -> None:
        """Make the parameters of runs that have diverged NaN."""
        for part in self.parts.values():
            part.give_up(runs)

    def measures(self, probe: Tensor, dead: dict[str, list[Tensor]] | None) -> tuple[Measures, dict[str, list[Tensor]]]:
        """Spectra, norms, dormant units and distance from the start; layers are called "actor.1.weight" and so on.

        Args:
            probe: observations (runs, samples, *shape). dead: of the last call, for the units that woke since.
        """
        found: Measures = {}
        dead_now = {}
        with torch.no_grad():
            x = self.features(probe)
        for part in ("actor", "critic"):
            of_units, dead_now[part] = activation_measures(self.parts[part], x, None if dead is None else dead[part])
            for (layer, metric), value in (of_units | weight_measures(self.parts[part])).items():
                if layer:  # the norm of all weights is that of both nets
                    found[f"{part}.{layer}", metric] = value
        params = list(self.params.values())
        found["", "weight_norm"] = run_norm(params)
        found["", "distance"] = run_norm([p - q for p, q in zip(params, self.initial, strict=True)])
        return found, dead_now

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while it trains."""
        return {
            "params": {name: p.detach() for name, p in self.params.items()},
            "optimizer": self.optimizer.state_dict(),
            "attached": {part: a.state_dict() for part, a in self.attached.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, p in self.params.items():
            p.copy_(state["params"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        for part, attached in self.attached.items():
            attached.load_state_dict(state["attached"][part])
