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
# # Where we differ, and what is not settled
#
# **Question.** Which statements about plasticity, isometry and AdamO has this book checked, which came out otherwise, and
# which has it not touched?
#
# **Why it matters.** A book that shows what works and is silent about the rest misleads without a false sentence. A
# ledger has a row for every statement, so that what is missing can be seen.

# %% tags=["hide-input"]
# reads: book/statements.toml notebooks/*.py
import time

from dyniso.report import claims, ledger, words
from dyniso.report.notebook import claim, show_markdown, show_table, stamp
from dyniso.study.store import PACKAGE

started = time.perf_counter()
book = ledger.read(PACKAGE.parent / "book" / "statements.toml")
chapters = ledger.Chapters(PACKAGE.parent / "notebooks")
if problems := chapters.problems(book):
    raise LookupError("; ".join(problems))
judged = claims.judge_all("check")
table = words.rows(book, judged)
SECTIONS = {
    1: "Plasticity and the kernel",
    2: "Isometric networks",
    3: "The regulariser",
    4: "Revival",
    5: "AdamO",
    6: "Earlier methods",
    7: "Experiments",
}


def section(number):
    """Show the statements of one section, a row each."""
    show_table([words.cells(row) for row in table if row.statement.section == number])


# %% [markdown]
# ## How to read it
#
# The statements are in our words, in the order of the paper's argument {cite:p}`rosseau2026`. Its full text was not
# available to us. So each statement says what kind of source it has:
#
# - *the paper*: its abstract, its equations and other parts of it that we have seen;
# - *readers of the paper*: third parties who had it, and whose accounts we had;
# - *the authors' public code*: scripts published by its authors before and after it, none of them linked by it;
# - *cited literature*;
# - *our derivation*: a reconstruction of what the paper may prove, or a consequence. The paper is not to be blamed for it;
# - *our question*: asked by us beside the paper's claims.
#
# Each row has one word. A statement that experiments judge has the word of their verdicts, by one rule (`dyniso claims` prints
# them with their intervals):
#
# - *reproduced*: every experiment speaks for it;
# - *partly*: at least one speaks for it, and not all do; or all do, and the lines of chapters say how the measurement differs;
# - *not*: at least one speaks against it, and none for it;
# - *undecided*: none speaks, for or against: no interval is clear of its threshold;
# - *not testable*: plain Adam keeps as well what is said to be kept, so nothing could be lost. Beside experiments that can tell,
#   those that cannot do not count;
# - *not run*: something is missing.
#
# The verdict is given twice: on the benchmarks of the paper (random labels and permuted pixels of CIFAR-10, permuted MNIST,
# renamed classes of CIFAR-100, MinAtar, Octax), smaller than the paper's, and on our own beside them (random labels of MNIST, pairs of
# classes, a slow regression, gradual changes, and the experiments of the theory chapters).
#
# Of any other statement the word says how its lines stand. **Checked** means that an observation of a chapter holds it, executed
# when that chapter was made, at the scale of that chapter. **Differs** means that the same is so, and that the measurement does
# not say what the statement says. **Open** means that nothing checks it; the reason stands beside it. No claim is judged in two
# rows, and a row whose lines agree and whose verdicts say *not* stops this page.

# %% tags=["hide-input"]
total = words.counts(table)
counted = {name: words.counts(r for r in table if r.statement.section == n) for n, name in SECTIONS.items()}
show_table(
    [
        {
            "section": name,
            "statements": str(sum(said.values())),
            "words": ", ".join(f"{n} {w}" for w, n in said.items()),
        }
        for name, said in [*counted.items(), ("all", total)]
    ]
)

# %% tags=["hide-input"]
pieces = [name for one in book.entries for name in one.evidence]
used = {(chapter, one.line) for chapter, one in map(chapters.find, pieces)}
grounds = [bool(one.evidence or one.verdicts or one.open) for one in book.statements]
claim(
    "each-statement-has-its-grounds",
    f"Each of {len(grounds)} statements has an observation that checks it, a verdict, or a reason why there is none.",
    all(grounds) and {one.section for one in book.statements} == set(SECTIONS),
)
claim(
    "each-reference-is-one-observation",
    f"All {len(pieces)} references are found: each names one observation and no other, {len(used)} different ones in "
    f"{len({name for name, _ in used})} chapters.",
    problems == [],
)
named = [name for one in book.statements for name in one.verdicts]
claim(
    "each-claim-is-judged-in-one-row",
    f"Each of {len(claims.CLAIMS)} computed claims is judged in one row, in {sum(bool(r.verdicts) for r in table)} rows in all.",
    sorted(named) == sorted(one.id for one in claims.CLAIMS),
)
stated = words.counts(row for row in table if row.statement.source in ("paper", "readers"))
claim(
    "words-of-the-paper-and-its-readers",
    f"Of {sum(stated.values())} statements by the paper or its readers: {', '.join(f'{n} {w}' for w, n in stated.items())}. Of those that "
    "experiments judge most hold in part.",
    2 * stated.get("partly", 0) > sum(stated.get(word, 0) for word in claims.VERDICTS if word != "not run"),
)

# %% [markdown]
# ## What the paper says that experiments judge
#
# The rows of the paper and its readers that have verdicts.

# %% tags=["hide-input"]
show_table([words.cells(r) for r in table if r.verdicts and r.statement.source in ("paper", "readers")])

# %% tags=["hide-input"]
paper = [row for row in table if row.verdicts and row.statement.source == "paper"]
both = [row for row in paper if {row.on_paper, row.on_ours}.isdisjoint({"none", "not run"})]
worse = [row for row in both if (row.on_paper, row.on_ours) == ("reproduced", "partly")]
claim(
    "paper-statements-on-both-kinds",
    f"Of {len(paper)} such statements of the paper {len(both)} are judged on its benchmarks and on ours. What holds on all of its "
    f"own and not on all of ours: {' '.join(row.statement.statement for row in worse)}",
    0 < len(worse) < len(both),
)

# %% [markdown]
# ## Where lines of chapters say otherwise
#
# Other statements of the paper, its readers, its authors' code and its sources:

# %% tags=["hide-input"]
differ = [row for row in table if row.word == "differs"]
show_table([words.cells(row) for row in differ if row.statement.source != "derived"])

# %% [markdown]
# What we had derived. Before the measurement we believed these; most were written down as consequences of the theory:

# %% tags=["hide-input"]
show_table([words.cells(row) for row in differ if row.statement.source == "derived"])

# %% [markdown]
# ## What is not settled
#
# First what is unknown about the paper.

# %% tags=["hide-input"]
unsettled = {why: [one for one in book.statements if one.why == why] for why in ledger.REASONS}
show_markdown(words.reasons(unsettled["unknown"]))

# %% [markdown]
# What has not been run, or not in a way that decides it:

# %% tags=["hide-input"]
show_markdown(words.reasons(unsettled["not run"]))

# %% [markdown]
# What experiments cannot settle:

# %% tags=["hide-input"]
show_markdown(words.reasons(unsettled["theory"]))

# %% tags=["hide-input"]
claim(
    "more-are-open-for-want-of-a-line",
    f"Of {sum(map(len, unsettled.values()))} open statements {len(unsettled['no line'])} are open for want of a line only: a proof, a unit test or a "
    "table holds them, or they are quick to check. They are in the lists below.",
    len(unsettled["no line"]) < 0.1 * sum(map(len, unsettled.values())),
)

# %% [markdown]
# ## The ledger
#
# One row a statement. Its word, and beside it the verdicts on the paper's benchmarks and on ours; a dash where nothing but lines
# of chapters speaks.
#
# ### Plasticity and the kernel
#
# The paper's section 2: what plasticity is, and what the empirical tangent kernel has to do with it.

# %% tags=["hide-input"]
section(1)

# %% [markdown]
# ### Isometric networks
#
# The paper's section 3, and the literature that it stands on.

# %% tags=["hide-input"]
section(2)

# %% [markdown]
# ### The regulariser
#
# The paper's section 4.2 with eq. 16, and conventions of its authors' code.

# %% tags=["hide-input"]
section(3)

# %% [markdown]
# ### Revival
#
# The paper's section 4.3 and its figure on dormant units.

# %% tags=["hide-input"]
section(4)

# %% [markdown]
# ### AdamO
#
# The paper's section 4.4 with eqs. 19 and 20.

# %% tags=["hide-input"]
section(5)

# %% [markdown]
# ### Earlier methods
#
# The paper's section on earlier methods. It is known to us by its claim alone.

# %% tags=["hide-input"]
section(6)

# %% [markdown]
# ### Experiments
#
# What is known of the paper's experiments. Their results are not.

# %% tags=["hide-input"]
section(7)

# %% [markdown]
# ## Objections
#
# What readers of the paper object to, and what we do; what the experiments of this book say; and what remains.

# %% tags=["hide-input"]
show_markdown(words.objections(book.objections))

# %% [markdown]
# ## What is unknown about the paper
#
# Whoever has its full text can close these at a glance:
#
# - the definition of plasticity as printed, eqs. 1 to 13, 15, 17 and 18, and whether a theorem links isometry to
#   $\kappa(\Theta)$;
# - of the supervised runs: batch size, epochs, number of tasks, sizes of subsets, normalisation, whether the optimizer is
#   reset; the gain of the initialisation; the convolutional network and the transformer; which of them has the learning
#   rate 1e-3;
# - the list of baselines and how each was tuned; the comparison of earlier methods as printed;
# - the threshold of the figure on dormant units; how convolution kernels are reshaped; whether the head is regularised in
#   ordinary ReLU networks, and how the softer regulariser of Lipschitz heads looks; details of the orthogonalisation;
# - the strength in the reinforcement-learning runs as printed, and the number of seeds on Octax;
# - every numerical result, what it cost to compute, and the limits that the authors discuss.
#
# ## What to conclude, and what not
#
# - The algebra of the method is exact and checked: gradient, flow, limits, stability, the motion of a dead row, what the
#   update leaves alone.
# - That a penalty on singular values keeps networks plastic is reproduced, at small scale and at larger strengths than the
#   printed one. That isometry of the weights is *the* cause, that decoupling is what matters, and that revival explains the
#   gain are not borne out where we could test them.
# - In games single visits fail without the penalty and none with it ({doc}`continual_minatar`), in one game for the most part.
#   Whether agents lose plasticity on average, at the authors' scale, is open.
# - "Checked" is no more than its line. Most lines are about small networks, one or two streams or games, and a handful of
#   seeds. "Reproduced" is at the scale of tier check. A claim about games that is not reproduced there was asked at over a hundred times fewer updates than the
#   authors' scripts make. No statement about the paper's own numbers is checked, as we have none of them.
#
# ## Try changing
#
# The ledger is `book/statements.toml`. Change the name of an observation or of a claim there, or take out a `differ` beside a
# verdict that says *not*, and this page is not made until they fit again; the message names the entry.
#
# ## Exercise
#
# Pick a statement that is open for want of a line, write the line into its chapter, and close the entry.
#
# **What is next.** {doc}`How dyniso is built <how_dyniso_is_built>`: where such a line goes, and what has to run then.

# %% tags=["hide-input"]
stamp(notebook="where_we_differ", wall_s=time.perf_counter() - started)
