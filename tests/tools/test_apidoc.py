"""Docstrings of the house become reStructuredText that says the same; each module has a page of the reference."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

import apidoc  # noqa: E402

DOCSTRING = """Half of a `weight`, for *all* runs.

    y = x/2
      = x - x/2

What |x| is does not matter: `x + x` is `weight_`.

Args:
    x, y: weights, shape (*batch, out)
        and more.
    scheme: one of these.
        "first": the first,
            in two lines.
        "second": the second.
Returns:
    Two groups: this, and that.
Source: eq. 1,
    and eq. 2.
>>> half(2)
1
""".splitlines()


def test_a_docstring_keeps_its_text_lists_formulas_and_examples() -> None:
    lines = [line.rstrip() for line in apidoc.rest(DOCSTRING)]
    assert "\n".join(lines).strip() == (
        r"""Half of a :py:obj:`weight`, for \*all\* runs.

.. code-block:: text

    y = x/2
      = x - x/2

What \|x\| is does not matter: ``x + x`` is :py:obj:`weight_`.

:Arguments:
    * **x**, **y**: weights, shape (\*batch, out) and more.
    * **scheme**: one of these.

      * "first": the first, in two lines.
      * "second": the second.

:Returns:
    Two groups: this, and that.

:Source:
    eq. 1, and eq. 2.

>>> half(2)
1"""
    )


def test_text_right_after_an_example_is_no_part_of_it() -> None:
    assert apidoc.rest([">>> 1", "1", "", "Then text."]) == [">>> 1", "1", "", "Then text.", ""]


def test_text_right_after_a_section_is_no_part_of_it() -> None:
    lines = apidoc.rest(["Raises:", "    ValueError: never.", "Writes a file."])
    assert lines == [":Raises:", "    * **ValueError**: never.", "", "Writes a file.", ""]


def test_every_module_has_one_page_and_the_overview_names_it(tmp_path: Path) -> None:
    apidoc.write_pages(tmp_path)
    modules = {name for name in apidoc.documented() if name != "dyniso"}
    assert {path.stem for path in tmp_path.glob("*.md")} == {"index", *modules}
    overview = (tmp_path / "index.md").read_text().splitlines()
    assert modules <= {line.strip() for line in overview}


def test_a_page_is_removed_with_its_module_and_an_unchanged_one_is_left_alone(tmp_path: Path) -> None:
    apidoc.write_pages(tmp_path)
    page, gone = tmp_path / "dyniso.optim.md", tmp_path / "dyniso.gone.md"
    gone.touch()
    before = page.stat().st_mtime_ns
    apidoc.write_pages(tmp_path)
    assert not gone.exists()
    assert page.stat().st_mtime_ns == before


def test_what_a_function_does_inside_is_no_part_of_the_reference() -> None:
    source = 'def f(x):\n    "Half."\n    return {}  # why\n'
    assert apidoc.interface(source.format("x / 2")) == apidoc.interface(source.format("x * 0.5"))


@pytest.mark.parametrize("change", [("Half", "Third"), ("x)", "x, y)"), ("# the largest", "# the smallest")])
def test_what_the_reference_shows_is_part_of_it(change: tuple[str, str]) -> None:
    source = 'def f(x):\n    "Half."\n\nclass C:\n    max: float  # the largest\n'
    assert apidoc.interface(source) != apidoc.interface(source.replace(*change))


def test_the_front_door_names_the_module_that_defines_what_it_gives() -> None:
    import dyniso

    for name, home in dyniso._HOME.items():
        assert getattr(dyniso, name).__module__ == f"dyniso.{home}"


def test_a_role_in_a_docstring_is_shown_as_written() -> None:
    assert apidoc.inline("{prf:ref}`name` refers to it.") == "``{prf:ref}`name``` refers to it."
