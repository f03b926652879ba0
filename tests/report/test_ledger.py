"""The ledger: its data file, the chapters' lines that it names, and how both are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dyniso.report import ledger
from dyniso.report.notebook import ClaimLine, claim_lines, find_claim

ROOT = Path(__file__).parents[2]
BOOK = ledger.read(ROOT / "book" / "statements.toml")
CHAPTERS = ledger.Chapters(ROOT / "notebooks")


# ------------------------------------------------------------------------------------------------------ claim lines


@pytest.mark.parametrize(
    ("source", "number", "sentence"),
    [
        ('claim("1. Two is less than three.", True)', 1, "Two is less than three."),
        ('claim("No number.", True)', None, "No number."),
        ("claim(f'12. Off by {gap:.0e} of {a[0]}.', True)", 12, "Off by … of …."),
        ('claim("2. In two "\n    f"{kind} pieces.", True)', 2, "In two … pieces."),
        ('claim("3. From {:.2f} to {x}.".format(*pair, x=1), True)', 3, "From … to …."),
        ('claim("4. The " + name("x") if 0 else "4. Other", True)', None, ""),
        ('claim("5. One " + f"{n} two", True)', 5, "One … two"),
        ('claim("6. One " + rest, True)', None, ""),
        ("claim(text, True)", None, ""),
        ('book.claim(sentence="7. By keyword.", holds=True)', 7, "By keyword."),
        ('for kind in kinds:\n    claim(f"{kind}: holds.", True)', None, "…: holds."),
    ],
)
def test_sentence_of_a_claim_is_read_without_running_it(source: str, number: int | None, sentence: str) -> None:
    (line,) = claim_lines(source)
    assert (line.number, line.sentence) == (number, sentence)


def test_claim_lines_come_in_the_order_of_the_source_and_other_calls_are_not_among_them() -> None:
    source = 'if a:\n    claim("2. b", x)\nclaims("no")\nclaim("1. c", y)\n'
    assert claim_lines(source) == [ClaimLine(2, "b", 2), ClaimLine(1, "c", 4)]


LINES = [ClaimLine(1, "AdamO keeps most.", 10), ClaimLine(2, "AdamO keeps … of it.", 20), ClaimLine(None, "", 30)]


def test_phrase_finds_its_line_whatever_its_white_space() -> None:
    assert find_claim(LINES, "keeps  …\n of it") == LINES[1]


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ("AdamO keeps", "'AdamO keeps' is in 2 claim lines, in source lines 10, 20"),
        (
            "Muon",
            "'Muon' is in none of 3 claim lines; not searched, as their sentence is not written out: source lines 30",
        ),
        ("", "'' is in none of 3 claim lines; not searched, as their sentence is not written out: source lines 30"),
    ],
)
def test_phrase_of_no_line_or_of_several_is_an_error(phrase: str, message: str) -> None:
    with pytest.raises(LookupError) as error:
        find_claim(LINES, phrase)
    assert str(error.value) == message


# ---------------------------------------------------------------------------------------------------- the data file


def test_every_phrase_of_the_ledger_is_in_exactly_one_claim_line() -> None:
    assert CHAPTERS.problems(BOOK) == []


def test_every_chapter_of_the_ledger_exists() -> None:
    named = {piece.chapter for one in BOOK.entries for piece in one.evidence}
    assert named <= CHAPTERS.paths.keys()


def test_statements_are_in_the_order_of_their_sections() -> None:
    sections = [tuple(map(int, one.id.split("-")[0].split("."))) for one in BOOK.statements]
    assert sections == sorted(sections)


def test_no_statement_is_in_the_ledger_twice() -> None:
    texts = [one.statement for one in BOOK.statements]
    assert sorted(set(texts)) == sorted(texts)


def test_counts_of_the_sections_add_up() -> None:
    whole = BOOK.counts()
    parts = [BOOK.counts(number) for number in {one.section for one in BOOK.statements}]
    assert {status: sum(part[status] for part in parts) for status in whole} == whole
    assert sum(whole.values()) == len(BOOK.statements)


GOOD = """
[[statement]]
id = "1.1-a"
source = "paper"
statement = "It is so."
evidence = [{ chapter = "01_x", says = "so" }]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("evidence =", "evidense =", "statement 1.1-a: unknown key 'evidense'; did you mean evidence?"),
        ("says =", "say =", "statement 1.1-a, evidence: unknown key 'say'; did you mean says?"),
        ("[[statement]]", "[[statment]]", "x.toml: unknown key 'statment'; did you mean statement?"),
        ('"paper"', '"papers"', "statement 1.1-a: source = 'papers'; did you mean paper?"),
        ('statement = "It is so."', "", "statement 1.1-a: no statement"),
        ('id = "1.1-a"', "", "statement (without an id): no id"),
        ("evidence =", 'differ = "by two"\n#', "statement 1.1-a: differ without evidence"),
        ("evidence =", "#", "statement 1.1-a: expected either evidence or open"),
        (
            "evidence =",
            'open = "not run"\nwhy = "not run"\nevidence =',
            "statement 1.1-a: expected either evidence or open",
        ),
        ("evidence =", 'open = "why"\nwhy = "no lin"\n#', "statement 1.1-a: why = 'no lin'; did you mean no line?"),
        ("evidence =", 'why = "not run"\nevidence =', "statement 1.1-a: why without open"),
        (', says = "so"', "", "statement 1.1-a: Evidence.__init__() missing 1 required positional argument: 'says'"),
    ],
)
def test_a_wrong_entry_is_an_error_that_names_it(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    (tmp_path / "x.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError) as error:
        ledger.read(tmp_path / "x.toml")
    assert str(error.value).startswith(message)


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(GOOD + GOOD)
    with pytest.raises(ValueError, match=r"x.toml: the id '1.1-a' is there 2 times"):
        ledger.read(tmp_path / "x.toml")


# ------------------------------------------------------------------------------------------------ entries as a page


@pytest.fixture
def chapters(tmp_path: Path) -> ledger.Chapters:
    source = (
        '# %% [markdown]\n# # A toy\n\n# %%\nclaim("1. It is so.", a)\nclaim("2. Or not.", b)\nclaim("Maybe.", c)\n'
    )
    (tmp_path / "01_x.py").write_text(source)
    return ledger.Chapters(tmp_path)


def evidence(*phrases: str, chapter: str = "01_x") -> tuple[ledger.Evidence, ...]:
    return tuple(ledger.Evidence(chapter, says) for says in phrases)


def test_links_name_each_line_once_in_order_and_quote_one_without_number(chapters: ledger.Chapters) -> None:
    assert chapters.links(evidence("Maybe", "not", "is so", "It is")) == "[A toy](01_x.ipynb) 1, 2, “Maybe.”"


def test_row_says_where_a_statement_is_checked_or_why_it_is_not(chapters: ledger.Chapters) -> None:
    checked = ledger.Statement("1.1-a", "paper", "So.", evidence("is so"))
    differs = ledger.Statement("1.1-b", "code", "Not.", evidence("not"), differ="By two.", open="Why.", why="not run")
    missing = ledger.Statement("1.1-c", "derived", "Else.", open="Not run.", why="not run")
    assert chapters.row(checked) == "So. (*the paper*)\\\n  Checked: [A toy](01_x.ipynb) 1"
    assert chapters.row(differs).splitlines()[1:] == [
        "  **Differs:** By two. [A toy](01_x.ipynb) 2\\",
        "  **Open:** Why.",
    ]
    assert chapters.row(differs, differ=False).splitlines()[1] == "  **Differs:** [A toy](01_x.ipynb) 2\\"
    assert chapters.row(missing) == "Else. (*our derivation*)\\\n  **Open:** Not run."
    assert [one.status for one in (checked, differs, missing)] == ["checked", "differs", "open"]


def test_problems_name_entry_chapter_and_phrase(chapters: ledger.Chapters) -> None:
    wrong = ledger.Statement("1.1-a", "paper", "So.", (*evidence("never"), *evidence("so", chapter="01_y")))
    assert chapters.problems(ledger.Ledger((wrong,), ())) == [
        "1.1-a: 01_x: 'never' is in none of 3 claim lines",
        "1.1-a: no chapter '01_y'; did you mean 01_x? (known: 01_x)",
    ]


def test_ledger_needs_no_torch() -> None:
    code = "import sys; from dyniso import ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
