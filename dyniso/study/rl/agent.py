"""Actors and critics of several runs as one learner, and the nets that they are made of."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from ... import nets
from ...initialisation import initialise
from ..instruments.stacked import Measures, activation_measures, run_norm, weight_measures
from ..learner import Clip, Learner
from ..specs.model import Method
from ..specs.reinforcement import ACTIONS, GameExperiment
from ..stack import Run

POLICY_GAIN, VALUE_GAIN = 0.01, 1.0  # of the heads, as in the authors' scripts
OWN = {"actor": 0, "critic": 1}  # added to twice the seed of a run: the seed of a part
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
    initialise(made, "default", generator=torch.Generator().manual_seed(seed))
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
    for part, outputs, head_gain in (("actor", ACTIONS, POLICY_GAIN), ("critic", 1, VALUE_GAIN)):
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
            seed=2 * seed + OWN[part],
        )
    return made


class Agent(Learner):
    """Policies and values of a group of runs: a learner whose parts are an actor, a critic, and perhaps a backbone.

    A method acts on actor and critic alone. AdamO pulls their hidden matrices; the authors' Octax script also pulls the
    value's head, one row.

    Args:
        experiment: net and PPO settings. runs: methods x seeds. shape: of one observation. device: where they live.
    """

    def __init__(self, experiment: GameExperiment, runs: list[Run], shape: tuple[int, ...], device: torch.device):
        ppo = experiment.ppo

        def drawn(number: int) -> list[dict[str, nn.Sequential]]:
            return [make_nets(experiment, run.method, run.seed + RENEWED * number, shape) for run in runs]

        super().__init__(
            runs,
            drawn(0),
            device,
            draws={part: [2 * run.seed + own for run in runs] for part, own in OWN.items()},
            renew=drawn,
            schedule="linear" if ppo.anneal else None,
            clip=Clip(ppo.clip_gradient, ppo.clip_by),
            eps=ppo.eps,
        )
        self.initial = [p.detach().clone() for p in self.params.values()]

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
        logits, values = (self.forward(part, x, columns) for part in OWN)
        # not values[..., 0]: its gradient comes transposed, and is rounded otherwise for one run alone
        return logits, values.mT[:, 0]

    def value(self, obs: Tensor, columns: Tensor | None = None) -> Tensor:
        """Values (runs, batch)."""
        return self.parts["critic"](self.features(obs), columns=columns)[..., 0]

    def logits(self, obs: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits (runs, batch, actions)."""
        return self.parts["actor"](self.features(obs), columns=columns)

    def measures(self, probe: Tensor, dead: dict[str, list[Tensor]] | None) -> tuple[Measures, dict[str, list[Tensor]]]:
        """Spectra, norms, dormant units and distance from the start; layers are called "actor.1.weight" and so on.

        Args:
            probe: observations (runs, samples, *shape). dead: of the last call, for the units that woke since.
        """
        found: Measures = {}
        dead_now = {}
        with torch.no_grad():
            x = self.features(probe)
        for part in OWN:
            of_units, dead_now[part] = activation_measures(self.parts[part], x, None if dead is None else dead[part])
            for (layer, metric), value in (of_units | weight_measures(self.parts[part])).items():
                if layer:  # the norm of all weights is that of both nets
                    found[f"{part}.{layer}", metric] = value
        params = list(self.params.values())
        found["", "weight_norm"] = run_norm(params)
        found["", "distance"] = run_norm([p - q for p, q in zip(params, self.initial, strict=True)])
        return found, dead_now
