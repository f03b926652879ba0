"""The library's reference: one page a module, found in the packages; and docstrings as reStructuredText.

A docstring of the house is text with `names`, indented formulas, doctests, and the sections Args, Attributes, Returns,
Yields, Raises and Source. Sphinx's autodoc reads it through `rest` (see book_extension.py); napoleon is not used, since
it takes the first colon of a sentence below Returns for a type, and knows neither one-line sections nor plain formulas.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Source):(?:\s+(.*))?$")
LISTS = {"Args": "Arguments", "Attributes": "Attributes", "Raises": "Raises"}  # sections whose lines are `name: text`
FIELD = re.compile(r"^    (\w+): [^#\n]+#:? (.+)$", re.MULTILINE)  # of a NamedTuple or dataclass: `name: type  # text`
WORDS = re.compile(r'"?[\w-]+"?(, "?[\w-]+"?)*: ')
NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
PARTS = (("Core", "torch and numpy alone"), ("Study", "declares and trains"), ("Report", "reads what is stored"))


# ------------------------------------------------------------------------------------------------------ docstrings


def rest(docstring: Sequence[str]) -> list[str]:
    """The lines of a docstring of the house, as reStructuredText.

    >>> rest(["Half of `x`.", "", "    y = x/2", "", "Source: eq. 1.", ">>> half(2)", "1"])[:7]
    ['Half of :py:obj:`x`.', '', '.. code-block:: text', '', '    y = x/2', '', ':Source:']
    """
    found: list[str] = []
    for block in blocks(list(docstring)):
        found += [*rendered(block), ""]
    return found


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """A docstring cut into sections, doctests, formulas and paragraphs."""
    block: list[str] = []
    for line in lines:
        doctest, inside = line.startswith(">>>"), bool(block) and block[0].startswith(">>>")
        section = bool(block) and SECTION.match(block[0]) is not None and line[:1] in (" ", "")
        starts = SECTION.match(line) or (doctest and not inside)
        if starts or (not line.strip() and not section) or (section_over(block) and line[:1] not in (" ", "")):
            if any(part.strip() for part in block):
                yield block
            block = []
        block.append(line)
    if any(part.strip() for part in block):
        yield block


def section_over(block: list[str]) -> bool:
    """Whether a line that is not indented ends the block: it does after a section and after a formula."""
    return bool(block) and bool(SECTION.match(block[0]) or block[0].startswith(" "))


def rendered(block: list[str]) -> list[str]:
    """One block, as reStructuredText."""
    block = [line for line in block if line.strip()] if not block[0].strip() else block
    section = SECTION.match(block[0])
    if block[0].startswith(">>>"):
        return block
    if block[0].startswith(" "):
        return [".. code-block:: text", "", *("    " + line for line in textwrap.dedent("\n".join(block)).splitlines())]
    if not section:
        return listed(block)
    first, body = section[2], textwrap.dedent("\n".join(block[1:])).splitlines()
    lines = [*([first] if first else []), *body]
    inside = items(lines) if section[1] in LISTS else listed(lines)
    return [f":{LISTS.get(section[1], section[1])}:", *("    " + line for line in inside)]


def items(lines: list[str]) -> list[str]:
    """Lines `name: text`, each with its indented continuation, as a list with the names in bold."""
    found: list[str] = []
    for head, *more in paragraphs(lines):
        name, _, text = head.partition(":")
        bold = ", ".join(f"**{escaped(part)}**" for part in name.split(", "))
        first, *others = with_list(text.strip(), textwrap.dedent("\n".join(more)).splitlines())
        found += [f"* {bold}: {first}", *("  " + line for line in others)]
    return found


def paragraphs(lines: Iterable[str]) -> list[list[str]]:
    """Lines grouped: one that is not indented begins a group."""
    groups: list[list[str]] = []
    for line in lines:
        if line.strip() and (not groups or not line.startswith(" ")):
            groups.append([line])
        elif line.strip():
            groups[-1].append(line)
    return groups


def listed(lines: list[str]) -> list[str]:
    """Plain text as one paragraph, or as a list where it hangs."""
    return bullets(lines) if hangs(lines) else with_list(lines[0], lines[1:])


def with_list(first: str, others: list[str]) -> list[str]:
    """A line and those that continue it as one paragraph, or with a list below it where they hang."""
    if hangs(others):
        return [inline(first), "", *bullets(others)]
    return [inline(" ".join(line.strip() for line in (first, *others)))]


def hangs(lines: Sequence[str]) -> bool:
    """Whether text is a list: lines with a dash, lines with others indented below them, or lines `word: text`."""
    heads = [line for line in lines if not line.startswith(" ")]
    if heads and heads[0].startswith("- "):
        return True
    return len(heads) > 1 and (len(heads) < len(lines) or all(WORDS.match(line) for line in heads))


def bullets(lines: Sequence[str]) -> list[str]:
    """One bullet for each line that is not indented, with what hangs below it."""
    return [f"* {inline(' '.join(part.strip() for part in group).removeprefix('- '))}" for group in paragraphs(lines)]


def inline(text: str) -> str:
    """`name` becomes a link where the reference has that name, other `code` is literal, and all else means itself.

    >>> inline("`gram` of *all* runs, `a + b`s")
    ':py:obj:`gram` of \\\\*all\\\\* runs, ``a + b``\\\\ s'
    """
    parts = re.split(r"(``[^`]+``|(?:\{[a-z:]+\})?`[^`]+`)", text)
    for index in range(1, len(parts), 2):
        before, code, after = parts[index - 1][-1:], re.sub(r"^`+|`+$", "", parts[index]), parts[index + 1][:1]
        marked = f":py:obj:`{code}`" if NAME.fullmatch(code) else f"``{code}{'`' * ('`' in code)}``"
        parts[index] = "\\ " * joins(before) + marked + "\\ " * joins(after)
    return "".join(part if index % 2 else escaped(part) for index, part in enumerate(parts))


def joins(character: str) -> bool:
    """Whether markup right beside a character needs a mark between, to be seen as markup."""
    return character.isalnum() or (character != "" and character in "(_=")


def escaped(text: str) -> str:
    """Text whose stars, bars, backslashes, lone backticks and trailing underscores mean themselves."""
    return re.sub(r"([\\*|`]|_(?!\w))", r"\\\1", text)


def fields(source: str) -> list[str]:
    """The commented fields of a NamedTuple or dataclass, as a list; nothing if no field has a comment.

    >>> fields("class Spectrum(NamedTuple):\\n    max: Tensor  # the largest value\\n")
    [':Fields:', '    * **max**: the largest value', '']
    """
    found = FIELD.findall(source)
    return [":Fields:", *(f"    * **{escaped(name)}**: {inline(text)}" for name, text in found), ""] if found else []


# ----------------------------------------------------------------------------------------------------------- pages


def documented(package: Path = ROOT / "dyniso") -> dict[str, Path]:
    """The modules that have a page: all but what `python -m dyniso` runs."""
    from dyniso.study.sources import modules

    return {name: path for name, path in modules(package).items() if not name.endswith("__main__")}


def part_of(module: str) -> str:
    """The room of the house that a module is in: Core, Study or Report."""
    second = (*module.split("."), "")[1].capitalize()
    return {"Study": "Study", "Report": "Report", "Cli": "Report"}.get(second, "Core")


def module_page(module: str) -> str:
    """The page of one module, in MyST; in no table of contents, as a sidebar of a hundred modules helps nobody."""
    title = module.removeprefix("dyniso.")
    shown = f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
    return f"---\norphan: true\n---\n\n# {title}\n\n{shown}"


def overview(modules: Iterable[str], front_door: dict[str, str]) -> str:
    """The first page: what `from dyniso import ...` gives, then every module with its first line, by room."""
    names = [f"~dyniso.{home}.{name}" for name, home in sorted(front_door.items())]
    text = [
        "# Library reference",
        "Made from the docstrings. `from dyniso import ...` gives these names; the core needs torch and numpy alone.",
        autosummary(names),
    ]
    known = list(modules)
    for part, says in PARTS:
        text += [f"## {part}: {says}", autosummary([name for name in known if part_of(name) == part])]
    return "\n\n".join(text) + "\n"


def autosummary(names: Iterable[str]) -> str:
    listing = "\n".join(f"   {name}" for name in names)
    return f"```{{eval-rst}}\n.. autosummary::\n   :nosignatures:\n\n{listing}\n```"


def write_pages(folder: Path = ROOT / "book" / "api") -> None:
    """Write every page that changed, and remove those whose module is gone."""
    import dyniso

    pages = {f"{name}.md": module_page(name) for name in documented() if name != "dyniso"}
    pages["index.md"] = overview([*documented()][1:], dyniso._HOME)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def interface(source: str) -> str:
    '''What the reference shows of a module: signatures, docstrings and fields, without bodies.

    >>> interface("def f(x):  # why\\n    'Half.'\\n    return x / 2")
    'def f(x):\\n    """Half."""[]'
    '''
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[:1] if ast.get_docstring(node) else [ast.Pass()]
    return ast.unparse(tree) + repr(FIELD.findall(source))
