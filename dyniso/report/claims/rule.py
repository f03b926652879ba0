"""The one rule from what experiments say to one word, for a claim and for a row of the ledger."""

from __future__ import annotations

from collections.abc import Iterable

SOURCES = {  # who says it, of claims and of statements of the ledger alike
    "paper": "the paper",
    "readers": "readers of the paper",
    "code": "the authors' public code",
    "literature": "cited literature",
    "derived": "our derivation",
    "question": "our question",
}
SIDES = ("for", "against", "undecided", "not testable", "missing")  # what one experiment can say
VERDICTS = ("reproduced", "partly", "not", "undecided", "not testable", "not run")
NONE = "none"  # no experiment of that kind was ever declared


def word(sides: Iterable[str]) -> str:
    """One of VERDICTS, or NONE where there is no experiment.

        not run       something is missing in one of the experiments, whatever the others say
        not testable  in every experiment nothing could be lost; where others can tell, such experiments do not count
        reproduced    all that count speak for it
        partly        at least one speaks for it, and not all do
        not           at least one speaks against it, and none for it
        undecided     none speaks, for or against

    >>> word(["for", "not testable"]), word(["for", "undecided"]), word(["against", "undecided"]), word([])
    ('reproduced', 'partly', 'not', 'none')
    """
    said = set(sides)
    if not said:
        return NONE
    if "missing" in said:
        return "not run"
    counted = said - {"not testable"}
    if not counted:
        return "not testable"
    if "for" in counted:
        return "reproduced" if counted == {"for"} else "partly"
    return "not" if "against" in counted else "undecided"
