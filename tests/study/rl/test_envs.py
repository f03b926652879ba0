"""Contracts of the games: sequences, environments, the engines beside the original ones, and what is watched."""

import functools
import importlib.util
import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax")
gymnax = pytest.importorskip("gymnax")

from chip8 import DEPARTURES, Chip8  # noqa: E402

from dyniso.checks import MissingExtraError  # noqa: E402
from dyniso.study.rl.envs import Envs, first_returns, lane_keys, places, random_return  # noqa: E402
from dyniso.study.rl.games import MINATAR, make_game, native_actions, require_games  # noqa: E402
from dyniso.study.rl.sequence import Visit, game_order, visit  # noqa: E402
from dyniso.study.rl.watch import watch  # noqa: E402
from dyniso.study.specs.reinforcement import ACTIONS, SUITES, Games  # noqa: E402

CPU = torch.device("cpu")
ENVS, LIMIT = 32, 16  # breakout's ball is lost after 6 steps or, if it was met once, 16: just as time is over
PAIR = Games(names=("breakout", "space_invaders"), cycles=3, max_episode_steps=LIMIT)
BRIX = Games("octax", ("brix",), permute_channels=False, max_episode_steps=12, noop_starts=6)
SEEDS = (0, 3, 1)
VISITS = [visit(PAIR, seed, 0) for seed in SEEDS]


quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles in half the time


def random_actions(steps: int, runs: int, envs: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(ACTIONS, (steps, runs, envs), generator=torch.Generator().manual_seed(seed))


def played(envs: Envs, actions: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a sequence of actions gives, stacked over steps; `whole` is what is seen before each one and at the end."""
    whole, steps = [envs.whole()], []
    for action in actions:
        steps.append(envs.step(action))
        whole.append(envs.whole())
    return {name: torch.stack([getattr(s, name) for s in steps]) for name in steps[0]._fields} | {
        "whole": torch.stack(whole)
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], *names: str) -> bool:
    return all(torch.equal(a[name], b[name]) for name in names or a)


@pytest.fixture(scope="module")
def together() -> Envs:
    """Three runs, two of them in breakout."""
    return Envs(PAIR, VISITS, SEEDS, ENVS, CPU)


@pytest.fixture(scope="module")
def start(together):
    return together.state_dict()


@pytest.fixture(scope="module")
def trajectory(together, start):
    """Forty steps of the three runs."""
    together.load_state_dict(start)
    return played(together, random_actions(40, 3, ENVS))


# ----------------------------------------------------------------------------------------------------- sequence


def test_order_and_channels_are_functions_of_games_seed_and_visit():
    first = [visit(PAIR, seed, i) for seed in (0, 1) for i in range(PAIR.visits)]
    np.random.default_rng(0).permutation(10)
    torch.manual_seed(5)
    again = [visit(PAIR, seed, i) for seed in (1, 0) for i in reversed(range(PAIR.visits))]
    assert first == again[::-1]


def test_channel_orders_are_permutations_that_differ_between_seeds_and_visits():
    orders = [visit(Games(cycles=5), seed, i).channels for seed in range(20) for i in range(20)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(orders)) == len(orders)


def test_orders_of_games_differ_between_seeds_and_cycles():
    assert len({game_order(Games(), seed, 0) for seed in range(50)}) > 12  # of 24
    assert len({game_order(Games(), 0, cycle) for cycle in range(50)}) > 12


def test_every_game_comes_first_about_equally_often():
    first = Counter(game_order(Games(), seed, cycle)[0] for seed in range(100) for cycle in range(8))
    assert set(first) == set(Games().names)
    assert max(first.values()) - min(first.values()) < 75  # 200 each, standard deviation 12


def test_every_cycle_visits_every_game_once():
    games = Games(cycles=3)
    visits = [visit(games, 7, i) for i in range(games.visits)]
    assert [v.cycle for v in visits] == [i // 4 for i in range(12)]
    assert all({v.game for v in visits[c : c + 4]} == set(games.names) for c in (0, 4, 8))


def test_fixed_order_and_unpermuted_channels_are_as_declared():
    games = Games(order="fixed", permute_channels=False, cycles=2)
    assert [visit(games, 9, i) for i in range(8)] == [
        Visit(i, i // 4, game, None) for i, game in enumerate(2 * games.names)
    ]


@pytest.mark.parametrize("index", [-1, 6, 1.0])
def test_visit_outside_the_sequence_is_refused(index):
    with pytest.raises(ValueError, match="from 0 to 5"):
        visit(PAIR, 0, index)


# ------------------------------------------------------------------------------------------------- observations


@pytest.mark.parametrize("name", ["breakout", "seaquest"])
def test_permutation_undone_is_gymnax_own_observation(name):
    games = Games(names=(name,), max_episode_steps=LIMIT)
    there = visit(games, 4, 0)
    envs = Envs(games, [there], [4], ENVS, CPU)
    _, state, _ = envs.parts[0].lanes
    env, params = gymnax.make(MINATAR[name])
    own = quick(jax.vmap(lambda s: env.get_obs(s, params)))(jax.tree.map(lambda leaf: leaf[0], state))
    whole = envs.whole()[0].reshape(ENVS, 10, 10, 10).numpy()
    padded = np.zeros_like(whole)
    padded[..., : own.shape[-1]] = own
    assert padded.any()
    for seen_at, channel in enumerate(there.channels):
        assert np.array_equal(whole[..., seen_at], padded[..., channel])


def test_places_are_distinct_entries_of_the_whole_observation():
    there = visit(PAIR, 0, 0)
    found = places(there, 6).reshape(100, 6)
    assert len(set(found.ravel().tolist())) == 600
    assert all(
        there.channels[p % 10] == c and p // 10 == cell for cell, row in enumerate(found) for c, p in enumerate(row)
    )


def test_entries_handed_out_are_the_whole_observation_at_their_columns(together, trajectory):
    runs = torch.arange(3)[:, None, None]
    lanes = torch.arange(ENVS)[None, :, None]
    assert torch.equal(together.whole()[runs, lanes, together.columns[:, None]], together.obs)
    assert together.whole().sum() == together.obs.sum() > 0


def test_tensors_have_the_documented_shapes_and_types(together, trajectory):
    assert together.obs.shape == (3, ENVS, 600) and together.obs.dtype == torch.bool
    assert together.columns.shape == (3, 600)
    assert {n: (tuple(x.shape[1:]), x.dtype) for n, x in trajectory.items()} == {
        "obs": ((3, ENVS, 600), torch.bool),
        "reward": ((3, ENVS), torch.float32),
        "terminated": ((3, ENVS), torch.bool),
        "truncated": ((3, ENVS), torch.bool),
        "final_obs": ((3, ENVS, 600), torch.bool),
        "whole": ((3, ENVS, 1000), torch.bool),
    }


# ------------------------------------------------------------------------------------------------------ actions

NATIVE = {"breakout": 3, "asterix": 5, "space_invaders": 4, "freeway": 3, "seaquest": 6}
NATIVE |= {"brix": 3, "submarine": 2, "filter": 3, "tank": 6, "blinky": 5, "missile": 2, "ufo": 4, "wipe_off": 3}
GAMES = [(suite, name) for suite in SUITES for name in SUITES[suite]]


@pytest.mark.parametrize(("suite", "name"), GAMES)
def test_action_that_a_game_lacks_is_its_first_or_its_no_op(suite, name):
    if suite == "octax":
        pytest.importorskip("octax")
    count = NATIVE[name]
    noop = 0 if suite == "minatar" else count - 1
    for invalid, other in (("first", 0), ("noop", noop)):
        games = Games(suite, (name,), permute_channels=suite == "minatar", invalid_action=invalid)
        assert native_actions(games, name) == (*range(count), *[other] * (ACTIONS - count))
    assert make_game(suite, name).noop == noop


@pytest.mark.parametrize("name", SUITES["minatar"])
def test_native_actions_are_the_original_games_minimal_actions(name):
    minatar = pytest.importorskip("minatar")
    env, _ = gymnax.make(MINATAR[name])
    assert env.action_set.tolist() == minatar.Environment(name).minimal_action_set()


def paddle(whole: torch.Tensor, channels: tuple[int, ...]) -> torch.Tensor:
    """The paddle's column in breakout, of whole observations (..., 1000)."""
    return whole.unflatten(-1, (10, 10, 10))[..., 9, :, channels.index(0)].int().argmax(-1)


@pytest.mark.parametrize(("action", "moved"), [(0, 0), (1, -1), (2, 1), (3, 0), (4, 0), (5, 0)])
def test_actions_of_breakout_move_the_paddle_as_mapped(together, start, action, moved):
    together.load_state_dict(start)
    found = played(together, torch.full((2, 3, ENVS), action))
    run = [v.game for v in VISITS].index("breakout")
    columns = paddle(found["whole"][:, run], VISITS[run].channels)
    assert torch.equal(columns.diff(dim=0), torch.full((2, ENVS), moved))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.full((3, ENVS), 6), "from 6 to 6; allowed are 0 to 5"),
        (torch.full((3, ENVS), -1), "from -1 to -1; allowed are 0 to 5"),
        (torch.zeros(3, ENVS), "torch.float32; expected whole numbers"),
        (torch.zeros(3, ENVS, dtype=torch.bool), "torch.bool; expected whole numbers"),
        (torch.zeros(ENVS, 3, dtype=torch.int64), r"actions are \(32, 3\)"),
        (torch.zeros(3, ENVS, 1, dtype=torch.int64), r"expected whole numbers \(3, 32\)"),
    ],
)
def test_wrong_actions_are_refused_before_any_step(together, actions, message):
    before = together.state_dict()
    with pytest.raises(ValueError, match=message):
        together.step(actions)
    assert equal_states(before, together.state_dict())


def equal_states(a: dict, b: dict) -> bool:
    pairs = [(x, y) for p, q in zip(a["parts"], b["parts"], strict=True) for x, y in zip(p, q, strict=True)]
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_any_whole_numbers_do_as_actions(together, start, trajectory, dtype):
    together.load_state_dict(start)
    found = played(together, random_actions(3, 3, ENVS).to(dtype))
    assert torch.equal(found["obs"], trajectory["obs"][:3])


# ------------------------------------------------------------------------------------------------- ends, resets


def test_an_episode_ends_by_itself_or_by_time_never_both(trajectory):
    assert trajectory["terminated"].any() and trajectory["truncated"].any()
    assert not (trajectory["terminated"] & trajectory["truncated"]).any()


def test_time_limit_cuts_after_exactly_its_steps_what_has_not_ended_by_itself(trajectory):
    age, both = torch.zeros(3, ENVS, dtype=torch.int64), 0
    for terminated, truncated in zip(trajectory["terminated"], trajectory["truncated"], strict=True):
        age += 1
        assert torch.equal(truncated, (age == LIMIT) & ~terminated)
        assert age.max() <= LIMIT
        both += int((terminated & (age == LIMIT)).sum())
        age[terminated | truncated] = 0
    assert both > 0  # else the second line above says less than it seems to


def test_final_observation_is_the_old_episodes_and_observation_the_new_ones(trajectory):
    run = [v.game for v in VISITS].index("breakout")
    seen, final = (trajectory[n][:, run].unflatten(-1, (10, 10, 6)) for n in ("obs", "final_obs"))
    lost = trajectory["terminated"][:, run]
    assert final[lost][:, 9, :, 1].any(-1).all()  # the ball is at the bottom
    for end in (lost, trajectory["truncated"][:, run]):
        assert seen[end][:, 3, :, 1].any(-1).all() and seen[end][:, 9, 4, 0].all()  # the ball is served again
        assert seen[end][:, 1:4, :, 3].all()  # with all bricks
        assert (seen[end] != final[end]).flatten(1).any(-1).all()


def test_final_observation_is_the_observation_where_no_episode_ended(trajectory):
    going = ~(trajectory["terminated"] | trajectory["truncated"])
    assert torch.equal(trajectory["obs"][going], trajectory["final_obs"][going])


# ------------------------------------------------------------------------------------------------ random streams


@pytest.mark.parametrize("run", range(3))
def test_a_run_is_the_same_alone_and_beside_others(trajectory, run):
    alone = Envs(PAIR, [VISITS[run]], [SEEDS[run]], ENVS, CPU)
    found = played(alone, random_actions(40, 3, ENVS)[:, run : run + 1])
    beside = {name: x[:, run : run + 1] for name, x in trajectory.items()}
    assert same(found, beside, "whole", "reward", "terminated", "truncated")


def test_an_environment_is_the_same_whatever_the_number_of_others():
    assert np.array_equal(lane_keys(3, 1, 0, 4), lane_keys(3, 1, 0, 64)[:4])


def test_keys_differ_between_seeds_visits_streams_and_environments():
    keys = [lane_keys(s, v, stream, 8) for s in (0, 1, 2**31) for v in (0, 1) for stream in (0, 1, 2)]
    assert len({tuple(key) for found in keys for key in found.tolist()}) == 3 * 2 * 3 * 8


@pytest.mark.parametrize(
    ("seed", "number", "stream"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["seed", "visit", "evaluation"]
)
def test_other_seeds_visits_and_streams_start_otherwise(seed, number, stream):
    there = next(v for v in (visit(PAIR, 0, i) for i in range(2)) if v.game == "breakout")
    first = Envs(PAIR, [there], [0], ENVS, CPU)
    other = Envs(PAIR, [there._replace(number=there.number + number)], [seed], ENVS, CPU, stream)
    assert not torch.equal(first.obs, other.obs)


def test_resumed_environments_go_on_bit_for_bit(together, start):
    together.load_state_dict(start)
    actions = random_actions(30, 3, ENVS, seed=1)
    played(together, actions[:15])
    file = io.BytesIO()
    torch.save(together.state_dict(), file)
    uninterrupted = played(together, actions[15:])
    fresh = Envs(PAIR, VISITS, SEEDS, ENVS, CPU)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert same(uninterrupted, played(fresh, actions[15:]))


def test_a_saved_state_is_not_changed_by_later_steps(together, start):
    together.load_state_dict(start)
    saved = together.state_dict()
    kept = [[leaf.clone() for leaf in part] for part in saved["parts"]]
    played(together, random_actions(3, 3, ENVS))
    assert equal_states(saved, {"parts": kept}) and not equal_states(saved, together.state_dict())


def test_a_loaded_state_is_not_shared_with_the_environments(together, start):
    saved = {"parts": [[leaf.clone() for leaf in part] for part in start["parts"]]}
    together.load_state_dict(saved)
    for part in saved["parts"]:
        for leaf in part:
            leaf.zero_()
    assert equal_states(together.state_dict(), start)


@pytest.mark.parametrize("parts", [slice(1, 2), slice(0, 2), slice(0, 0)], ids=["another game", "more", "none"])
def test_state_of_other_environments_is_refused(start, parts):
    run = [v.game for v in VISITS].index("breakout")
    envs = Envs(PAIR, [VISITS[run]], [SEEDS[run]], ENVS, CPU)
    before = envs.state_dict()
    with pytest.raises(ValueError, match="another game or number"):
        envs.load_state_dict({"parts": start["parts"][parts]})
    assert equal_states(envs.state_dict(), before)


def test_numbers_of_visits_and_seeds_must_agree():
    with pytest.raises(ValueError, match="3 visits and 2 seeds"):
        Envs(PAIR, VISITS, SEEDS[:2], ENVS, CPU)
    with pytest.raises(ValueError, match="0 visits and 0 seeds"):
        Envs(PAIR, [], [], ENVS, CPU)


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_sticky_actions_repeat_with_their_frequency(sticky):
    there = next(v for v in VISITS if v.game == "breakout")
    envs = Envs(replace(PAIR, sticky=sticky), [there], [0], ENVS, CPU)
    actions = torch.tensor([1, 2]).repeat(100)  # left and right in turn
    found = played(envs, actions[:, None, None].expand(-1, 1, ENVS))
    moved = paddle(found["whole"], there.channels).diff(dim=0)[:, 0]
    over = (found["terminated"] | found["truncated"])[:, 0]
    wanted = (2 * actions - 3)[1:, None]
    shows = ~over[1:] & ~over[:-1] & (moved[:-1] == -wanted) & (moved[1:] != 0)  # not at a wall, not after a repetition
    repeated = (moved[1:] == -wanted)[shows].double()
    assert len(repeated) > 1000
    assert abs(repeated.mean() - sticky) <= 4 * (sticky / len(repeated)) ** 0.5


# ------------------------------------------------------------------------------------------- the original MinAtar

LISTS = {"f_bullet_count": "f_bullets", "e_bullet_count": "e_bullets", "e_fish_count": "e_fish"}
STEPS = dict.fromkeys(SUITES["minatar"], 2600) | {"seaquest": 1000}  # compiled once for each: the batch of states
LISTS |= {"e_subs_count": "e_subs", "divers_count": "divers"}


def gymnax_state(engine, like):
    """The state of an original game, as arrays of gymnax's shapes and types; lists are padded with zeros."""
    state = {}
    for field, array in vars(like).items():
        value = 0 if field == "time" else getattr(engine, LISTS.get(field, field))
        value = len(value) if field in LISTS else value
        if field == "entities":
            value = [[*map(int, e), 1] if e else [0] * 5 for e in value]
        state[field] = np.zeros(array.shape, array.dtype)
        if not array.shape:
            state[field][...] = value
        elif len(value):
            state[field][: len(value)] = value
    return state


@functools.cache
def stepper(name):
    """Steps of many states of a game at once: keys, states, actions -> as `Game.step`; and the types of a state."""
    game = make_game("minatar", name)
    return quick(jax.vmap(game.step)), jax.eval_shape(game.reset, jax.random.PRNGKey(0))[0]


def playing(name, engine, rng, count):
    """A native action that keeps a game going or shows more of it, most of the time."""
    action = int(rng.integers(count))
    if name == "breakout" and rng.random() < 0.9:
        ahead = engine.ball_x + (1 if engine.ball_dir in (1, 2) else -1)
        return 1 if ahead < engine.pos else 2 if ahead > engine.pos else 0
    return 1 if name == "freeway" and rng.random() < 0.8 else action


def shaken(engine, rng):
    """Seaquest with other divers, oxygen, place and shot timers: states that random play rarely meets."""
    engine.diver_count, engine.oxygen = int(rng.integers(7)), int(rng.integers(201))
    engine.sub_x, engine.sub_y = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    for sub in engine.e_subs:
        sub[4] = int(rng.integers(2))


@functools.cache
def steps_of_both(name):
    """The same states stepped by the original and by gymnax: states, then (obs, reward, over) of each.

    The original is revived after most deaths, so that hard and crowded states are met too.
    """
    minatar = pytest.importorskip("minatar")
    env = minatar.Environment(name, sticky_action_prob=0)
    env.seed(0)
    env.reset()
    engine, native, rng = env.env, env.minimal_action_set(), np.random.default_rng(0)
    step_all, like = stepper(name)
    rows = []
    for step in range(STEPS[name]):
        if name == "seaquest" and step % 10 == 0:
            shaken(engine, rng)
        state, action = gymnax_state(engine, like), playing(name, engine, rng, len(native))
        reward, over = env.act(native[action])
        rows.append((state, action, env.state(), reward, over))
        if over and (name in ("breakout", "freeway") or (name != "asterix" and rng.random() < 0.02)):
            env.reset()
        engine.terminal = False
    states, actions, *original = zip(*rows, strict=True)
    states = like.replace(**{field: np.stack([s[field] for s in states]) for field in vars(like)})
    keys = jax.random.split(jax.random.PRNGKey(1), len(rows))
    _, obs, reward, terminated, truncated = step_all(keys, states, np.array(actions))
    assert not np.any(truncated)
    return states, tuple(map(np.array, original)), tuple(map(np.array, (obs, reward, terminated)))


def one_step_of_both(name, action, **changes):
    """(obs, reward, over) of the original and of gymnax, from a start with some attributes changed."""
    engine = pytest.importorskip("minatar").Environment(name).env
    vars(engine).update(changes)
    step_all, like = stepper(name)
    state = {f: np.broadcast_to(x, (STEPS[name], *x.shape)) for f, x in gymnax_state(engine, like).items()}
    keys = jax.random.split(jax.random.PRNGKey(1), STEPS[name])  # of the shape that is compiled already
    _, obs, reward, over, _ = step_all(keys, like.replace(**state), np.full(STEPS[name], action))
    assert (obs == obs[0]).all() or name == "asterix"
    reward_then, over_then = engine.act(action)
    return (engine.state(), reward_then, over_then), (np.asarray(obs[0]), float(reward[0]), bool(over[0]))


@pytest.mark.parametrize("name", ["breakout", "space_invaders"])
def test_games_without_chance_step_as_the_original(name):
    _, original, ours = steps_of_both(name)
    assert original[1].sum() > 100 and original[2].sum() > 20
    for a, b in zip(original, ours, strict=True):
        assert np.array_equal(a, b)


def test_freeway_steps_as_the_original():
    _, (obs, reward, over), (our_obs, our_reward, our_over) = steps_of_both("freeway")
    won = reward > 0  # then cars get new speeds by chance: only their trails differ
    assert won.sum() > 5
    assert np.array_equal(reward, our_reward)
    assert np.array_equal(obs[~won], our_obs[~won])
    assert np.array_equal(obs[won][..., :2], our_obs[won][..., :2])
    assert (our_obs[won][..., 2:].sum((1, 2, 3)) == 8).all()
    # known difference: the original ends by itself at step 2,501; gymnax never does, and is cut at 2,500
    assert np.flatnonzero(over).tolist() == [2500] and not our_over.any()


def test_asterix_steps_as_the_original_but_for_what_appears():
    state, (obs, reward, over), (our_obs, our_reward, our_over) = steps_of_both("asterix")
    free = 8 - state.entities[..., 4].sum(-1)
    appears = state.spawn_timer == 0
    assert appears.sum() > 300 and (state.move_speed == 1).any()
    assert np.array_equal(obs[~appears], our_obs[~appears])
    inside = appears & (free > 1)  # a new one is at the edge, or a cell from it
    assert np.array_equal(obs[inside][:, :, 2:8], our_obs[inside][:, :, 2:8])
    alike = ~appears | (inside & (abs(state.player_x - 4.5) < 2))
    assert np.array_equal(reward[alike], our_reward[alike]) and np.array_equal(over[alike], our_over[alike])


def test_known_difference_asterix_of_gymnax_drops_one_where_all_rows_are_full():
    enemies = [[4, row + 1, True, False] for row in range(8)]
    original, ours = one_step_of_both("asterix", 0, entities=enemies, spawn_timer=0, player_x=9, player_y=1)
    assert original[0][..., 1].sum() == 8
    assert ours[0][..., 1].sum() == 7


def test_seaquest_steps_as_the_original_but_for_what_appears():
    state, (obs, reward, over), (our_obs, our_reward, our_over) = steps_of_both("seaquest")
    appears = (state.e_spawn_timer == 0) | (state.d_spawn_timer == 0)
    assert (reward > 1).any() and (reward == 1).any() and over.any() and appears.sum() > 40
    due = (state.e_subs[..., 4] == 0) & (np.arange(100) < state.e_subs_count[:, None])
    differs = obs != our_obs  # but for the two known differences below
    differs[..., 4] &= ~((reward > 0) & due.any(-1))[:, None, None]
    differs[..., 7] &= ~(over & (state.diver_count == 0))[:, None, None]
    assert not differs[~appears].any()
    assert not differs[appears][:, :, 1:9, 5:7].any()  # what appears is at the edge
    alike = ~appears | ((abs(state.sub_x - 4.5) < 4) & (state.f_bullet_count == 0))
    assert np.array_equal(reward[~appears], our_reward[~appears])
    assert np.array_equal(over[alike], our_over[alike])


def test_known_difference_seaquest_of_gymnax_lets_no_submarine_shoot_that_is_hit():
    changes = dict(e_subs=[[5, 4, True, 0, 0]], f_bullets=[[7, 4, False]], sub_x=1, sub_y=1, surface=False)
    original, ours = one_step_of_both("seaquest", 0, **changes)
    assert original[1] == ours[1] == 1
    assert original[0][..., 4].any() and not ours[0][..., 4].any()


def test_known_difference_seaquest_of_gymnax_gives_oxygen_after_the_end():
    original, ours = one_step_of_both("seaquest", 2, sub_y=1, surface=False, oxygen=60)  # up, without a diver
    assert original[2] and ours[2]
    assert (original[0][9, :, 7].sum(), ours[0][9, :, 7].sum()) == (3, 10)


# --------------------------------------------------------------------------------------------------------- octax


class Random:
    """The bytes that octax draws for CXNN from one key."""

    def __init__(self):
        self.key = jax.random.PRNGKey(0)

    def __call__(self) -> int:
        self.key, own = jax.random.split(self.key)
        return int(jax.random.randint(own, (), 0, 256, dtype=np.uint8))


@functools.cache
def octax_beside_chip8(name, steps=60):
    """For every step: (screen, V, I, pc) of octax and of our interpreter under the same random actions."""
    pytest.importorskip("octax")
    from octax.environments import create_environment

    env, _ = create_environment(name)
    game, machine = make_game("octax", name), Chip8(env.rom_data, Random(), tuple(DEPARTURES))
    step = quick(game.step)
    machine.run(env.startup_instructions)
    machine.random = Random()  # a reset starts the random numbers again
    state, _ = game.reset(jax.random.PRNGKey(0))
    rows = []
    for action in np.random.default_rng(0).integers(game.actions, size=steps).tolist():
        rows.append((read(state), ([row[:] for row in machine.screen], machine.V[:], machine.I, machine.pc)))
        machine.keys = set() if action == game.noop else {int(env.action_set[action])}
        machine.run(4 * 11)
        machine.delay = 0 if env.disable_delay else (machine.delay - 1) % 256  # from 0 to 255: octax does that
        machine.keys = set()
        state, obs, *_ = step(None, state, action)
        assert np.array_equal(obs[-1], np.asarray(state.display).T)
    return rows, machine.used


def read(state):
    """Screen and registers of octax, as those of Chip8."""
    return np.asarray(state.display).T.astype(int).tolist(), state.V.tolist(), int(state.I), int(state.pc)


@pytest.mark.parametrize("name", ["brix", "tank", "missile", "wipe_off"])
def test_octax_equals_an_independent_interpreter(name):
    rows, used = octax_beside_chip8(name)
    assert len(used) > 8 and len({str(ours[0]) for _, ours in rows}) > 10
    assert [index for index, (octax, ours) in enumerate(rows) if octax != ours] == []


def test_a_step_of_octax_is_the_packages_own():
    pytest.importorskip("octax")
    from octax.environments import create_environment

    env, _ = create_environment("brix", max_num_steps_per_episodes=8)
    game = make_game("octax", "brix", 8)
    step, own_step = quick(game.step), quick(env.step)
    state, obs = game.reset(jax.random.PRNGKey(0))
    own, own_obs, _ = env.reset(jax.random.PRNGKey(0))
    assert np.array_equal(obs, own_obs.swapaxes(1, 2)) and obs.shape == (4, 32, 64)
    for number in range(1, 9):
        state, obs, *rest = step(None, state, number % 3)
        own, own_obs, *own_rest = own_step(own, number % 3)
        assert np.array_equal(obs, own_obs.swapaxes(1, 2))
        assert [float(x) for x in rest] == [float(x) for x in own_rest[:3]]
        assert bool(rest[2]) == (number == 8)


def test_no_op_starts_give_octax_several_starts():
    pytest.importorskip("octax")
    starts = [Envs(BRIX, [visit(BRIX, seed, 0)], [seed], 1, CPU).obs for seed in range(24)]
    distinct = {obs.numpy().tobytes() for obs in starts}
    assert 4 <= len(distinct) <= 1 + BRIX.noop_starts


def test_octax_is_cut_at_its_limit_and_starts_anew():
    pytest.importorskip("octax")
    envs = Envs(BRIX, [visit(BRIX, 0, 0)], [0], 1, CPU)
    found = played(envs, torch.full((30, 1, 1), 2))
    assert found["obs"].shape == (30, 1, 1, 4, 32, 64) and found["obs"].dtype == torch.bool and envs.columns is None
    ends = torch.nonzero((found["terminated"] | found["truncated"]).flatten()).flatten()
    assert len(ends) > 1 and int(ends.diff().max()) <= BRIX.max_episode_steps
    assert (found["obs"] != found["final_obs"]).flatten(1).any(-1)[ends].all()


# ------------------------------------------------------------------------------------------------ whole episodes


def test_first_returns_add_up_the_first_episode_of_each_environment_only():
    envs, again = (Envs(PAIR, [visit(PAIR, 3, 0)], [3], 6, CPU) for _ in range(2))
    actions = random_actions(LIMIT + 32, 1, 6)
    given = iter(actions)
    found = first_returns(envs, lambda obs: next(given))
    seen = played(again, actions)
    over = (seen["terminated"] | seen["truncated"])[:, 0]
    for lane in range(6):
        first = int(torch.nonzero(over[:, lane])[0])
        assert found[0, lane] == seen["reward"][: first + 1, 0, lane].sum()
    assert found.sum() < seen["reward"].sum()  # later episodes bring more


def test_random_return_is_that_of_even_actions_and_repeats():
    kept = random_return(PAIR, "breakout", 32, seed=1)
    assert kept == random_return(PAIR, "breakout", 32, seed=1) != random_return(PAIR, "breakout", 32, seed=2)
    assert 0.1 < random_return(PAIR, "breakout", 256) < 1


@pytest.mark.parametrize(
    ("options", "words"), [(dict(name="pong"), ["'pong'", "breakout"]), (dict(episodes=0), ["episodes=0"])]
)
def test_random_return_refuses(options, words):
    with pytest.raises(ValueError) as error:
        random_return(**dict(games=PAIR, name="breakout") | options)
    assert all(word in str(error.value) for word in words)


# --------------------------------------------------------------------------------------------------------- watch


def test_what_is_watched_is_the_start_and_every_so_many_steps():
    seen = watch(PAIR, "breakout", None, steps=7, seed=0, every=3)
    assert (seen.shape, seen.dtype) == ((3, 10, 10, 10), bool)
    again = watch(PAIR, "breakout", None, steps=7, seed=0)
    assert len(again) == 8
    assert np.array_equal(seen, again[::3])


def test_breakout_is_seen_with_its_bricks_and_its_paddle():
    first = watch(PAIR, "breakout", None, steps=1, seed=0)[0]
    assert first[[1, 2], :, 3].all()  # bricks; the ball is served in the third row
    assert first[9, 4, 0]  # paddle
    assert not first[5].any()


def test_watched_environment_follows_the_policy():
    seen = []

    def left(obs):
        seen.append((tuple(obs.shape), obs.dtype))
        return torch.ones(1, 1, dtype=torch.int64)

    last = watch(PAIR, "breakout", left, steps=4, seed=0)[-1]
    assert seen == 4 * [((1, 1, 600), torch.bool)]  # 6 channels, for the other game
    assert last[9, 0, 0]


def test_what_is_watched_of_octax_are_the_observations_of_the_policy():
    pytest.importorskip("octax")
    given = []
    seen = watch(BRIX, "brix", lambda obs: given.append(obs) or torch.zeros(1, 1, dtype=torch.int64), 3, seed=0)
    assert seen.shape == (4, 4, 32, 64)
    assert all(np.array_equal(one, obs[0, 0].numpy()) for one, obs in zip(seen, given, strict=False))


@pytest.mark.parametrize(("name", "steps", "every"), [("freeway", 3, 1), ("breakout", 0, 1), ("breakout", 3, 0)])
def test_another_game_or_no_steps_cannot_be_watched(name, steps, every):
    with pytest.raises(ValueError, match=r"name=|steps=|every="):
        watch(PAIR, name, None, steps, 0, every)


# -------------------------------------------------------------------------------------------------------- errors


def test_unknown_game_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="breakout"):
        make_game("minatar", "brekout")
    with pytest.raises(ValueError, match="minatar"):
        make_game("mintar", "breakout")


@pytest.mark.parametrize(("suite", "package"), [("minatar", "jax"), ("minatar", "gymnax"), ("octax", "octax")])
def test_missing_package_is_one_line_with_the_command(monkeypatch, suite, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'dyniso\[rl\]'") as caught:
        require_games(suite)
    assert "\n" not in str(caught.value) and package in str(caught.value)
    assert isinstance(caught.value, ImportError) and isinstance(caught.value, ValueError)


def test_actions_on_another_device_are_refused_before_any_step():
    visits = [visit(Games(names=("breakout",)), 0, 0)]
    envs = Envs(Games(names=("breakout",)), visits, [0], 2, torch.device("cpu"))
    before = envs.obs.clone()
    with pytest.raises(ValueError, match="actions are on meta; these environments are on cpu"):
        envs.step(torch.zeros(1, 2, dtype=torch.int64, device="meta"))
    assert torch.equal(envs.obs, before)
