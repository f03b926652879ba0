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
# # Evidence that the tests can fail
#
# **Question.** Would the tests of this library see a mistake, and do its promises about stored results hold when processes die?
#
# **Why it matters.** A test that cannot fail says nothing, and a result that a crash can change without a word is worse than
# a lost one.
#
# **Finding.** Every mistake that was planted is seen ({prf:ref}`planted-mistakes-are-caught`), and no kill, full disk or flipped
# byte gave a wrong row ({prf:ref}`no-accident-gives-a-wrong-row`).
#
# Both tables were made by running the tools that they name, on real processes and files; they are too long for a test run.

# %% tags=["hide-input"]
# reads: book/evidence/*.json
import json
import time
from collections import Counter
from pathlib import Path

from dyniso.report.notebook import claim, show_table, stamp

started = time.perf_counter()
folder = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "book" / "evidence").is_dir()) / "book" / "evidence"
mutants, faults = (json.loads((folder / f"{name}.json").read_text()) for name in ("mutants", "faults"))


def made_by(table):
    facts = table["made_by"]
    return f"commit {facts['commit']}, {facts['started'][:10]}, torch {facts['torch']}, {facts['hardware']}"


# %% [markdown]
# ## Planted mistakes
#
# `tests/mutants.toml` lists one-line mistakes of the kind that people make: a seed that is not used, a mean for a median, a
# transition one step late, a setting that is missing from a key. `python tools/mutants.py` plants each in a copy of the project
# and runs the tests that concern it. Some changes alter nothing that could be seen; each of these has its reason.

# %% tags=["hide-input"]
parts = sorted({"/".join(row["file"].split("/")[:-1]) for row in mutants["rows"]})
by_part = []
for part in parts:
    results = Counter(row["result"] for row in mutants["rows"] if row["file"].rpartition("/")[0] == part)
    by_part.append({"part": f"`{part}`"} | {name: str(results[name]) for name in ("caught", "survived", "equivalent")})
show_table(by_part)
print(made_by(mutants))

# %% tags=["hide-input"]
total = Counter(row["result"] for row in mutants["rows"])
claim(
    "planted-mistakes-are-caught",
    f"Of {len(mutants['rows'])} planted mistakes {total['caught']} are caught by a test, {total['survived']} by none, and "
    f"{total['equivalent']} change nothing that could be seen.",
    total["survived"] == 0 and total["caught"] >= 60,
)

# %% [markdown]
# ```{dropdown} All of them, each with the test that failed first
# The list is `tests/mutants.toml`, the table `book/evidence/mutants.json`.
# ```

# %% tags=["hide-cell"]
show_table(
    [
        {
            "file": f"`{row['file']}`",
            "mistake": row["why"],
            "result": row["result"],
            "seen by": str(row["by"]).rpartition("/")[2],
        }
        for row in mutants["rows"]
    ]
)

# %% [markdown]
# ## Accidents
#
# `python tools/faults.py` trains small streams and games in processes that are killed, at random moments and at every single
# operation on a file, two or three beside each other in one folder, on a disk that fills up; and it damages stored files. In the
# end the rows must be, bit for bit, those of a run that nothing disturbed, or reading must refuse in one line; and no file may be left over.

# %% tags=["hide-input"]
show_table(
    [{"accident": name} | {key: str(value) for key, value in row.items()} for name, row in faults["rows"].items()]
)
print(made_by(faults))

# %% tags=["hide-input"]
kills = sum(row["tried"] for name, row in faults["rows"].items() if "killed" in name)
claim(
    "no-accident-gives-a-wrong-row",
    f"After {kills} kills, {sum(row['tried'] for row in faults['rows'].values())} accidents in all, no row was wrong and no file left over.",
    kills >= 200 and all(row["wrong"] == row["left over"] == 0 for row in faults["rows"].values()),
)

# %% [markdown]
# ## What to conclude, and what not
#
# * The tests see mistakes of these kinds in these places. A list that the authors wrote does not measure what they did not think of.
# * Results survive kills of the process. A power cut, a network file system and a disk that lies about what it has written were not tried.
# * The kills hit tiny experiments on one machine.

# %% tags=["hide-input"]
stamp(notebook="evidence", parameters={}, wall_s=time.perf_counter() - started)
