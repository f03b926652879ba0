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

from dyniso.report import claims, ledger
from dyniso.study import specs, store
from dyniso.report.notebook import claim, show_markdown, show_table, stamp

started = time.perf_counter()
root = store.PACKAGE.parent
book = ledger.read(root / "book" / "statements.toml")
chapters = ledger.Chapters(root / "notebooks")
if problems := chapters.problems(book):
    raise LookupError("; ".join(problems))
SECTIONS = {
    1: "Plasticity and the kernel",
    2: "Isometric networks",
    3: "The regulariser",
    4: "Revival",
    5: "AdamO",
    6: "Earlier methods",
    7: "Experiments",
}


def bullets(lines):
    """Show Markdown lines as a list."""
    show_markdown("\n".join(f"- {line}" for line in lines))


def section(number):
    """Show the statements of one section, each with where it is checked or why it is not."""
    bullets(chapters.row(one, differ=False) for one in book.statements if one.section == number)


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
# - *our derivation*: a reconstruction of what the paper may prove, or a consequence. The paper is not to be blamed for it.
#
# **Checked** means that a line of a chapter holds it: an observation that was executed when that chapter was made, at the
# scale of that chapter. The number after a chapter's name is the number of that line. **Differs** means that the same is
# so, and that the measurement does not say what the statement says. **Open** means that no line checks it; the reason
# stands beside it.

# %% tags=["hide-input"]
total = book.counts()
show_table(
    [
        {"section": name, "statements": str(sum(counts.values())), "checked / differs / open": cells}
        for number, name in SECTIONS.items()
        for counts in [book.counts(number)]
        for cells in [" / ".join(str(counts[status]) for status in ledger.STATUSES)]
    ]
    + [
        {
            "section": "all",
            "statements": str(sum(total.values())),
            "checked / differs / open": " / ".join(map(str, total.values())),
        }
    ]
)

# %% tags=["hide-input"]
pieces = [piece for one in book.entries for piece in one.evidence]
used = {(chapter, one.line) for chapter, one in map(chapters.find, pieces)}
claim(
    "statements-line-chapter-checks",
    f"Each of {len(book.statements)} statements has the line of a chapter that checks it, or a reason why none does.",
    all(one.evidence or one.open for one in book.statements),
)
claim(
    "references-found-names-one",
    f"All {len(pieces)} references are found: each names one line and no other, {len(used)} different lines in "
    f"{len({name for name, _ in used})} chapters.",
    problems == [],
)
claim(
    "statements-checked-agree-differ",
    f"{total['checked']} statements are checked and agree, {total['differs']} differ, {total['open']} are open.",
    sum(total.values()) == len(book.statements) and {one.section for one in book.statements} == set(SECTIONS),
)
stated = [one.status for one in book.statements if one.source in ("paper", "readers")]
claim(
    "statements-paper-or-readers",
    f"Of {len(stated)} statements by the paper or its readers, {stated.count('checked')} agree, {stated.count('differs')} "
    f"differ and {stated.count('open')} are open.",
    len(stated) == sum(stated.count(status) for status in ledger.STATUSES),
)

# %% [markdown]
# ## Where our measurements differ
#
# ### From the paper, its readers or its sources

# %% tags=["hide-input"]
bullets(chapters.row(one) for one in book.statements if one.differ and one.source != "derived")

# %% [markdown]
# ### From what we had derived
#
# Before the measurement we believed these; most were written down as consequences of the theory.

# %% tags=["hide-input"]
bullets(chapters.row(one) for one in book.statements if one.differ and one.source == "derived")

# %% [markdown]
# ## What is not settled
#
# First what is unknown about the paper.

# %% tags=["hide-input"]
unsettled = {why: [one for one in book.statements if one.why == why] for why in ledger.REASONS}
bullets(ledger.hard_lines(one.statement, f"→ {one.open}") for one in unsettled["unknown"])

# %% [markdown]
# What has not been run, or not in a way that decides it:

# %% tags=["hide-input"]
bullets(ledger.hard_lines(one.statement, f"→ {one.open}") for one in unsettled["not run"])

# %% [markdown]
# What experiments cannot settle:

# %% tags=["hide-input"]
bullets(ledger.hard_lines(one.statement, f"→ {one.open}") for one in unsettled["theory"])

# %% tags=["hide-input"]
claim(
    "more-open-want-line",
    f"{len(unsettled['no line'])} more are open for want of a line only: a proof, a unit test or a table holds them, or they "
    "are quick to check. They are in the lists below.",
    sum(map(len, unsettled.values())) == sum(bool(one.open) for one in book.statements),
)

# %% [markdown]
# ## Verdicts
#
# The ledger is about lines of chapters. Beside it stand claims that are judged by one rule from the stored tables of tier
# check, on streams and on games (`dyniso claims` prints them with their intervals): *reproduced* if every experiment of a
# claim speaks for it, *not* if every one speaks against it, *partly* in any other case, *not run* if something is missing.

# %% tags=["hide-input"]
judged = claims.judge_all("check")
halves = {"streams": [], "games": []}
for one, verdict in judged:
    halves["games" if set(one.experiments) <= specs.REINFORCEMENT.keys() else "streams"].append(verdict.verdict)
show_table(
    [
        {"claims about": half, "all": str(len(found))} | {v: str(found.count(v)) for v in claims.VERDICTS}
        for half, found in halves.items()
    ]
)

# %% tags=["hide-input"]
not_run = {half: found.count("not run") for half, found in halves.items()}
claim(
    "claims-about-streams-reproduced",
    f"Of {len(halves['streams'])} claims about streams {halves['streams'].count('reproduced')} are reproduced, of "
    f"{len(halves['games'])} about games {halves['games'].count('reproduced')}; {sum(not_run.values())} are not run for want "
    f"of a table: {', '.join(f'{half} {count}' for half, count in not_run.items())}.",
    sum(map(len, halves.values())) == len(claims.CLAIMS)
    and all((verdict.verdict == "not run") == bool(verdict.missing) for _, verdict in judged),
)

# %% [markdown]
# ## The ledger
#
# Where a measurement differs, the list above says how.
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
bullets(
    ledger.hard_lines(
        f"**{one.objection}** {one.says}",
        f"Remains: {one.open}",
        *([f"See {chapters.links(one.evidence)}"] if one.evidence else []),
    )
    for one in book.objections
)

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
#   seeds. A claim about games that is not reproduced at tier check was asked at over a hundred times fewer updates than the
#   authors' scripts make. No statement about the paper's own numbers is checked, as we have none of them.
#
# ## Try changing
#
# The ledger is `book/statements.toml`. Change a phrase there, or the sentence of a line in a chapter, and this page is not
# made until they fit again; the message names the entry.
#
# ## Exercise
#
# Pick a statement that is open for want of a line, write the line into its chapter, and close the entry.
#
# **What is next.** {doc}`How dyniso is built <how_dyniso_is_built>`: where such a line goes, and what has to run then.

# %% tags=["hide-input"]
stamp(notebook="where_we_differ", wall_s=time.perf_counter() - started)
