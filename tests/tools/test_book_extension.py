"""A book of one page, built as ours is: sound references pass, and each kind of wrong one stops the build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

bs4 = pytest.importorskip("bs4")
pytest.importorskip("jupyter_book")

ROOT = Path(__file__).parents[2]
JUPYTER_BOOK = Path(sys.executable).with_name("jupyter-book")
ENTRY = "```{eval-rst}\n.. automodule:: dyniso.polar\n   :members:\n```\n"
OBSERVATION = ":::::{{prf:observation}}\n:label: {}\n\n✓ It holds.\n:::::\n\n"

pytestmark = pytest.mark.slow


def build(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Build a book whose only page has this text, by the project's own _config.yml; warnings are errors."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["sphinx"]["local_extensions"] = {"book_extension": str(ROOT / "tools")}
    config["sphinx"]["config"] |= {"html_extra_path": []}
    (folder / "references.bib").touch()
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    (folder / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (folder / "index.md").write_text(f"# Title\n\n{text}")
    call = [JUPYTER_BOOK, "build", ".", "--path-output", "out", "-W", "-n", "--keep-going", "-q"]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_sound_references_lead_to_their_places(tmp_path: Path) -> None:
    text = OBSERVATION.format("one") + OBSERVATION.format("two")
    text += "See {prf:ref}`one`, {py:func}`dyniso.polar.polar_factor` and {py:func}`dyniso.polar_factor`.\n\n" + ENTRY
    done = build(tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr
    page = bs4.BeautifulSoup((tmp_path / "out/_build/html/index.html").read_text(), "html.parser").find("article")
    links = [link["href"] for link in page.select("a.reference.internal") if link["href"].startswith("#")]
    assert links[:3] == ["#one", "#dyniso.polar.polar_factor", "#dyniso.polar.polar_factor"]
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert sorted(ids) == sorted(set(ids))


def test_wrong_and_doubled_references_stop_the_build_and_are_named(tmp_path: Path) -> None:
    text = OBSERVATION.format("twice") + OBSERVATION.format("twice")
    done = build(tmp_path, text + "See {prf:ref}`never` and {py:func}`dyniso.polar.nothing`.\n\n" + ENTRY)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    for fault in ("duplicate observation label 'twice'", "never", "dyniso.polar.nothing"):
        assert fault in said
