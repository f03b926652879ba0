"""Continual reinforcement learning: PPO on sequences of games, as the authors' published scripts have it, and smaller.

Every detail that the two suites set differently is a field here. What the paper or the authors' scripts do not say, and
what is changed for two cores, is marked as ours in `sources`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    """A sequence of games. Which game, channels and random numbers come when is a function of (games, seed, visit).

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
    backbone: tuple[int, ...] = ()  # channels of three convolutions, shared by actor and critic; () for none
    frames_as_rows: bool = True  # backbone only: frames are the image's height and its columns the channels

    def __post_init__(self) -> None:
        require_range("net.width", self.width, 2)
        require_range("net.depth", self.depth, 1)
        require_range("net.gain", self.gain, 0, kind=float)
        if self.backbone and (len(self.backbone) != 3 or min(self.backbone) < 1):
            raise ValueError(f"net.backbone={self.backbone}; allowed are () and three positive numbers of channels")
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
            fits = next((n for n in range(self.minibatches, self.batch) if self.batch % n == 0), self.batch)
            raise ValueError(
                f"ppo.minibatches={self.minibatches} does not divide envs * steps = {self.batch}; {fits} does"
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
        if bool(self.net.backbone) != (self.games.suite == "octax"):
            raise ValueError(f"net.backbone={self.net.backbone} with {self.games.suite!r}; convolutions are for octax")
        for method in self.methods:
            if method.optimizer not in ("adam", "adamo") or method.parametrization or method.schedule:
                raise ValueError(
                    f"{method.name}: games take optimizer 'adam' or 'adamo', no parametrization or schedule"
                )

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


# ------------------------------------------------------------------------------------------------------ methods

RATE = 2.5e-4  # of the authors' MinAtar script, constant


def arm(name: str, label: str, **options: Any) -> Method:
    """One arm; Adam's state is cleared at every change of game unless it says otherwise, as in the authors' scripts."""
    options = {"lr": RATE, "reset_optimizer": True} | options
    if "isometry_strength" in options:
        options["optimizer"] = "adamo"
    return Method(name, label, **options)


def with_settings(baseline: str, **settings: Any) -> dict[str, Any]:
    return dict(baseline=baseline, settings=tuple(sorted(settings.items())))


def arms(strength: float) -> tuple[Method, ...]:
    """Every arm; the authors' own are marked in `AUTHORS`, the rest takes their confounds apart or is from elsewhere.

    Args:
        strength: of AdamO. The authors' coefficient .1 multiplies a gradient with factor 2, so it is .05 here.
    """
    pull = dict(isometry_strength=strength)
    return (
        arm("adam", "Adam"),
        arm("adam_kept", "Adam, state kept", reset_optimizer=None),
        arm("adam_no_bias", "Adam, no biases", bias=False),
        arm("maxmin", "MaxMin", activation="maxmin"),
        arm("maxmin_no_bias", "MaxMin, no biases", activation="maxmin", bias=False),
        arm("adamo", "AdamO", **pull),
        arm("adamo_no_bias", "AdamO, no biases", bias=False, **pull),
        arm("maxmin_adamo", "MaxMin, AdamO", activation="maxmin", **pull),
        arm("maxmin_adamo_no_bias", "MaxMin, AdamO, no biases", activation="maxmin", bias=False, **pull),
        arm("l2_init", "L2-Init", **with_settings("l2_init", strength=2e-3, biases=False, head=False)),
        arm("nap", "NaP", bias=False, norm="layernorm_fixed", baseline="norm_projection"),
        arm(
            "spectral", "spectral penalty", **with_settings("spectral_penalty", strength=1e-3, head=False, biases=False)
        ),
        arm("redo", "ReDo", **with_settings("redo", threshold=0.025, every=1000)),
        arm("layernorm", "LayerNorm", norm="layernorm"),
        arm("crelu", "CReLU", activation="crelu"),
        arm("shrink_perturb", "shrink & perturb", **with_settings("shrink_perturb", shrink=0.4, perturb=0.1)),
        arm("fire", "FIRE", baseline="fire"),
        arm("reset_all", "fresh net", **with_settings("reset", layers="all")),
    )


AUTHORS = ("adam", "adamo_no_bias", "maxmin_adamo_no_bias", "l2_init", "nap", "spectral")  # arms of their scripts
SINGLE = "reset_all"  # a fresh agent for every visit: what returns are normalised by
OCTAX_ARMS = ("adam", "maxmin", "adamo_no_bias", "maxmin_adamo_no_bias", "reset_all")

SCRIPTS = "the authors' MinAtar script of January 2026, which is not the paper"
OURS = "ours: changed for two cores"
MINATAR_SOURCES = (
    ("games", f"{SCRIPTS}; names, cycles, order, channel permutation, action mapping"),
    ("games.steps_per_game", f"{SCRIPTS}: 15M, of which 57 whole updates are 14,942,208; smaller tiers: {OURS}"),
    ("games.max_episode_steps", f"the package's own at paper; 500 at check and smoke: {OURS}"),
    ("net", f"{SCRIPTS}: separate 64-64-64-64, orthogonal with gain sqrt 2, heads .01 and 1"),
    ("ppo", f"{SCRIPTS}; fewer environments, steps and minibatches at check and smoke: {OURS}"),
    ("ppo.time_limit", "bootstrapped, as the environments report both ends; the scripts' package folds them: ours"),
    ("methods", f"{SCRIPTS} for {', '.join(AUTHORS)}; the others are controls and methods of other papers: ours"),
    ("methods.isometry_strength", "authors' .1 is .05 here (gradient factor 4) at paper; scaled up at check: ours"),
    ("methods.spectral", "persistent vector, where the authors' restarts at every call: ours"),
    ("methods.reset_optimizer", f"{SCRIPTS}: Adam's state is cleared at every change of game"),
)
MINATAR = GameExperiment(
    "minatar",
    "Continual MinAtar: four games, their channels permuted anew at every visit",
    "smoke",
    Games(names=("breakout", "space_invaders"), cycles=2, steps_per_game=16_384, max_episode_steps=500),
    PolicyNet(width=32, depth=2),
    PPO(envs=32, steps=64, minibatches=8),
    tuple(m for m in arms(strength=1.0) if m.name in ("adam", "maxmin_adamo_no_bias", SINGLE)),
    curve=4,
    sources=MINATAR_SOURCES,
)
OCTAX_PPO = PPO(envs=512, steps=32, minibatches=32, clip_by="value", eps=1e-8)
REINFORCEMENT: dict[str, dict[str, GameExperiment]] = {
    "minatar": {"smoke": MINATAR, "check": MINATAR, "paper": MINATAR}
}
