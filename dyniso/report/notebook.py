"""What a chapter of the book needs: checked sentences, captioned figures, a closing stamp; and what the chapters'
sources say: their lines of `claim`.

`claim` and `show` mark their outputs with metadata under the key "dyniso"; tools/notebooks.py reads those marks when it
saves the executed chapter.
"""

from __future__ import annotations

import ast
import base64
import io
import os
import re
import shlex
import struct
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

DPI = 150  # pixels an inch of the picture; a browser lays out 96 an inch, so the picture is 1.6 times finer than needed
CSS_DPI = 96
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ROLE = re.compile(r"\{[a-z:]+\}`([^`]*)`")


def claim(name: str, sentence: str, holds: Any) -> None:
    """Show a sentence that has just been checked, or stop the chapter.

    In the book it is a numbered observation with its condition behind a fold; {prf:ref}`name` refers to it, from any
    page, and book/statements.toml names it as evidence.

    Args:
        name: lower-case words joined by hyphens, e.g. "adam-loses"; unique in the book.
        sentence: what is claimed, as a reader should read it; MyST, e.g. with $mathematics$.
        holds: bool, or a numpy or torch scalar of type bool.
    Raises:
        AssertionError: `holds` is false (the message is name and sentence).
        TypeError: `holds` is not a single truth value, e.g. a number or an array.
        ValueError: the name is malformed.

    >>> claim("two-three", "Two is less than three.", 2 < 3)
    ✓ Two is less than three.
    """
    require_label("claim", name)
    sentence = " ".join(sentence.split())
    scalar = str(getattr(holds, "dtype", "")) in ("bool", "torch.bool") and getattr(holds, "ndim", None) == 0
    if not (isinstance(holds, bool) or scalar):
        raise TypeError(f"claim {name!r}: expected True or False, got {type(holds).__name__} {holds!r}")
    if not holds:
        raise AssertionError(f"{name}: {sentence}")
    text = f"✓ {sentence}"
    display({"text/markdown": text, "text/plain": text}, {"dyniso": {"claim": name, "sentence": sentence}})


def require_label(what: str, name: str) -> None:
    """Raise ValueError unless a name is made of lower-case words joined by hyphens."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}; a name is lower-case words joined by hyphens, e.g. 'adam-loses'")


class ClaimLine(NamedTuple):
    """One call of `claim` in the source of a chapter."""

    name: str  # of the observation; inserted values as "…"
    sentence: str  # inserted values as "…"; empty if the call does not write it out
    condition: str  # the source of what was checked
    line: int  # of the source


def claim_lines(source: str) -> list[ClaimLine]:
    """Every call of `claim` in a chapter's source, in order; the source is parsed and not executed.

    >>> claim_lines('claim("two", f"Two is {word} than " "three.", 2 < 3)')
    [ClaimLine(name='two', sentence='Two is … than three.', condition='2 < 3', line=1)]
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] != "claim":
            continue
        given = dict(zip(("name", "sentence", "holds"), node.args, strict=False))
        given |= {
            keyword.arg: keyword.value for keyword in node.keywords if keyword.arg in ("name", "sentence", "holds")
        }
        name, sentence = (
            " ".join((written_text(given[k]) or "").split()) if k in given else "" for k in ("name", "sentence")
        )
        condition = ast.get_source_segment(source, given["holds"]) or "" if "holds" in given else ""
        found.append(ClaimLine(name, sentence, textwrap.dedent(condition), node.lineno))
    return sorted(found, key=lambda claimed: claimed.line)


def written_text(node: ast.expr) -> str | None:
    """The text of a string expression, inserted values as "…"; None if it is not written out there."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = [text for text in (written_text(left), written_text(right)) if text is not None]
            return "".join(texts) if len(texts) == 2 else None
        case ast.Call(func=ast.Attribute(value=template, attr="format")):
            written = written_text(template)
            pieces = None if written is None else Formatter().parse(written)
            return None if pieces is None else "".join(b + ("" if name is None else "…") for b, name, *_ in pieces)
    return None


def is_named(claimed: ClaimLine, name: str) -> bool:
    """Whether a line shows the observation of that name; a name with inserted values fits whatever is inserted."""
    pattern = ".+".join(re.escape(part) for part in claimed.name.split("…"))
    return bool(claimed.name) and re.fullmatch(pattern, name) is not None


def show(fig: Figure, table: DataFrame, *, name: str, caption: str, alt: str) -> None:
    """Show a figure with its caption and text alternative, and save the plotted points as <name>.csv.

    In the book the figure is numbered and {numref}`name` refers to it. One `show` a cell, as that cell's only display.

    Args:
        fig: any size. Drawn on a transparent ground: axes and text need colours that read on white and on dark.
        table: exactly the plotted points, one row a point.
        name: label and file name, lower-case words joined by hyphens, e.g. "fig-singular-values"; unique in the book.
        caption: one paragraph of MyST, e.g. with $mathematics$ and {cite:p}`keys`; says the number of seeds.
        alt: states the finding for someone who cannot see the figure. Plain text.
    Raises:
        ValueError: caption, alt or table is empty, the caption has a blank line, or the name is malformed.
    Writes <name>.csv to the folder $DYNISO_FIGURES, or ./figures.
    """
    for field, text in (("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"figure {name!r}: {field} is empty")
    if "\n\n" in caption.strip():
        raise ValueError(f"figure {name!r}: the caption must be one paragraph")
    require_label("figure", name)
    if table.empty:
        raise ValueError(f"figure {name!r}: the table of plotted points is empty")
    caption, alt = " ".join(caption.split()), " ".join(alt.split())

    folder = Path(os.environ.get("DYNISO_FIGURES") or "figures")
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")

    png = picture(fig)
    (pixels,) = struct.unpack(">I", png[16:20])  # the width, from the PNG header
    marks = {"name": name, "caption": caption, "alt": alt}
    image = {"width": round(pixels * CSS_DPI / DPI), "alt": alt}
    display({"image/png": base64.b64encode(png).decode(), "text/plain": alt}, {"image/png": image, "dyniso": marks})
    display({"text/markdown": ROLE.sub(r"\1", caption), "text/plain": caption}, {"dyniso": {"drop": True}})


def picture(fig: Figure) -> bytes:
    """The figure as a transparent PNG; the figure is closed, so that a notebook does not show it a second time."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, transparent=True, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def display(data: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
    """Hand a MIME bundle to the notebook; as a plain script, print its text."""
    try:
        from IPython import display as ipython
        from IPython import get_ipython
    except ImportError:
        print(data["text/plain"])
        return
    if get_ipython() is None:
        print(data["text/plain"])
    else:
        ipython.display(dict(data), metadata=dict(metadata), raw=True)


def show_markdown(text: str) -> None:
    """Show Markdown that a cell has made: in the book it may carry mathematics, tables and citations."""
    display({"text/markdown": text, "text/plain": text}, {})


def show_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Show rows that share their keys as a table in the page's own style; numbers come formatted, as text."""
    show_markdown(table(rows))


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows that share their keys as a Markdown table.

    >>> print(table([{"method": "Adam", "norm": "|w|"}]))
    | method | norm |
    |:--|:--|
    | Adam | \\|w\\| |
    """
    lines = [[str(cell).replace("|", "\\|") for cell in line] for line in (rows[0], *(row.values() for row in rows))]
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + ":--|" * len(lines[0]), *body])


def show_frame(frame: DataFrame, formats: Sequence[str], note: str) -> None:
    """Show a table of numbers and what they are; headings may carry mathematics.

    Args:
        frame: one row a line, its index (with a name) the first column. A missing value is left empty.
        formats: one for each column, e.g. "{:.2f}".
        note: a paragraph of MyST below the table.
    >>> from pandas import DataFrame
    >>> show_frame(DataFrame({"net": ["a", "b"], "P": [0.5, float("nan")]}).set_index("net"), ["{:.2f}"], "Two nets.")
    | net | P |
    |:--|--:|
    | a | 0.50 |
    | b |  |
    <BLANKLINE>
    Two nets.
    """

    def cell(value: float, form: str) -> str:
        return "" if value != value else form.format(value).replace("inf", "∞")

    lines = [[str(frame.index.name), *map(str, frame.columns)]]
    for name, *values in frame.itertuples(name=None):
        lines.append([str(name), *map(cell, values, formats)])
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    show_markdown("\n".join([head, "|:--|" + "--:|" * len(frame.columns), *body, "", note]))


def stamp(**facts: Any) -> None:
    """Show what produced this page, as a table. The arguments are those of `stamp_table` after the first."""
    from ..study.provenance import provenance

    show_markdown(stamp_table(provenance(), **facts))


def stamp_table(
    made_by: Mapping[str, str],
    *,
    notebook: str,
    parameters: Mapping[str, object] | None = None,
    specs: Mapping[str, str] | None = None,
    seeds: Iterable[int] = (),
    hardware: str | None = None,
    wall_s: float | None = None,
) -> str:
    """A Markdown table of what produced a page.

    Args:
        made_by: `dyniso.study.provenance.provenance()`; a commit that ends in + had uncommitted changes.
        notebook: name without folder and suffix, e.g. "adamo".
        parameters: the values of the parameters cell.
        specs: experiment name -> digest of the spec whose stored rows the page reads.
        seeds: the seeds of those rows.
        hardware: what the stored rows were computed on, where that is not this machine.
        wall_s: seconds that this page took.

    >>> made_by = {"dyniso": "0.1.0", "commit": "abc1234+", "torch": "2.13.0", "hardware": "a CPU"}
    >>> print(stamp_table(made_by, notebook="adamo", parameters={"tier": "check"}, seeds=range(4)))
    | What produced this page | |
    |:--|:--|
    | dyniso | 0.1.0 |
    | executed at commit | abc1234 + changes |
    | torch | 2.13.0 |
    | this page ran on | a CPU |
    | parameters | `tier = 'check'` |
    | seeds | 0 to 3 (4) |
    | run it again | `python tools/notebooks.py run notebooks/adamo.py -p tier check` |
    """
    parameters, specs, seeds = parameters or {}, specs or {}, sorted(seeds)
    contiguous = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    seed_text = f"{seeds[0]} to {seeds[-1]} ({len(seeds)})" if contiguous else ", ".join(map(str, seeds))
    command = ["python", "tools/notebooks.py", "run", f"notebooks/{notebook}.py"]
    for key, value in parameters.items():
        command += ["-p", key, str(value)]
    rows = {
        "dyniso": made_by["dyniso"],
        "executed at commit": made_by["commit"].replace("+", " + changes"),
        "torch": made_by["torch"],
        "this page ran on": made_by["hardware"],
        "stored results ran on": hardware or "",
        "parameters": ", ".join(f"`{key} = {value!r}`" for key, value in parameters.items()),
        "seeds": seed_text,
        "specs": ", ".join(f"{key} `{digest}`" for key, digest in specs.items()),
        "wall time": "" if wall_s is None else f"{wall_s:.1f} s",
        "run it again": f"`{shlex.join(command)}`",
    }
    return "\n".join(
        ["| What produced this page | |", "|:--|:--|", *(f"| {key} | {text} |" for key, text in rows.items() if text)]
    )
