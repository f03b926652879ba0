"""One truth each: ranges in pyproject.toml, versions in constraints.txt, commands in README, Makefile and .ci/run."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def pinned() -> dict[str, Version]:
    """constraints.txt as name -> version."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {normal(name): Version(version) for name, version in (line.split("==") for line in lines)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project_files() -> list[Path]:
    """Files that git tracks, or would with the next commit."""
    call = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(call, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_environment_yml_names_a_supported_python_and_existing_extras() -> None:
    (python,) = (entry for entry in ENVIRONMENT if isinstance(entry, str) and entry.startswith("python="))
    assert Version(python.removeprefix("python=")) in SpecifierSet(PROJECT["requires-python"])
    (pip,) = (entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict))
    editable, constraints = pip
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", editable)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(EXTRAS)
    assert (ROOT / constraints.removeprefix("-c ")).is_file()


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)])
def test_every_dependency_is_pinned_within_its_range(text: str) -> None:
    requirement = Requirement(text)
    if normal(requirement.name) == normal(PROJECT["name"]):
        pytest.skip("an extra that names other extras")
    assert requirement.specifier.contains(pinned()[normal(requirement.name)], prereleases=True)


def test_constraints_hold_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+==[0-9a-z.]+", line), f"not a plain pin, or one with a build tag: {line}"


def test_ci_runs_the_command_that_the_readme_states() -> None:
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands[-1] == "make test"
    assert "set -euo pipefail" in commands
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111, ".ci/run is not executable"
    readme = (ROOT / "README.md").read_text()
    for command in ("make book", "make test"):
        assert command in readme
        assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    folders = "|".join(("work", "tmp", "root", "opt"))
    machine_path = re.compile(rf"(?<![\w.~)}}\]])/(?:{folders})(?=[/\s\"'`]|$)".encode(), re.MULTILINE)
    for path in project_files():
        if (ROOT / "book" / "_vendor") in path.parents:
            continue
        found = machine_path.search(path.read_bytes())
        assert not found, f"{path.relative_to(ROOT)} names {found[0].decode()}"


# ------------------------------------------------------------------------------------------------- the book's prose


def prose() -> list[Path]:
    return sorted((ROOT / "book").glob("*.md"))


def resolve(dotted: str) -> object:
    """The object that a dotted name such as dyniso.nets.mlp stands for."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("page", prose(), ids=lambda path: path.name)
def test_every_name_of_the_library_in_the_prose_exists(page: Path) -> None:
    text = page.read_text()
    for dotted in re.findall(r"`(dyniso(?:\.\w+)+)`", text):
        resolve(dotted)
    for name, owner in re.findall(r"`(\w+)` of (?:{py:\w+})?`(dyniso[\w.]+)`", text):
        assert name in inspect.signature(resolve(owner)).parameters, f"{owner} has no argument {name}"  # type: ignore[arg-type]
    for name, owner in re.findall(r"`(\w+)` in (?:{py:\w+})?`(dyniso[\w.]+[A-Z]\w+)`", text):
        assert name in resolve(owner)._fields, f"{owner} has no field {name}"  # type: ignore[attr-defined]


def test_the_landing_page_s_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "index.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "book/index.md", "exec"), {})


# ------------------------------------------------------------------------------------------- chapters and extras


def toc_files() -> list[str]:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def chapters() -> set[str]:
    return {path.stem for path in (ROOT / "notebooks").glob("*.py")}


def test_table_of_contents_has_every_notebook_once_and_no_other() -> None:
    listed = [file.removeprefix("nb/") for file in toc_files() if file.startswith("nb/")]
    assert sorted(listed) == sorted(chapters())


def test_every_other_page_of_the_table_of_contents_is_written_or_made() -> None:
    written = {path.stem for path in prose()}
    assert {file for file in toc_files() if "/" not in file} == written
    assert [file for file in toc_files() if "/" in file and not file.startswith("nb/")] == ["api/index"]


def test_a_chapter_s_name_carries_no_number() -> None:
    assert not [name for name in chapters() if re.search(r"\d", name)]


def test_nothing_but_the_table_of_contents_lists_the_chapters() -> None:
    """So a chapter is put in the middle by two files: its notebook and the table of contents."""
    for path in project_files():
        if path.parent.name == "notebooks" or path.suffix not in (".py", ".md", ".toml", ".yml", ".sh", ""):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        named = {name for name in chapters() if re.search(rf"(nb/|notebooks/|['\"]){name}\b", text)}
        assert path.name == "_toc.yml" or len(named) <= len(chapters()) / 2, f"{path.relative_to(ROOT)}: {named}"


def counted_additions() -> list[tuple[str, str, str]]:
    """Lines of CONTRIBUTING.md whose number of files a commit shows: (number, files, subject of the commit)."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return re.findall(r"^\|[^|]+\| (\d+): ([^|]+) \| the commit \"([^\"]+)\" \|$", text, re.MULTILINE)


@pytest.mark.parametrize(("count", "files", "subject"), counted_additions())
def test_an_addition_takes_the_files_of_the_commit_that_contributing_counts(
    count: str, files: str, subject: str
) -> None:
    call = ["git", "log", "--format=%x00%s", "--name-only", "--fixed-strings", f"--grep={subject}"]
    try:
        log = subprocess.run(call, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    commits = [[line for line in part.splitlines() if line] for part in log.split("\0")[1:]]
    changed = [names for first, *names in commits if first == subject]
    if not changed:
        pytest.skip("the history does not reach back to that commit")
    assert [len(names) for names in changed] == [int(count)]
    for name in re.findall(r"`(\w+/[\w./]*)`", files):
        assert any(file.startswith(name) for file in changed[0]), name


def test_contributing_counts_from_commits() -> None:
    assert [subject.partition(":")[0] for _, _, subject in counted_additions()] == ["A method", "A stream"]


def test_every_extra_that_the_code_or_the_documents_name_exists() -> None:
    said = re.compile(r"dyniso\[([\w,]+)\]|require_extra\(\"(\w+)\"|-e \.\[([\w,]+)\]")
    for path in project_files():
        if path.suffix in (".py", ".md", ".toml", ".yml", ".sh"):
            for groups in said.findall(path.read_text(encoding="utf-8")):
                assert set(",".join(filter(None, groups)).split(",")) <= set(EXTRAS), path.relative_to(ROOT)
