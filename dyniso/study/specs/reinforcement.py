"""Continual reinforcement learning: PPO on sequences of games, as the authors' published scripts have it, and smaller.

Every detail that the two suites set differently is a field here. What the paper or the authors' scripts do not say, and
what is changed for two cores, is marked as ours in `sources`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...checks import require, require_range
from .model import Comparison, Method
from .theory import tiers

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
        if self.noop_starts and self.suite == "minatar":
            raise ValueError(f"games.noop_starts={self.noop_starts}; MinAtar draws its own starts, only octax takes it")
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
            if method.baseline == "churn" or method.clip_norm is not None:
                raise ValueError(f"{method.name}: games take no baseline 'churn', and clip by ppo.clip_gradient")

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
    """One arm; Adam starts anew at every change of game unless it says otherwise, as in the authors' scripts."""
    options = {"reset_optimizer": True} | options
    if "isometry_strength" in options:
        options["optimizer"] = "adamo"
    return Method(name, label, **options)


def with_settings(baseline: str, **settings: Any) -> dict[str, Any]:
    return dict(baseline=baseline, settings=tuple(sorted(settings.items())))


def arms(lr: float, strength: float) -> tuple[Method, ...]:
    """Every arm; the authors' own are marked in `AUTHORS`, the rest takes their confounds apart or is from elsewhere.

    Args:
        lr: of all. strength: of AdamO; the authors' coefficient .1 is .05 here, their gradient has factor 2.
    """
    pull = dict(isometry_strength=strength)
    made = (
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
    return tuple(replace(method, lr=lr) for method in made)


AUTHORS = ("adam", "adamo_no_bias", "maxmin_adamo_no_bias", "l2_init", "nap", "spectral")  # arms of their scripts
SINGLE = "reset_all"  # a fresh agent for every visit: what returns are normalised by
OCTAX_ARMS = ("adam", "maxmin", "maxmin_no_bias", "adamo_no_bias", "maxmin_adamo_no_bias", SINGLE)
OCTAX_RATE = 5e-4  # of the authors' Octax script, constant
STRENGTH = 0.05  # of both: their coefficient .1, whose gradient has factor 2
PULL = {  # rate x strength x updates of one visit in the authors' scripts: .36 and .98
    "minatar": RATE * STRENGTH * 57 * 512,
    "octax": OCTAX_RATE * STRENGTH * 305 * 128,
}

SCRIPTS = "the authors' scripts of January 2026, which are not the paper"
OURS = "ours: changed for two cores"
METHOD_SOURCES = (
    ("methods", f"{SCRIPTS} for {', '.join(AUTHORS)}; the others are controls and methods of other papers: ours"),
    ("methods.reset_optimizer", f"{SCRIPTS}: Adam's state is cleared at every change of game"),
    ("methods.lr", f"{SCRIPTS}: MinAtar 2.5e-4, Octax 5e-4, constant; 1e-3 at check and smoke: {OURS}"),
    (
        "methods.isometry_strength",
        "the authors' .1, which is .05 here (gradient factor 4), at paper; at check and smoke as much larger as rate x "
        "strength x updates of a visit stays theirs: ours",
    ),
    ("methods.spectral", "the vector of the power method persists, where the authors' is the same at every call: ours"),
)


def matched(suite: str, lr: float, updates: int) -> float:
    """The strength that pulls as much in one visit as the authors' does in theirs, with other rates and updates."""
    return round(PULL[suite] / (lr * updates), 2)


def some(names: Sequence[str], methods: tuple[Method, ...]) -> tuple[Method, ...]:
    return tuple(m for m in methods if m.name in names)


FEW = ("adam", "maxmin_adamo_no_bias", SINGLE)
LEARNED = ("breakout", "space_invaders")  # of the four, those that are visibly learned in a tenth of a million steps
SMALL_PPO = PPO(envs=64, steps=64, minibatches=8)
MINATAR = tiers(
    GameExperiment(
        "minatar",
        "Continual MinAtar: games whose channels are permuted anew at every visit",
        "smoke",
        Games(names=LEARNED, cycles=1, steps_per_game=16_384, max_episode_steps=500),
        PolicyNet(width=32),
        SMALL_PPO,
        some(FEW, arms(1e-3, matched("minatar", 1e-3, 128))),
        curve=4,
        sources=(
            ("games", f"{SCRIPTS}: names, cycles, order, channel permutation, action mapping; two games: {OURS}"),
            ("games.steps_per_game", f"{SCRIPTS}: 15M, in whole updates 14,942,208, at paper; otherwise {OURS}"),
            ("games.max_episode_steps", f"the package's own at paper; 500 at check and smoke: {OURS}"),
            ("net", f"{SCRIPTS}: 64-64-64-64 twice, orthogonal with gain sqrt 2, heads .01 and 1; width 32: {OURS}"),
            ("ppo", f"{SCRIPTS}; fewer environments, steps and minibatches at check and smoke: {OURS}"),
            ("ppo.time_limit", "bootstrapped, since the environments report both ends: ours"),
            *METHOD_SOURCES,
        ),
    ),
    check=dict(
        games=Games(names=LEARNED, cycles=10, steps_per_game=65_536, max_episode_steps=500),
        methods=arms(1e-3, matched("minatar", 1e-3, 512)),
        seeds=(0, 1, 2, 3),
        curve=8,
    ),
    paper=dict(
        games=Games(cycles=20, steps_per_game=57 * 2048 * 128),
        net=PolicyNet(),
        ppo=PPO(),
        methods=arms(RATE, STRENGTH),
        seeds=tuple(range(26, 34)),
        curve=30,
        evaluation_envs=128,
        evaluate="all",
    ),
)
OCTAX_SEQUENCE: dict[str, Any] = dict(suite="octax", order="fixed", permute_channels=False)
OCTAX = tiers(
    GameExperiment(
        "octax",
        "Continual Octax: CHIP-8 games in a fixed order",
        "smoke",
        Games(names=("brix",), cycles=1, steps_per_game=2_048, max_episode_steps=500, **OCTAX_SEQUENCE),
        PolicyNet(width=32, backbone=(8, 16, 16)),
        PPO(envs=16, steps=32, minibatches=4, clip_by="value", eps=1e-8),
        some(FEW, arms(1e-3, matched("octax", 1e-3, 64))),
        curve=4,
        sources=(
            ("games", f"{SCRIPTS}: names, order, cycles; fewer games at check and smoke: {OURS}"),
            ("games.steps_per_game", f"{SCRIPTS}: 5M, in whole updates 4,997,120, at paper; otherwise {OURS}"),
            ("games.max_episode_steps", f"the package's own at paper; 500 at check and smoke: {OURS}"),
            ("net", f"{SCRIPTS}: 32-64-64 channels, frames as rows, heads 64-64-64-64; smaller: {OURS}"),
            ("net.backbone", "ReLU and torch's default initialisation in all arms: ours"),
            ("ppo", f"{SCRIPTS}: 512 x 32, clipped entry by entry; fewer environments and minibatches: {OURS}"),
            ("ppo.time_limit", "bootstrapped, since the environments report both ends: ours"),
            *METHOD_SOURCES,
        ),
    ),
    check=dict(
        games=Games(names=("brix", "blinky"), cycles=3, steps_per_game=81_920, max_episode_steps=500, **OCTAX_SEQUENCE),
        ppo=PPO(envs=32, steps=64, minibatches=8, clip_by="value", eps=1e-8),
        methods=some(OCTAX_ARMS, arms(1e-3, matched("octax", 1e-3, 1280))),
        seeds=(0, 1, 2, 3),
        curve=8,
        evaluation_envs=8,
    ),
    paper=dict(
        games=Games(names=SUITES["octax"], cycles=3, steps_per_game=305 * 512 * 32, **OCTAX_SEQUENCE),
        net=PolicyNet(backbone=(32, 64, 64)),
        ppo=PPO(envs=512, steps=32, minibatches=32, clip_by="value", eps=1e-8),
        methods=arms(OCTAX_RATE, STRENGTH),
        seeds=tuple(range(8)),
        curve=20,
        evaluation_envs=128,
    ),
)
REINFORCEMENT: dict[str, dict[str, GameExperiment]] = {"minatar": MINATAR, "octax": OCTAX}
