"""Two games that are learned for two updates each, and the arms that play them."""

from dataclasses import replace

import torch

from dyniso.study.specs import GameExperiment, Method
from dyniso.study.specs.reinforcement import PPO, SINGLE, Games, PolicyNet, arms

CPU = torch.device("cpu")
TINY = GameExperiment(
    "tiny",
    "two games, two updates in each",
    "smoke",
    Games(names=("breakout", "space_invaders"), cycles=1, steps_per_game=256, max_episode_steps=15),
    PolicyNet(width=8, depth=2),
    PPO(envs=8, steps=16, epochs=2, minibatches=2),
    (Method("adam", "Adam", lr=1e-2, reset_optimizer=True),),
    seeds=(0, 3),  # in different games at every time: one run of 8 environments a game everywhere, compiled once
    curve=2,
    evaluation_envs=8,
    probe=64,
)
CONVOLUTIONAL = replace(
    TINY,
    games=Games("octax", ("brix",), steps_per_game=256, permute_channels=False),
    net=PolicyNet(width=8, depth=2, backbone=(4, 4, 4)),
)
SEEDS = TINY.seeds
ACTING = {  # settings with which a method acts within a few steps
    "redo": dict(settings=(("every", 3), ("threshold", 0.5))),
    "l2_init": dict(settings=(("strength", 0.1),)),
    "spectral": dict(settings=(("strength", 0.1),)),
}
RESUMED = ("adam", "adam_kept", "adamo", "maxmin_adamo_no_bias", "l2_init", "nap", "spectral", "redo", "layernorm")
RESUMED += ("crelu", "shrink_perturb", "fire", SINGLE)


def arm(name: str) -> Method:
    """A declared arm, with a rate and settings that show within a few updates."""
    (found,) = [m for m in arms(1e-2, 1.0) if m.name == name]
    return replace(found, **ACTING.get(name, {}))


def only(*names: str, **changes) -> GameExperiment:
    return replace(TINY, methods=tuple(arm(name) for name in names), **changes)
