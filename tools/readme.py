"""Write the result and benchmark tables of README.md and benchmarks/README.md from what is stored.

python tools/readme.py           writes the tables between their markers
python tools/readme.py --check   exit 1 if a table is not what is stored
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from dyniso.report import claims, ledger, words
from dyniso.report.results import SCORE, Results
from dyniso.study import specs, store

ROOT = Path(__file__).resolve().parents[1]
TIER = "check"
SHOWN = (  # of the suite
    *("adam", "l2_init", "redo", "nap", "layernorm", "spectral_penalty", "parseval", "fire", "muon", "reset_all"),
    *("adamo_printed", "adamo", "adamo_coupled", "crelu", "maxmin", "maxmin_adamo", "maxmin_hard"),
)


def results() -> str:
    """Online accuracy on the first and the last task of each stored experiment, a row a method."""
    registered = [specs.get(name, TIER) for name in specs.REGISTRY]
    experiments = [e for e in registered if e.methods == specs.METHODS and store.compact_path(e).exists()]
    ends: dict[str, dict[str, tuple[float, float]]] = {}
    for e in experiments:
        stored = Results.stored(e)
        ends[e.name] = {m.name: stored.ends("online_accuracy", m.name, "first", "last") for m in e.methods}
    names = [e.name.replace("_", " ") for e in experiments]
    lines = [
        "| method | " + " | ".join(f"{n}, first to last task" for n in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for method in experiments[0].methods:
        cells = ["{:.3f} to {:.3f}".format(*ends[e.name][method.name]) for e in experiments]
        lines.append(f"| {method.label} | " + " | ".join(cells) + " |")
    sizes = [
        f"{n}: {e.stream.tasks} tasks of {e.steps_per_task} steps, {e.net.depth} layers of {e.net.width}, "
        f"{len(e.seeds)} seeds, on {store.hardware_of(store.read_compact(e))}"
        for n, e in zip(names, experiments, strict=True)
    ]
    return "\n".join([*lines, "", "Online accuracy, means over seeds. " + "; ".join(sizes) + "."])


def suite() -> str:
    """Score on the last fifth of the tasks of each stored stream of the tuned suite, a row a method."""
    experiments = [specs.get(name, TIER) for name in specs.supervised.SUITE]
    runs = [Results.stored(e) for e in experiments if store.compact_path(e).exists()]
    names = [r.experiment.name.replace("_", " ") for r in runs]
    lines = ["| method | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for method in runs[0].experiment.methods:
        if method.name in SHOWN:
            cells = [f"{r.mean(SCORE, method.name):.2f}" for r in runs]
            lines.append(f"| {method.label} | " + " | ".join(cells) + " |")
    e = next(e for e in experiments if e.name == runs[0].experiment.name)
    absent = [name for name in specs.supervised.SUITE if name not in [r.experiment.name for r in runs]]
    note = f" Not run: {', '.join(absent)}." if absent else ""
    size = f"{e.net.depth} layers of {e.net.width} (regression: one of 8), {len(e.seeds)} seeds, on {runs[0].hardware}"
    return "\n".join([*lines, "", f"Means over seeds; {size}.{note}"])


def games() -> str:
    """Score in the last fifth of the cycles of each stored sequence of games with its interval, a row an arm."""
    experiments = [by_tier[TIER] for by_tier in specs.REINFORCEMENT.values()]
    runs = [Results.stored(e) for e in experiments if store.compact_path(e).exists()]
    lines = ["| arm | " + " | ".join(r.experiment.name for r in runs) + " |", "|---|" + "--:|" * len(runs)]
    labels = {m.name: m.label for r in runs for m in r.experiment.methods}
    for name, label in labels.items():
        have = [name in [m.name for m in r.experiment.methods] for r in runs]
        scores = [r.interval(SCORE, name) if there else () for r, there in zip(runs, have, strict=True)]
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*score) if score else "not run" for score in scores]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    sizes = [
        f"{e.name}: {', '.join(r.games)}, {e.games.cycles} cycles of {e.games.steps_per_game:,} steps a game, "
        f"net {r.net}, {len(e.seeds)} seeds, on {r.hardware}"
        for e in experiments
        for r in runs
        if r.experiment is e
    ]
    absent = [e.name for e in experiments if e.name not in [r.experiment.name for r in runs]]
    note = f" Not run: {', '.join(absent)}." if absent else ""
    return "\n".join(
        [*lines, "", f"Interquartile means over games and seeds, 95 % intervals; {'; '.join(sizes)}.{note}"]
    )


def verdicts() -> str:
    """What the paper says that stored experiments judge, a row a statement: its word, and its verdicts by benchmark."""
    book = ledger.read(ROOT / "book" / "statements.toml")
    judged = [row for row in words.rows(book, claims.judge_all(TIER)) if row.verdicts]
    lines = ["| the paper says | word | its benchmarks | ours |", "|---|---|---|---|"]
    for row in (row for row in judged if row.statement.source == "paper"):
        lines.append(f"| {row.statement.statement} | **{row.word}** | {row.on_paper} | {row.on_ours} |")
    return "\n".join(lines)


def benchmarks() -> str:
    """The table of committed benchmark results, as benchmarks/run.py renders it."""
    folder = ROOT / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_run", folder / "run.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        table: str = module.table()
    finally:
        sys.path.remove(str(folder))
    return table.strip()


def updated(text: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- /name -->` made anew."""
    for make in (results, suite, games, verdicts, benchmarks):
        name = make.__name__
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = before + start + make() + "\n" + end + rest.partition(end)[2]
    return text


def main(arguments: list[str]) -> int:
    """Write the tables, or check them."""
    stale = 0
    for path in (ROOT / "README.md", ROOT / "benchmarks" / "README.md"):
        old = path.read_text()
        new = updated(old)
        if "--check" in arguments:
            stale += new != old
        elif new != old:
            path.write_text(new)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
