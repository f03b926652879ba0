"""Values, docstrings and rows as Markdown that reads on a phone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ...study import store

WORDS = {
    "kind": "stream",
    "dataset": "data set",
    "samples": "samples a task",
    "pool": "pooling",
    "scale": "pixel scale",
    "names": "games",
    "steps_per_game": "steps a visit",
    "curve": "points of a return curve",
}


def shown(value: object) -> str:
    """A value of a spec as text.

    >>> [shown(value) for value in ((0, 1, 2, 3), (100, 101), 3e-4, None, (), True, 10_000, 10.0)]
    ['0 to 3', '100, 101', '0.0003', 'none', 'none', 'yes', '10,000', '10']
    """
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        whole = len(value) > 2 and all(isinstance(v, int) for v in value)
        contiguous = whole and value == tuple(range(value[0], value[-1] + 1))
        return f"{value[0]} to {value[-1]}" if contiguous else ", ".join(map(shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def words(name: str) -> str:
    """The name of a field in words."""
    return WORDS.get(name, name.replace("_", " "))


def plain(text: str) -> str:
    r"""Text of a docstring as Markdown that shows it as it is; what stands in backticks stays code.

    >>> print(plain("strength * |W_l|^2 over `settings_of` a net"))
    strength \* \|W\_l\|^2 over `settings_of` a net
    """
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_|<>$~\\\[\]])", r"\\\1", p) for p in pieces)


def bullets(lines: Iterable[str]) -> str:
    """Lines as a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def folded(title: str, *parts: str) -> str:
    """Markdown that a page shows folded, under its title."""
    return "\n\n".join([f"```{{dropdown}} {title}", *parts, "```"])


def duration(seconds: float) -> str:
    """Seconds for a reader.

    >>> duration(57.2), duration(1377.9), duration(11_000)
    ('57 s', '23 min', '3.1 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def reason(error: Exception) -> str:
    """An error's text without the folder of this machine."""
    return str(error).replace(str(store.results_folder()) + os.sep, "")
