# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Continual Octax
#
# **Question.** Does what {doc}`continual_minatar` finds carry over to games with pixels, a shared convolutional network
# and other details of PPO?
#
# **Why it matters.** Octax {cite:p}`radji2025` runs programs for the CHIP-8, a virtual machine of the seventies, in JAX. It
# is the paper's second suite. Nothing is permuted here: the same games come back as they were, so an agent may also gain
# from what it remembers. The games are fast on a GPU and slow on a processor, so here a laptop's limits show.

# %% tags=["parameters", "hide-input"]
seed = 0  # 0..1000000: of the bootstrap, and of the games that are drawn below

# %% tags=["hide-input"]
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from dyniso.report.figures import arms as arm_figures, film
from dyniso.report import arms, claims, figures, returns
from dyniso.report.notebook import claim, show, show_table, stamp
from dyniso.report.results import Results
from dyniso.stats import with_interval
from dyniso.study import specs, store
from dyniso.study.rl.agent import backbone
from dyniso.study.rl.envs import random_return
from dyniso.study.rl.games import native_actions
from dyniso.study.rl.watch import watch
from dyniso.study.specs.reinforcement import ACTIONS, AUTHORS, OBSERVATIONS, SINGLE

started = time.perf_counter()
results, paper = Results.stored("octax"), specs.find("octax", "paper")
stored, labels = results.experiment, results.labels
games, cycles, seeds = stored.games, stored.games.cycles, len(stored.seeds)
table = results.visits()

# %% [markdown]
# ## What the paper says, and what its scripts do
#
# > Octax: brix, submarine, filter, tank, blinky, missile, ufo and wipeoff, in this order, three cycles of five million steps
# > a game, with the shared backbone of the Octax paper {cite:p}`rosseau2026`.
#
# Which arm ends where is not known to us. The scripts that one of the authors published say that actor and critic, four
# layers of 64 each, stand on three convolutions; that gradients are clipped entry by entry instead of by their norm; and
# that the optimizer's state is cleared at every change of game. They ran two seeds.
#
# ## The games

# %% tags=["hide-input"]
every = replace(games, names=paper.games.names)
strips = {name: film.strip(film.pictures("octax", watch(every, name, None, 96, seed, 32))) for name in every.names}
maps = {name: native_actions(every, name) for name in every.names}
show(
    arm_figures.strips_figure(strips, 8.4),
    pd.DataFrame({"game": maps.keys(), "actions": [len(set(m)) for m in maps.values()]}),
    name="fig-octax-games",
    caption="Four frames of random play, 32 steps apart, of the eight games of the paper: 64 × 32 pixels, on or off. The experiments at hand "
    f"use {' and '.join(games.names)}.",
    alt="Eight strips of four dark frames each, among them bricks above a ball and a paddle, and a maze full of dots.",
)
maps = {name: maps[name] for name in games.names}

# %% [markdown]
# A step of the agent holds one key down for four frames, 44 instructions of the machine; the reward is the change of a score
# that the program keeps in a register. Every episode starts from the same state, so chance enters through the policy, and
# in some programs through the machine's own random numbers.

# %% tags=["hide-input"]
claim(
    "octax-actions",
    f"Of the agent's {ACTIONS} actions, {' and '.join(f'{len(set(m))} differ in {n}' for n, m in maps.items())}; the others do what the first one "
    "does, which is to press a key and not to wait.",
    all(m[len(set(m)) :] == (0,) * (ACTIONS - len(set(m))) for m in maps.values()),
)

# %% [markdown]
# The package is young. Our tests run it beside a CHIP-8 of our own, frame by frame: it departs from the machine in three
# instructions (two write a flag where they should not, one jumps elsewhere), and its timers count once a step of the agent
# and wrap around below zero. All agents meet the same machine, so this does not bear on comparisons.
#
# ## Frames as rows
#
# An observation is four frames of 32 × 64 pixels. The Octax package hands them to a convolution that expects channels last,
# so the four frames become the *height* of an image 32 wide, and the 64 columns of pixels its *channels*; the authors keep
# it. The first window, 8 × 4, is taller than the image.

# %% tags=["hide-input"]
rows = []
for name, as_rows in (("as in the scripts", True), ("frames as channels", False)):
    x = torch.zeros(1, *OBSERVATIONS["octax"])
    with torch.no_grad():
        for layer in backbone(OBSERVATIONS["octax"], paper.net.backbone, as_rows, 0):
            x = layer(x)
            if isinstance(layer, torch.nn.Conv2d):
                rows.append(
                    {
                        "layout": name,
                        "window": "x".join(map(str, layer.kernel_size)),
                        "from": layer.in_channels,
                        "to": "x".join(map(str, x.shape[1:])),
                    }
                )
show_table(rows)
features = {r["layout"]: np.prod([int(v) for v in r["to"].split("x")]) for r in rows}
claim(
    "octax-backbone-layout",
    f"Laid out as in the scripts the backbone hands on {features['as in the scripts']:,} features, with frames as channels it would be "
    f"{features['frames as channels']:,}.",
    features["as in the scripts"] < features["frames as channels"],
)

# %% [markdown]
# ## Scale

# %% tags=["hide-input"]
runs = store.read_compact(stored).drop_duplicates(["method", "seed"])
steps, whole = (e.games.steps_per_game * e.games.visits for e in (stored, paper))
rate = steps * len(runs) / float((runs["wall_s"] / runs["stacked_runs"].astype(int)).sum())

# %% tags=["hide-input"]
scale = [
    ("games", lambda e: ", ".join(n.replace("_", " ") for n in e.games.names)),
    ("cycles", lambda e: e.games.cycles),
    ("steps a visit", lambda e: f"{e.games.steps_per_game:,}"),
    ("environments x steps", lambda e: f"{e.ppo.envs:,} x {e.ppo.steps}"),
    ("updates a run", lambda e: f"{e.tasks * e.iterations * e.ppo.epochs * e.ppo.minibatches:,}"),
    ("channels of the backbone", lambda e: ", ".join(map(str, e.net.backbone))),
    ("actor and critic", lambda e: f"{e.net.depth} x {e.net.width}"),
    ("learning rate", lambda e: f"{e.methods[0].lr:g}"),
    ("strength of AdamO", lambda e: f"{e.method('adamo_no_bias').isometry_strength:g}"),
    ("longest episode", lambda e: e.games.max_episode_steps or "4,500"),
    ("arms", lambda e: len(e.methods)),
    ("seeds", lambda e: len(e.seeds)),
]
show_table([{"": what, "tier paper": of(paper), "stored here (check)": of(stored)} for what, of in scale])
claim(
    "octax-speed",
    f"On {results.hardware}, one thread, a process makes {rate:,.0f} steps a second, learning included, with four or eight runs side by side. At that rate the "
    f"authors' protocol, {whole / 1e6:.0f} million steps, would take {whole / rate / 3600:.0f} hours for each run even with the small net; the runs here have "
    f"{steps / 1e6:.2f} million.",
    whole / rate > 10 * 3600,
)

# %% [markdown]
# Much of that time goes into the games. So two games are left of the eight, chosen from short
# trials with Adam as those that are learned soonest; six arms of eighteen; and a smaller net. The strength of AdamO is
# again set so that it pulls as far within a visit as the authors' does. **What follows is a small test, with many fewer
# updates than the scripts make.**
#
# ## Is anything learned?
#
# A fresh net at every visit is the single-task agent: what all returns are divided by. A point of a curve is the mean return
# of the balls that were lost in an eighth of the visit, in brix; episodes of blinky are as long as the time limit lets them, so
# there it is the reward in 1,000 steps.


# %%
MEASURES = {"brix": ("return", "return of a ball"), "blinky": ("reward_rate", "reward in 1,000 steps")}
fig, curve = arm_figures.each_cycle_figure(results, MEASURES)
show(
    fig,
    curve.assign(label=curve["method"].map(labels)),
    name="fig-octax-curves",
    caption=f"In brix a fresh net falls behind those that go on. Within each visit: return of a ball in brix, reward in 1,000 steps in blinky, mean "
    f"over {seeds} seeds.",
    alt="Six panels, two games by three cycles, with one rising curve for each of six arms; in brix the fresh net falls behind in later cycles.",
)

# %% tags=["hide-input"]
evaluated = results.visits("evaluation_return")
fresh_evaluated = evaluated[evaluated["method"] == SINGLE].groupby("game")["evaluation_return"]
typical = fresh_evaluated.median()
by_chance = {game: random_return(games, game, 32, seed) for game in games.names}
# %% tags=["hide-input"]
claim(
    "octax-games-are-learned-a-little",
    f"Something is learned within a visit, and not much: in evaluation after the median visit a fresh net has {typical['brix']:.1f} in brix and {typical['blinky']:.1f} "
    f"in blinky, where random play has {by_chance['brix']:.1f} and {by_chance['blinky']:.1f}. One visit to brix of {int(fresh_evaluated.size()['brix'])} ends at "
    f"{fresh_evaluated.max()['brix']:.1f}: chance is large here.",
    all(1.2 * by_chance[game] < typical[game] < 3 * by_chance[game] for game in games.names)
    and fresh_evaluated.max()["brix"] > 5 * typical["brix"],
)

# %% [markdown]
# ## Over the cycles


# %%
fig, points = figures.cycles_figure(results.frame, stored, ["return"])
show(
    fig,
    points,
    name="fig-octax-cycles",
    caption=f"No arm loses surely from cycle to cycle. Return over that of a fresh net in the same game: interquartile mean over {len(games.names)} games "
    f"and {seeds} seeds, shaded: 95 % stratified bootstrap interval. One: as good as starting anew.",
    alt="Normalised return of six arms over three cycles.",
)

# %% tags=["hide-input"]
board = {row.arm: row for row in arms.board(results, "last", seed)}
over_median = evaluated.assign(score=evaluated["evaluation_return"] / evaluated["game"].map(typical))
scores = {name: returns.scores(over_median, name, [cycles - 1], games.names) for name in labels}
show_table(
    [
        {
            "arm": labels[name] + (" (authors')" if name in AUTHORS else ""),
            "score, last cycle": with_interval(*board[name].scores["return"], ".2f"),
            **{f"in {game}": f"{board[name].games[game]:.2f}" for game in games.names},
            "in evaluation, over a fresh net's median": with_interval(
                *returns.aggregate(scores[name], seed=seed), ".2f"
            ),
            "area under the curves": f"{board[name].area:.2f}",
            "last minus first cycle": with_interval(*board[name].change),
        }
        for name in labels
    ]
)

# %% tags=["hide-input"]
going_on = {name: row for name, row in board.items() if name != SINGLE}
risen = [name for name, row in going_on.items() if row.change.low > 0]
fallen = [name for name, row in going_on.items() if row.change.high < 0]
moves = {m: results.scores(m, "last").mean(1) - results.scores(m, "first").mean(1) for m in going_on}
(least_brix, least_blinky), (most_brix, most_blinky) = np.min(list(moves.values()), 0), np.max(list(moves.values()), 0)
claim(
    "no-octax-arm-loses-surely",
    f"No arm loses surely, {len(fallen)} of {len(going_on)}, and {len(risen)} rise surely from the first cycle to the last. The rise is that of brix, {least_brix:+.2f} to "
    f"{most_brix:+.2f}; blinky changes by {least_blinky:+.2f} to {most_blinky:+.2f}. Adam changes by {with_interval(*board['adam'].change)}.",
    not fallen
    and "adam" in risen
    and len(risen) >= 3
    and least_brix > 0.3
    and least_blinky < 0 < most_blinky < least_brix,
)
failed = arms.failed(results, going_on)
best = max(going_on, key=lambda name: going_on[name].scores["return"].value)
last = [row.scores["return"] for row in going_on.values()]
values, in_blinky = [score.value for score in last], sum(row.games["blinky"] > 1 for row in going_on.values())
claim(
    "octax-arms-overlap",
    f"In the last cycle they are between {min(values):.2f} and {max(values):.2f} times a fresh net, {labels[best]} in front, and their intervals overlap. In brix all "
    f"are above it, in blinky {in_blinky} of {len(going_on)} is.",
    best == "adam"
    and max(score.low for score in last) < min(score.high for score in last)
    and all(row.games["brix"] > 1.2 for row in going_on.values())
    and in_blinky == 1,
)
adam, ours = board["adam"].games, board["maxmin_adamo_no_bias"].games
claim(
    "octax-games-disagree",
    f"The two games disagree: in brix Adam has {adam['brix']:.2f} and the authors' main arm {ours['brix']:.2f}, in blinky Adam {adam['blinky']:.2f} "
    f"and that arm {ours['blinky']:.2f}.",
    adam["brix"] > 1.1 * ours["brix"] and ours["blinky"] > 1.1 * adam["blinky"],
)
claim(
    "no-octax-visit-fails",
    f"No visit fails as some do on MinAtar, below half of a fresh net: {len(failed)} of {len(going_on) * seeds * games.visits}; the lowest is at "
    f"{table.loc[table['method'].isin(list(going_on)), 'score'].min():.2f}.",
    failed.empty,
)

# %% [markdown]
# ## Taking the authors' arm apart
#
# The effects that `dyniso claims` judges, over the last cycle: a difference of scores, paired by seed and game, its
# interquartile mean with an interval.

# %% tags=["hide-input"]
EFFECTS = {
    "maxmin_adamo_beats_adam": "the authors' main arm minus Adam: MaxMin, no biases, penalty at once",
    "adamo_beats_adam": "their arm with ReLU minus Adam: no biases and penalty",
    "maxmin_alone_beats_adam": "MaxMin instead of ReLU alone",
    "penalty_adds_to_maxmin": "the penalty on top of MaxMin without biases",
}
effects = {id: claims.effect(f"octax_{id}", results) for id in EFFECTS}
show_table([{"what changes": what, "score": with_interval(*effects[id])} for id, what in EFFECTS.items()])
claim(
    "no-octax-effect-is-sure",
    "None of the four is sure: every interval has zero in it.",
    all(low < 0 < high for _, low, high in effects.values()),
)

# %% [markdown]
# ## What the instruments say
#
# Before each visit the kernel of the actor is measured on the features of 64 observations of random play in the new game;
# after it the weights, the activations on 256 such observations, and the distance from the first parameters.

# %% tags=["hide-input"]
FOUR = ("isometry_defect", "dormant_0.025", "P_100", "distance")
fig, moved = figures.cycles_figure(results.frame, stored, FOUR)
show(
    fig,
    moved,
    name="fig-octax-instruments",
    caption=f"AdamO holds isometry, and the kernel gets better in every arm that goes on. Isometry defect and dormant units of actor and critic, $P_{{100}}$ of the actor before a visit, and distance from the first weights: "
    f"mean over the two visits of a cycle and {seeds} seeds, shaded: 95 % intervals. The distance of a fresh net is to another draw.",
    alt="Four panels over three cycles, six curves each.",
)
by_cycle = moved.pivot_table(index=["metric", "method"], columns="task", values="mean")


dormant = {
    (name, part): results.mean("dormant_0.025", name, arms.last_cycles(results, 1), part)
    for name in labels
    for part in ("actor", "critic")
}
ends = {key: row.iloc[[0, -1]].tolist() for key, row in by_cycle.iterrows()}  # of the first and the last cycle

# %% tags=["hide-input"]
pulled, free = ("adamo_no_bias", "maxmin_adamo_no_bias"), ("adam", "maxmin", "maxmin_no_bias")
claim(
    "octax-pull-does-what-it-says",
    f"The pull does what it says: in the last cycle the isometry defect is {max(ends['isometry_defect', m][1] for m in pulled):.3f} at most with AdamO; without it "
    f"it grows from cycle to cycle, with Adam from {ends['isometry_defect', 'adam'][0]:.1f} to {ends['isometry_defect', 'adam'][1]:.1f}.",
    all(ends["isometry_defect", m][1] < 0.02 for m in pulled)
    and all(by_cycle.loc["isometry_defect", m].is_monotonic_increasing for m in free),
)
claim(
    "octax-units-sleep-with-relu",
    f"Units sleep with ReLU and not with MaxMin, whatever the optimizer: {dormant['adam', 'actor']:.0%} of the actor and {dormant['adam', 'critic']:.0%} of the critic "
    f"with Adam, {dormant['adamo_no_bias', 'actor']:.0%} and {dormant['adamo_no_bias', 'critic']:.0%} with AdamO, next to none with MaxMin. A fresh net, at the end of "
    f"its visits, has as many as Adam after six.",
    all(dormant[m, part] > 0.3 for m in ("adam", "adamo_no_bias", SINGLE) for part in ("actor", "critic"))
    and all(dormant[m, part] < 0.01 for m in labels if "maxmin" in m for part in ("actor", "critic"))
    and all(dormant[SINGLE, part] >= dormant["adam", part] for part in ("actor", "critic")),
)
gains = {m: ends["P_100", m] for m in going_on}
leader = max(gains, key=lambda m: gains[m][1])
claim(
    "octax-kernel-gets-better",
    f"Training makes the kernel that an actor takes into the next visit better, not worse: P_100 rises in every arm that goes on, with Adam from "
    f"{gains['adam'][0]:.2f} to {gains['adam'][1]:.2f}, most with {labels[leader]}, to {gains[leader][1]:.2f}; a fresh net has {ends['P_100', SINGLE][1]:.2f}.",
    all(late > early > ends["P_100", SINGLE][1] for early, late in gains.values()) and leader == "maxmin_adamo_no_bias",
)

# %% [markdown]
# ## Verdicts
#
# What `dyniso claims` says of every claim about this suite, by the rule of {doc}`supervised_benchmarks`.

# %% tags=["hide-input"]
judged = claims.judge_about([stored.name])
show_table(claims.as_rows(judged))

# %% tags=["hide-input"]
said = [v.verdict for _, v in judged]
claim(
    "octax-verdicts",
    f"Of {len(said)} claims and questions {said.count('reproduced')} are reproduced at this scale, {said.count('undecided')} are undecided, "
    f"{said.count('not testable')} cannot be tested as Adam keeps what AdamO should, and "
    f"{said.count('not')} fail: that Adam loses plasticity, and that it ends below a fresh net.",
    len(said) == sum(map(said.count, ("reproduced", "undecided", "not testable", "not")))
    and {c.id for c, v in judged if v.verdict == "not"} == {"octax_adam_loses_plasticity", "octax_adam_below_fresh"},
)

# %% [markdown]
# ## What to conclude, and what not
#
# - No loss of plasticity is seen on average ({prf:ref}`no-octax-arm-loses-surely`), and no visit fails as on MinAtar ({prf:ref}`no-octax-visit-fails`), whether weights leave isometry or not ({prf:ref}`octax-pull-does-what-it-says`). The
#   kernel gets better with training ({prf:ref}`octax-kernel-gets-better`), which may be the shared backbone at work: it goes on from game to game.
# - So nothing here speaks for or against AdamO as a cure. As an optimizer of PPO it is not surely ahead or behind: the arms are too
#   close for four seeds ({prf:ref}`octax-arms-overlap`, {prf:ref}`no-octax-effect-is-sure`), and the two games pull in opposite directions ({prf:ref}`octax-games-disagree`).
# - Dormant units go with ReLU and not with training ({prf:ref}`octax-units-sleep-with-relu`), and they do not keep Adam from the best score.
# - Part of every rise may be memory and not learning: the same games come back as they were.
#
# Not shown here:
#
# - the other six games, the other twelve arms, and the scripts' budget: `dyniso run octax --tier paper` is that protocol; it
#   wants a GPU and was not run;
# - longer episodes: they are cut at 500 steps here, at 4,500 in the scripts;
# - rates and strengths tuned for each arm.
#
# **Where we differ from the scripts.** Truncated episodes are bootstrapped, because the package reports both ends; the
# convolutions have ReLU and torch's default initialisation in all arms; the isometry pull acts on hidden matrices only,
# where the scripts also pull the value's head; and all smaller sizes are ours.
#
# ## Try changing
#
# - `dyniso run octax --tier check --methods adam,maxmin_adamo_no_bias,reset_all --seeds 8`: {prf:ref}`octax-games-disagree` with twice the
#   seeds; it takes about two hours of one core.
#
# ## Exercise
#
# In {doc}`continual_minatar` the channels are permuted anew at every visit; here the same game returns as it was. For
# which of the two is a rising score the better sign that the ability to learn was kept?
#
# ```{dropdown} Solution
# For MinAtar. There the weights of the first layer must be learned anew, so a high score in a late cycle needs learning
# (though what lies deeper may be reused). Here an agent that cannot learn any more, but has not forgotten, keeps its score.
# What would tell the two apart here is a game that it has not met: the last games of the first cycle, against a fresh net.
# ```
#
# **What is next.** {doc}`Where we differ, and what is not settled <where_we_differ>`.

# %% tags=["hide-input"]
stamp(
    notebook="continual_octax",
    parameters={"seed": seed},
    specs={f"{stored.name} {m.name}": specs.digest(stored, m) for m in stored.methods},
    seeds=stored.seeds,
    hardware=results.hardware,
    wall_s=time.perf_counter() - started,
)
