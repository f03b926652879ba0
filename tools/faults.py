"""What happens to results when processes die, disks fill up and bytes flip: tried, counted, and written down.

python tools/faults.py                  about 15 minutes on one core; writes book/evidence/faults.json
python tools/faults.py --seconds 60     less of everything; stop it and call it again: counts of one commit add up

Small streams and games are trained by processes that are killed, at random moments and at every single operation on a
file, two or three of them beside each other in one folder, on a disk that fills up; and stored files are damaged. Each
time the rows in the end must be bitwise those of a run that nothing disturbed, or reading must refuse in one line; and
no file may be left over. Exit code 1 if that fails once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dyniso.study import files, runner, specs, store
from dyniso.study.checkpoint import Checkpoint
from dyniso.study.provenance import provenance
from dyniso.study.specs import Comparison, GameExperiment, Method, Net, Stream
from dyniso.study.specs.reinforcement import PPO, Games, PolicyNet

TARGET = Path(__file__).parents[1] / "book" / "evidence" / "faults.json"
KEYS = ["method", "seed", "task", "layer", "metric", "value"]
ADAM, ADAMO = Method("adam", "Adam"), Method("adamo", "AdamO", optimizer="adamo", isometry_strength=0.5)
STREAM = replace(
    specs.get("random_labels"),
    stream=Stream("random_labels", "mnist-small", samples=64, tasks=4),
    net=Net(width=20, depth=2),
    methods=(ADAM, ADAMO, Method("redo", "ReDo", baseline="redo")),
    seeds=(0, 1),
    steps_per_task=12,
    batch=16,
    probe=32,
)
GAMES = GameExperiment(
    "tiny",
    "a game, eight updates",
    "smoke",
    Games(names=("breakout",), cycles=2, steps_per_game=512, max_episode_steps=15),
    PolicyNet(width=8, depth=2),
    PPO(envs=8, steps=16, epochs=2, minibatches=2),
    (replace(ADAM, lr=1e-2), replace(ADAMO, lr=1e-2)),
    seeds=(0, 1),
    curve=2,
    evaluation_envs=8,
    probe=64,
)
Counts = Counter[str]  # "tried", "right" (rows as undisturbed), "refused" (in one line), "wrong", "left over"


class Trial:
    """One experiment with the rows of a run that nothing disturbed, and the seconds that it took."""

    def __init__(self, experiment: Comparison, scratch: Path):
        self.experiment, self.scratch = experiment, scratch
        start = time.monotonic()
        self.finish(scratch / "undisturbed")
        if isinstance(experiment, GameExperiment):  # the games are compiled now
            start = time.monotonic()
            self.finish(scratch / "again")
        self.seconds, self.rows = time.monotonic() - start, self.stored(scratch / "undisturbed")

    def train(self, folder: Path) -> None:
        """Run what is not stored, with a checkpoint after every part."""
        runner.run(self.experiment, "cpu", folder, progress=False, checkpoint_every_s=0)

    def finish(self, folder: Path) -> None:
        """Train to the end, in a process of its own."""
        if ended(start(lambda: self.train(folder))) != 0:
            raise RuntimeError(f"{self.experiment.name} does not train: {(folder.parent / 'error').read_text()}")

    def stored(self, folder: Path) -> Any:
        """All rows of a folder in one order."""
        rows = store.read_runs(store.experiment_paths(folder, self.experiment))[KEYS]
        return rows.sort_values(KEYS[:-1], ignore_index=True)

    def judge(self, folder: Path) -> Counts:
        """Whether a folder has the rows of the undisturbed run, and nothing else; it is removed."""
        self.finish(folder)
        expected = {path.name for path in store.experiment_paths(folder, self.experiment)}
        there = {path.name for path in folder.rglob("*") if path.is_file()}
        same = self.stored(folder).equals(self.rows)
        shutil.rmtree(folder)
        return Counter({"right" if same else "wrong": 1, "left over": len(there - expected)})


def start(work: Callable[[], object]) -> int:
    """Do something in a process of its own, and return its id; its exit code is 1 where it raises."""
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        work()
    except BaseException as error:
        Path(os.environ["FAULTS_SCRATCH"], "error").write_text(f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> int:
    """Wait for a process: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_after(pid: int, seconds: float) -> int:
    """Kill a process after some time, unless it has ended: its exit code."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # a process that has ended is still known until it is waited for
    return ended(pid)


def killed_at_random(trial: Trial, draw: random.Random) -> Counts:
    """A chain of kills at random moments until a process comes to its end."""
    folder, kills, errors = trial.scratch / "killed", 0, 0
    games = isinstance(trial.experiment, GameExperiment)  # the packages that play them take long to import
    earliest, longest = trial.seconds * 0.4 * games, trial.seconds * (1.0 if games else 0.3)
    while (code := kill_after(start(lambda: trial.train(folder)), draw.uniform(earliest, longest))) != 0:
        kills, longest, errors = kills + 1, longest * 1.03, errors + is_error(code)
        if errors:
            break
    return judged(trial, folder, kills, errors)


def is_error(code: int) -> bool:
    """Whether a process ended neither well nor by the kill that was meant for it."""
    return code not in (0, -signal.SIGKILL)


def judged(trial: Trial, folder: Path, kills: int, errors: int) -> Counts:
    """What a chain of kills says of each of them; an error of a process on the way is wrong, whatever came later."""
    found = times(trial.judge(folder), kills)
    return Counter({"tried": kills}) + (Counter({"wrong": kills}) if errors else found)


def killed_at_each_operation(trial: Trial, draw: random.Random) -> Counts:
    """A kill before or after one operation on a file: a flush, a rename, a removal; then perhaps a second one."""
    folder, codes = trial.scratch / "operations", []
    for _ in range(draw.choice((3, 4, 5))):
        count, after = draw.randrange(50), draw.random() < 0.5
        codes.append(ended(start(lambda: dying(count, after, lambda: trial.train(folder)))))  # noqa: B023
    return judged(trial, folder, sum(code != 0 for code in codes), sum(map(is_error, codes)))


def dying(count: int, after: bool, work: Callable[[], object]) -> None:
    """Work until the operation of that number, and die before or after it."""
    left = [count]

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = operation(*arguments, **options)
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return wrapped

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    work()


def side_by_side(trial: Trial, draw: random.Random) -> Counts:
    """Two or three processes in one folder, each of which is killed at a random moment or left to its end."""
    folder = trial.scratch / "beside"
    pids = [start(lambda: trial.train(folder)) for _ in range(draw.choice((2, 3)))]
    kept = pids if draw.random() < 0.5 else pids[:1]
    bad = 0
    for pid in pids:
        code = ended(pid) if pid in kept else kill_after(pid, draw.uniform(0, trial.seconds))
        bad += is_error(code)
    found = trial.judge(folder)
    return Counter({"tried": 1, "wrong": int(bool(bad))}) + (found if not bad else Counter())


def full_disk(trial: Trial, draw: random.Random) -> Counts:
    """Files cannot grow beyond some size any more, from the start or once training has begun; then they can again."""
    folder, begun, room = trial.scratch / "full", draw.random() < 0.7, int(10 ** draw.uniform(2, 5))
    check, limit = files.require_writable, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    def filled(*arguments: Any) -> None:
        check(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    def work() -> None:
        if begun:
            files.require_writable = filled  # type: ignore[assignment]
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        try:
            trial.train(folder)
        except OSError as error:
            os._exit(3 if "cannot write" in str(error) and "\n" not in str(error) else 1)

    code = ended(start(work))
    return Counter({"tried": 1, "refused": code == 3, "wrong": code not in (0, 3)}) + trial.judge(folder)


def damaged_files(trial: Trial, draw: random.Random) -> Counts:
    """A flipped bit, a lost end or another run's content, in a run, a checkpoint or a table; 60 times."""
    folder = trial.scratch / "damaged"
    shutil.copytree(trial.scratch / "undisturbed", folder)
    paths = store.experiment_paths(folder, trial.experiment)
    saved, table = Checkpoint(paths[0].parent, [path.name for path in paths]), paths[0].with_name("table.parquet")
    saved.save({"x": torch.arange(999.0)})
    store.write_parquet(trial.rows, table, {"made": "now"})
    kinds: list[tuple[Path, Callable[[], Any]]] = [
        *((path, lambda path=path: store.read_runs([path]).to_csv()) for path in paths),
        *[(saved.path, lambda: str(saved.load(torch.device("cpu"))))] * len(paths),
        *[(table, lambda: store.query(table, "*").to_csv())] * len(paths),
    ]
    found: Counts = Counter()
    for path, read in draw.choices(kinds, k=60):
        whole, right = path.read_bytes(), read()
        path.write_bytes(damage(whole, draw, draw.choice(paths).read_bytes() if path in paths else b""))
        if path.read_bytes() != whole:
            found += Counter({"tried": 1, verdict(read, right, path): 1})
        path.write_bytes(whole)
    shutil.rmtree(folder)
    return found


def damage(whole: bytes, draw: random.Random, other: bytes) -> bytes:
    """One bit flipped, the end lost, or other content."""
    kind, place = draw.random(), draw.randrange(len(whole))
    if kind < 0.7:
        return whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
    return whole[:place] if kind < 0.9 or not other else other


def verdict(read: Callable[[], Any], right: Any, path: Path) -> str:
    """Whether a damaged file gives what was in it, is refused in one line that names it, or neither."""
    try:
        return "right" if read() == right else "wrong"
    except store.UnusableError as error:
        return "refused" if path.name in str(error) and "\n" not in str(error) else "wrong"
    except Exception:
        return "wrong"


def times(found: Counts, count: int) -> Counts:
    """What a chain of kills says of each of them."""
    return Counter({name: n * count if name != "left over" else n for name, n in found.items()})


Fault = Callable[[Trial, random.Random], Counts]
PLAN: tuple[tuple[str, str, Fault, float], ...] = (  # what is trained, the fault, and its share of the time
    ("stream", "killed at a random moment", killed_at_random, 0.3),
    ("stream", "killed at one operation on a file", killed_at_each_operation, 0.2),
    ("stream", "two or three processes in one folder", side_by_side, 0.1),
    ("stream", "full disk", full_disk, 0.07),
    ("stream", "damaged file", damaged_files, 0.08),
    ("games", "killed at a random moment", killed_at_random, 0.25),
)


def tried(seconds: float, only: str, seed: int, scratch: Path) -> Iterator[tuple[str, str, Counts]]:
    """Every fault of the plan whose line holds a text, for its share of the time, at least once."""
    trials: dict[str, Trial] = {}
    experiments: dict[str, Comparison] = {"stream": STREAM, "games": GAMES}
    chosen = [line for line in PLAN if only in f"{line[0]}: {line[1]}"]
    for subject, name, fault, share in chosen:
        place = scratch / subject
        place.mkdir(exist_ok=True)
        trial = trials.setdefault(subject, None) or Trial(experiments[subject], place)  # type: ignore[arg-type]
        trials[subject] = trial
        draw, found = random.Random(f"{subject} {name} {seed}"), Counter[str]()
        end = time.monotonic() + share * seconds / sum(line[3] for line in chosen)
        while not found or time.monotonic() < end:
            found += fault(trial, draw)
        yield subject, name, found


def earlier(target: Path, made_by: dict[str, str]) -> dict[str, Any]:
    """What the same commit has counted already, or nothing."""
    nothing = {"made_by": made_by, "calls": 0, "seconds": 0, "rows": {}}
    if not target.exists():
        return nothing
    found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return found if found["made_by"]["commit"] == made_by["commit"] else nothing


def import_what_training_imports() -> None:
    """Train once here, so that no process that is killed spends its time on imports; not games: JAX forbids to fork."""
    with tempfile.TemporaryDirectory() as folder:
        runner.run(replace(STREAM, stream=replace(STREAM.stream, tasks=1)), "cpu", Path(folder), progress=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try everything, write the counts, and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=800, help="in all, without what it takes to begin")
    parser.add_argument("--out", type=Path, default=TARGET, help="where counts are kept and added to")
    parser.add_argument("--only", default="", help="those whose line holds this text, e.g. 'killed' or 'games'")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    import_what_training_imports()
    counted, begun = earlier(options.out, provenance()), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"FAULTS_SCRATCH": scratch, "JAX_COMPILATION_CACHE_DIR": str(Path(scratch, "jax"))}
        os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for subject, name, found in tried(options.seconds, options.only, counted["calls"], Path(scratch)):
            row = Counter(counted["rows"].get(f"{subject}: {name}", {})) + found
            counted["rows"][f"{subject}: {name}"] = {
                k: row[k] for k in ("tried", "right", "refused", "wrong", "left over")
            }
            print(f"{subject}: {name}: {counted['rows'][f'{subject}: {name}']}", flush=True)
    counted["calls"] += 1
    counted["seconds"] = round(counted["seconds"] + time.monotonic() - begun)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")
    return int(any(row["wrong"] or row["left over"] for row in counted["rows"].values()))


if __name__ == "__main__":
    sys.exit(main())
