"""Continual reinforcement learning: PPO on sequences of games, as the authors' published scripts have it, and smaller.

Every detail that the two suites set differently is a field here. What the paper or the authors' scripts do not say, and
what is changed for two cores, is marked as ours in `sources`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .model import Comparison, Method, require, require_range

ACTIONS = 6  # of the agent, in every game of both suites
SUITES = {
    "minatar": ("breakout", "asterix", "space_invaders", "freeway", "seaquest"),
    "octax": ("brix", "submarine", "filter", "tank", "blinky", "missile", "ufo", "wipe_off"),
}
OBSERVATIONS = {"minatar": (10, 10, 10), "octax": (4, 32, 64)}  # rows, columns, channels; frames, rows, columns


@dataclass(frozen=True)
class Games:
    """A sequence of games. Which game, channel order and random numbers come when is a function of (games, seed, visit).

    A visit is one stay in a game: visit v is game v % len(names) of the order of cycle v // len(names).
    """

    suite: str = "minatar"
    names: tuple[str, ...] = ("breakout", "asterix", "space_invaders", "freeway")
    cycles: int = 2
    steps_per_game: int = 65_536  # environment steps of one visit, over all environments of a run
    order: str = "shuffled"  # anew each cycle; or "fixed"
    permute_channels: bool = True  # of the padded observation, anew each visit
    invalid_action: str = "first"  # an action that a game does not have becomes its action 0; or "noop"
    sticky: float = 0.0  # probability that the last action is repeated
    noop_starts: int = 0  # at most so many no-ops after a reset, drawn evenly
    max_episode_steps: int | None = None  # None: the package's own

    def __post_init__(self) -> None:
        require("games.suite", self.suite, SUITES)
        for name in self.names:
            require("games.names", name, SUITES[self.suite])
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"games.names={self.names}; they need at least one game, each once")
        require_range("games.cycles", self.cycles, 1)
        require_range("games.steps_per_game", self.steps_per_game, 1)
        require("games.order", self.order, ("shuffled", "fixed"))
        require("games.permute_channels", self.permute_channels, (True, False))
        if self.permute_channels and self.suite == "octax":
            raise ValueError("games.permute_channels=True; the frames of octax have no channels to permute")
        require("games.invalid_action", self.invalid_action, ("first", "noop"))
        require_range("games.sticky", self.sticky, 0, 1, kind=float)
        require_range("games.noop_starts", self.noop_starts, 0, 1000)
        if self.max_episode_steps is not None:
            require_range("games.max_episode_steps", self.max_episode_steps, 1)

    @property
    def visits(self) -> int:
        return self.cycles * len(self.names)


@dataclass(frozen=True)
class PolicyNet:
    """Actor and critic: MLPs of one shape, each on the observation or on a shared convolutional backbone."""

    width: int = 64
    depth: int = 4
    gain: float = 2**0.5  # of the orthogonal hidden weights; the policy's head has .01, the value's 1
    backbone: bool = False  # three convolutions, shared by actor and critic
    frames_as_rows: bool = True  # backbone only: frames are the image's height and its columns the channels

    def __post_init__(self) -> None:
        require_range("net.width", self.width, 2)
        require_range("net.depth", self.depth, 1)
        require_range("net.gain", self.gain, 0, kind=float)
        require("net.backbone", self.backbone, (True, False))
        require("net.frames_as_rows", self.frames_as_rows, (True, False))


@dataclass(frozen=True)
class PPO:
    """Proximal policy optimisation (Schulman et al. 2017): one set of rules for all methods of an experiment."""

    envs: int = 2048
    steps: int = 128  # of every environment between two updates
    epochs: int = 4
    minibatches: int = 128
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2  # of the probability ratio
    clip_value: bool = True  # by the same amount
    entropy: float = 0.01
    value_weight: float = 0.5
    clip_gradient: float = 0.5
    clip_by: str = "norm"  # of all gradients of a run; or "value": each entry
    normalise_advantages: bool = True  # in each minibatch
    anneal: bool = False  # the learning rate, to zero over each visit
    eps: float = 1e-5  # Adam's
    time_limit: str = "bootstrap"  # a truncated episode is worth what the critic says; "terminate": nothing

    def __post_init__(self) -> None:
        for name in ("envs", "steps", "epochs", "minibatches"):
            require_range(f"ppo.{name}", getattr(self, name), 1)
        for name in ("gamma", "gae_lambda"):
            require_range(f"ppo.{name}", getattr(self, name), 0, 1, kind=float)
        for name in ("clip", "entropy", "value_weight", "clip_gradient", "eps"):
            require_range(f"ppo.{name}", getattr(self, name), 0, kind=float)
        for name in ("clip_value", "normalise_advantages", "anneal"):
            require(f"ppo.{name}", getattr(self, name), (True, False))
        require("ppo.clip_by", self.clip_by, ("norm", "value"))
        require("ppo.time_limit", self.time_limit, ("bootstrap", "terminate"))
        if self.batch % self.minibatches:
            raise ValueError(
                f"ppo: envs * steps = {self.batch} does not divide into minibatches={self.minibatches}; "
                f"the next that does is {next(n for n in range(self.minibatches, self.batch + 1) if self.batch % n == 0)}"
            )

    @property
    def batch(self) -> int:
        """Environment steps between two updates."""
        return self.envs * self.steps


@dataclass(frozen=True)
class GameExperiment(Comparison):
    """A comparison on a sequence of games: one net and one PPO, several methods, several seeds."""

    name: str
    title: str
    tier: str
    games: Games
    net: PolicyNet
    ppo: PPO
    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0, 1)
    curve: int = 8  # points of the return curve of each visit
    evaluation_envs: int = 32  # evaluation episodes after each visit
    evaluate: str = "current"  # the game of the visit; or "all" games of the sequence
    probe: int = 256  # observations on which activations are read
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        self.check_arms()
        iterations, rest = divmod(self.games.steps_per_game, self.ppo.batch)
        if rest or not iterations:
            down, up = self.ppo.batch * max(1, iterations), self.ppo.batch * (iterations + 1)
            raise ValueError(
                f"games.steps_per_game={self.games.steps_per_game} is no multiple of ppo.envs * ppo.steps = "
                f"{self.ppo.batch}; the nearest are {down} and {up}"
            )
        require_range("curve", self.curve, 1, iterations)
        require_range("evaluation_envs", self.evaluation_envs, 1)
        require("evaluate", self.evaluate, ("current", "all"))
        require_range("probe", self.probe, 64, self.ppo.batch)
        require("net.backbone", self.net.backbone, (self.games.suite == "octax",))
        for method in self.methods:
            if method.optimizer not in ("adam", "adamo") or method.parametrization or method.schedule:
                raise ValueError(f"{method.name}: games take optimizer 'adam' or 'adamo', no parametrization or schedule")

    @property
    def iterations(self) -> int:
        """Updates of one visit."""
        return self.games.steps_per_game // self.ppo.batch

    @property
    def score(self) -> str:
        """The metric that says how well a visit went while it was learned."""
        return "return"

    @property
    def tasks(self) -> int:
        return self.games.visits

    @property
    def size(self) -> str:
        """One phrase for a list."""
        return (
            f"{self.net.depth} x {self.net.width}, {self.games.cycles} cycles x {len(self.games.names)} games x "
            f"{self.games.steps_per_game:,} steps of {self.ppo.envs} environments"
        )
