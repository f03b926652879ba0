"""Contracts of dyniso.study.training_code: a run is stale with the code that it runs, and with no other."""

import shutil

import pytest

from dyniso.study import declared, sources, specs, training_code

STREAM, GAME = training_code.TRAINERS[False], training_code.TRAINERS[True]
RUNS = {  # what decides which code a run needs: trainer, method of dyniso.baselines, kernels measured or not
    "adam": (STREAM, None, False),
    "kernels": (STREAM, None, True),
    "redo": (STREAM, "redo", False),
    "continual_backprop": (STREAM, "continual_backprop", False),
    "spectral_norm": (STREAM, "spectral_norm", False),
    "spectral_penalty": (STREAM, "spectral_penalty", False),
    "games": (GAME, None, True),
    "redo in games": (GAME, "redo", True),
}
UNITS, PENALTIES = "baselines/units.py", "baselines/penalties.py"
FIRST_LINE = ("from __future__ import annotations\n", "from __future__ import annotations\n\nCHANGED = 1\n")


def digests_after(tmp_path, *changes, added=None):
    """Code digests of RUNS in a copy of the package in which texts of files are replaced, and with new files."""
    package = tmp_path / "dyniso"
    shutil.copytree(sources.PACKAGE, package, ignore=shutil.ignore_patterns("_data", "__pycache__"))
    for file, (old, new) in changes:
        text = (package / file).read_text()
        assert old in text
        (package / file).write_text(text.replace(old, new, 1))
    for file, text in (added or {}).items():
        (package / file).write_text(text)
    return {name: training_code.digest_of_code(*run, package) for name, run in RUNS.items()}


@pytest.fixture(scope="module")
def before():
    return {name: training_code.digest_of_code(*run) for name, run in RUNS.items()}


@pytest.fixture
def changed(tmp_path, before):
    """A function that says which of RUNS have another code digest after changes of the package."""

    def which(*changes):
        after = digests_after(tmp_path, *changes)
        return {name for name in RUNS if before[name] != after[name]}

    return which


@pytest.mark.parametrize(
    "change",
    [
        (UNITS, ("class ReDo(", "# a comment\nclass ReDo(")),
        (UNITS, ('"""', '"""Another docstring. ')),
        ("optim.py", (FIRST_LINE[0], "from __future__ import annotations  # a comment\n")),
        ("report/notebook.py", FIRST_LINE),
        ("report/claims/verdict.py", FIRST_LINE),
        ("study/store.py", FIRST_LINE),
        ("cli.py", FIRST_LINE),
        ("stats.py", FIRST_LINE),
    ],
    ids=lambda change: change[0],
)
def test_comment_docstring_or_change_of_the_report_changes_the_code_of_no_run(changed, change):
    assert changed(change) == set()


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ((UNITS, ("self.threshold", "2 * self.threshold")), {"redo", "redo in games"}),
        ((PENALTIES, ("self.iterations", "2 * self.iterations")), {"spectral_penalty", "spectral_norm"}),
        (("entk.py", FIRST_LINE), {"kernels", "games", "redo in games"}),
        (("study/rl/ppo.py", FIRST_LINE), {"games", "redo in games"}),
        (("study/train.py", FIRST_LINE), RUNS.keys() - {"games", "redo in games"}),
        (("baselines/attached.py", FIRST_LINE), RUNS.keys()),
        (("optim.py", FIRST_LINE), RUNS.keys()),
    ],
    ids=["a method", "a method that another one uses", "kernels", "games", "streams", "every method", "the optimizer"],
)
def test_change_of_code_changes_the_code_of_the_runs_that_use_it_and_of_no_other(changed, change, runs):
    assert changed(change) == runs


def test_new_method_in_a_file_of_its_own_changes_the_code_of_no_run(tmp_path, before):
    register = (
        "baselines/__init__.py",
        ("from .units import", "from .mine import Mine\nfrom .units import"),
    )
    mine = 'from .attached import Baseline\n\n\nclass Mine(Baseline, name="mine"):\n    a = 1\n'
    assert digests_after(tmp_path, register, added={"baselines/mine.py": mine}) == before


def test_training_names_no_method_in_its_code_since_a_run_depends_on_its_own_alone():
    classes = {d.node.name for d in declared.methods().values()}
    apart = {*training_code.NOT_TRAINING, *declared.method_modules()}
    for module in sources.reach(training_code.TRAINERS.values(), apart) - training_code.PASSED_THROUGH:
        assert (module, declared.mentioned([sources.tree_of(sources.modules()[module])]) & classes) == (module, set())


TRAINS = (  # modules without which no run of a stream would have its numbers
    *("optim", "pull", "options", "groups", "isometry", "polar", "nets", "initialisation", "activations", "dormancy"),
    *("study.train", "study.learner", "study.stack", "study.optimizers", "study.streams", "study.tasks"),
    "study.instruments.stacked",
)


@pytest.mark.parametrize("module", TRAINS)
def test_change_of_a_module_that_trains_changes_the_code_of_every_run_of_a_stream(changed, module):
    assert RUNS.keys() - {"games", "redo in games"} <= changed((module.replace(".", "/") + ".py", FIRST_LINE))


def test_code_of_kernels_counts_where_kernels_are_measured_and_in_every_game():
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_code, "digest_of_code", lambda *key: asked.append(key))
        for name in ("random_labels", "predictors", "minatar"):
            experiment = specs.find(name)
            training_code.code_digest(experiment, experiment.methods[0])
    assert [key[2] for key in asked] == [False, True, True]
