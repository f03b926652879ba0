"""The built book: every page is there, reads offline, and shows what its notebook produced."""

from __future__ import annotations

import ast
import copy
import functools
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import dyniso
from dyniso.study.sources import modules

bs4 = pytest.importorskip("bs4")

ROOT = Path(__file__).parents[1]
HTML = ROOT / "build" / "_build" / "html"
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
MODULES = {name: path for name, path in modules().items() if name not in ("dyniso", "dyniso.__main__")}
REFERENCE = {f"api/{name}": name for name in MODULES}  # page -> module
WRITTEN = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
PAGES = [*WRITTEN, *REFERENCE]
CHAPTERS = [page for page in PAGES if page.startswith("nb/")]
LOADING = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
PRODUCERS = {"show", "stamp"}  # of dyniso.report.notebook: a cell that calls one has an output

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif("DYNISO_SKIP_SITE" in os.environ, reason="DYNISO_SKIP_SITE is set"),
]


@pytest.fixture(autouse=True)
def _built() -> None:
    assert (HTML / "index.html").is_file(), "run make book first"


@functools.cache
def page_soup(page: str) -> Any:
    return bs4.BeautifulSoup((HTML / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


@functools.cache
def article(page: str) -> Any:
    return page_soup(page).find("article")


@functools.cache
def places(page: str) -> list[str]:
    """The ids on a page, in order."""
    return [tag["id"] for tag in page_soup(page).find_all(id=True)]


def notebook(page: str) -> Any:
    return json.loads((ROOT / "book" / f"{page}.ipynb").read_text(encoding="utf-8"))


def target(page: str, address: str) -> Path | None:
    """The file of this site that an address on a page names; None if it leads elsewhere or stays on the page."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc or not parts.path:
        return None
    return ((HTML / f"{page}.html").parent / unquote(parts.path)).resolve()


@pytest.mark.parametrize("page", WRITTEN)
def test_page_has_a_title_and_text(page: str) -> None:
    body = article(page)
    assert body.find("h1") is not None
    assert len(body.get_text(" ", strip=True)) > 200


@pytest.mark.parametrize("page", PAGES)
def test_no_two_places_on_a_page_have_the_same_id(page: str) -> None:
    assert sorted(places(page)) == sorted(set(places(page)))


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_made_of_a_name_that_only_looks_like_an_address(page: str) -> None:
    for link in article(page).find_all("a", href=re.compile("^https?://")):
        assert not re.fullmatch(r"https?://" + re.escape(link.get_text(strip=True)) + "/?", link["href"]), link


@pytest.mark.parametrize("page", PAGES)
def test_no_script_declares_a_constant_twice(page: str) -> None:
    written = " ".join(tag.get_text() for tag in page_soup(page).find_all("script", src=False))
    names = re.findall(r"\bconst (\w+)", written)
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_in_a_mode_that_the_theme_knows(page: str) -> None:
    assert page_soup(page).body["data-default-mode"] in ("auto", "light", "dark")


@pytest.mark.parametrize("page", PAGES)
def test_every_image_has_a_text_alternative(page: str) -> None:
    for image in article(page).find_all("img"):
        assert (image.get("alt") or "").strip(), f"no alt text: {image}"
        assert not re.search(r"\.(png|svg|jpe?g)$", image["alt"]), f"the alt text is a file name: {image['alt']}"


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_loaded_from_another_host(page: str) -> None:
    soup = page_soup(page)
    loaded = [tag.get(attribute) for name, attribute in LOADING.items() for tag in soup.find_all(name)]
    loaded += re.findall(r"url\(['\"]?([^'\")]+)", " ".join(tag.get_text() for tag in soup.find_all("style")))
    foreign = [address for address in loaded if address and (urlsplit(address).netloc or address.startswith("//"))]
    assert not foreign


def test_no_stylesheet_loads_from_another_host() -> None:
    for sheet in HTML.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.DOTALL)
        foreign = re.findall(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)", text)
        assert not foreign, f"{sheet.relative_to(HTML)} loads {foreign}"


@pytest.mark.parametrize("page", PAGES)
def test_internal_links_images_and_scripts_resolve(page: str) -> None:
    soup = page_soup(page)
    addresses = [
        tag.get(attribute) for name, attribute in (LOADING | {"a": "href"}).items() for tag in soup.find_all(name)
    ]
    for address in filter(None, addresses):
        path = target(page, address)
        assert path is None or path.is_file(), f"{address} leads nowhere"


@pytest.mark.parametrize("page", PAGES)
def test_links_to_a_place_on_a_page_find_it(page: str) -> None:
    for link in article(page).find_all("a", href=True):
        path, place = target(page, link["href"]), unquote(urlsplit(link["href"]).fragment)
        if place and (path or link["href"].startswith("#")):
            other = path.relative_to(HTML).with_suffix("").as_posix() if path else page
            assert place in places(other), f"{link['href']} names no place"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_mathematics_loads_the_vendored_renderer_once(page: str) -> None:
    soup = page_soup(page)
    sources = [tag["src"] for tag in soup.find_all("script", src=re.compile("mathjax"))]
    assert len(sources) <= 1
    assert sources or not soup.select(".math")
    for source in sources:
        renderer = target(page, source)
        assert renderer is not None
        assert renderer.is_file()
        assert list((renderer.parent / "output" / "chtml" / "fonts" / "woff-v2").glob("*.woff"))


@pytest.mark.parametrize("page", PAGES)
def test_no_markup_is_left_unrendered(page: str) -> None:
    body = copy.copy(article(page))
    for tag in body.select("pre, code, script, style, .math"):
        tag.decompose()
    text = body.get_text(" ")
    for leftover in (r"\{[a-z]+(:[a-z]+)?\}", r"```", r":::", r"\$\$", r"\\begin\{", r"\\[a-z]+\{", r"\[\[", r"\]\("):
        found = re.search(leftover, text)
        assert not found, f"{leftover} in: ...{text[max(0, found.start() - 60) : found.end() + 60]}..."
    assert not body.select(".problematic, .system-message")


# ---------------------------------------------------------------------------------------------- library reference


def public_names(path: Path) -> list[str]:
    """The functions and classes at the top of a module that no underscore hides."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


@pytest.mark.parametrize("page", REFERENCE)
def test_every_public_name_of_a_module_is_on_its_page(page: str) -> None:
    module = REFERENCE[page]
    assert {f"{module}.{name}" for name in public_names(MODULES[module])} <= set(places(page))


@pytest.mark.parametrize("page", REFERENCE)
def test_every_page_of_the_reference_says_what_its_module_is_for(page: str) -> None:
    body = article(page)
    assert body.find("h1").get_text().rstrip("#") == REFERENCE[page].removeprefix("dyniso.")
    assert len(body.find("p").get_text()) > 20


def test_the_overview_leads_to_every_name_of_the_front_door_and_to_every_module() -> None:
    links = {link.get_text(): unquote(link["href"]) for link in article("api/index").find_all("a", href=True)}
    for name in dyniso.__all__:
        if name != "__version__":
            assert links[name].endswith(f".html#{getattr(dyniso, name).__module__}.{name}")
    for page, module in REFERENCE.items():
        assert links[module] == f"{page.removeprefix('api/')}.html#module-{module}"


def test_no_text_of_a_docstring_is_lost_to_a_formula_or_an_example() -> None:
    body = article("api/dyniso.isometry")
    entry = body.find(id="dyniso.isometry.gram_deviation").find_parent("dl")
    formula, example = [block.get_text() for block in entry.select("div.highlight pre")]
    assert "R(W) = ||W'W - I||_F^2" in formula
    assert example.startswith(">>> float(gram_deviation(torch.eye(3)))\n0.0\n")
    heads = [head.get_text() for head in entry.select("dl.field-list > dt")]
    assert heads == ["Arguments:", "Returns:", "Raises:", "Source:"]


def test_the_general_index_lists_the_library() -> None:
    soup = bs4.BeautifulSoup((HTML / "genindex.html").read_text(encoding="utf-8"), "html.parser")
    listed = {unquote(urlsplit(link["href"]).fragment) for link in soup.select("table.indextable a")}
    assert {f"dyniso.{home}.{name}" for name, home in dyniso._HOME.items()} <= listed


# ------------------------------------------------------------------------------------------------------- chapters


def code_cells(page: str) -> list[Any]:
    return [cell for cell in notebook(page)["cells"] if cell["cell_type"] == "code"]


def calls(source: str) -> set[str]:
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))))
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_cell_ran_without_error(page: str) -> None:
    for cell in code_cells(page):
        assert cell["execution_count"] is not None, f"never executed: {cell['source']}"
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            if output.get("name") == "stderr":
                assert "Traceback (most recent call last)" not in "".join(output["text"])


@pytest.mark.parametrize("page", CHAPTERS)
def test_cells_that_show_or_stamp_have_outputs(page: str) -> None:
    producing = [cell for cell in code_cells(page) if calls("".join(cell["source"])) & PRODUCERS]
    assert producing, "a chapter shows or stamps something"
    for cell in producing:
        assert cell["outputs"], f"no output of: {''.join(cell['source'])}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_below_a_cell_that_claims_stand_its_observations(page: str) -> None:
    cells = notebook(page)["cells"]
    for cell, below in zip(cells, [*cells[1:], None], strict=True):
        if cell["cell_type"] == "code" and "claim" in calls("".join(cell["source"])):
            assert "{prf:observation}" in "".join(below["source"]), f"nothing below {''.join(cell['source'])}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_figure_is_numbered_and_links_to_the_points_it_shows(page: str) -> None:
    saved = notebook(page)["metadata"]["dyniso"]["figures"]
    figures = {figure["id"]: figure for figure in article(page).find_all("figure")}
    assert set(saved) == set(figures)
    for name, figure in figures.items():
        assert figure.find("img") is not None
        assert figure.select_one(".caption-number").get_text().startswith("Fig. ")
        link = figure.select_one("a.download")
        assert (
            target(page, link["href"]).read_bytes() == (ROOT / "book" / "nb" / "figures" / f"{name}.csv").read_bytes()
        )


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_observation_is_numbered_and_shows_what_was_checked(page: str) -> None:
    cells = ["".join(cell["source"]) for cell in notebook(page)["cells"] if cell["cell_type"] == "markdown"]
    written = re.findall(r"^:+\{prf:observation\}\n:label: (.+)$", "\n".join(cells), re.MULTILINE)
    shown = article(page).select("div.proof.observation")
    assert [block["id"] for block in shown] == written
    for block in shown:
        assert re.fullmatch(r"Observation [\d.A-Z]+", block.select_one(".caption-number").get_text(strip=True))
        assert "✓" in block.get_text()
        assert block.select_one("details pre").get_text(strip=True), f"{block['id']} does not say what was checked"


@pytest.mark.parametrize("page", CHAPTERS)
def test_no_cell_of_code_is_removed_from_its_page(page: str) -> None:
    shown = "\n".join(block.get_text() for block in article(page).select("div.cell_input pre"))
    for cell in code_cells(page):
        assert "".join(cell["source"]).strip() in shown


@pytest.mark.parametrize("page", CHAPTERS)
def test_parameters_are_the_first_fold_of_their_chapter(page: str) -> None:
    cells = [cell for cell in code_cells(page) if "parameters" in cell["metadata"].get("tags", [])]
    for cell in cells:
        assert article(page).select_one("details pre").get_text().strip() == "".join(cell["source"]).strip()


@pytest.mark.parametrize("page", CHAPTERS)
def test_no_image_outside_a_numbered_figure(page: str) -> None:
    assert all(image.find_parent("figure") for image in article(page).select("div.cell_output img"))


@pytest.mark.parametrize("page", CHAPTERS)
def test_page_names_no_folder_of_the_machine_that_built_it(page: str) -> None:
    text = article(page).get_text(" ")
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text
