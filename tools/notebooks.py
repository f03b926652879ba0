"""Execute the chapters: notebooks/title.py (py:percent, the only source) -> book/nb/title.ipynb.

    python tools/notebooks.py build [--jobs 2] [name ...]                 every chapter that is not current
    python tools/notebooks.py run notebooks/x.py -p tier check -o x.ipynb  one chapter, with other parameters
    python tools/notebooks.py check                                       which are stale; exit 1 if any is

A chapter is current if what it depends on says the same as when it was executed:

- its source, the pinned versions, and the code below tools/ that makes a page;
- the library's code that it reaches by its imports; comments and docstrings do not count;
- the stored tables and the manifest of data that it read, which it notes while it runs (`dyniso.study.reads`);
- files that it says it reads in a line of its source: `# reads: book/statements.toml dyniso/baselines/*.py`. Of a
  module its code and docstrings count, of chapters and other files every byte;
- the CSVs of its figures are as it left them.

A commit alone makes nothing stale: the page names the commit at which it was executed.

Exit status: 0 done, 1 a chapter failed or is stale, 2 the call was wrong (one line, before any kernel starts).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyniso.checks import suggestion

TOOLS = Path(__file__).resolve().parent
if str(TOOLS) not in sys.path:  # where this file is loaded by its path
    sys.path.insert(0, str(TOOLS))

import execution  # noqa: E402
import kernels  # noqa: E402
import observing  # noqa: E402
import parameters  # noqa: E402
from execution import Job, NotebookFailed, saved_facts, sha256  # noqa: E402
from parameters import UsageError, Value  # noqa: E402

READS = re.compile(r"^# reads:(.*)$", re.MULTILINE)
MAKERS = (execution, kernels, observing, parameters)  # modules below tools/ that decide what a page says
NO_CODE = ("dyniso",)  # the front door: names and a version


@dataclass(frozen=True)
class Project:
    """Where the sources are, where the executed chapters go, and what their content depends on."""

    root: Path

    @property
    def out(self) -> Path:
        return self.root / "book" / "nb"

    def sources(self, names: Sequence[str] = ()) -> list[Path]:
        """The chapters called `names` (x, x.py or a path), or all."""
        have = {path.stem: path for path in sorted((self.root / "notebooks").glob("*.py"))}
        wanted = [Path(name).stem for name in names] or list(have)
        for name in wanted:
            if name not in have:
                raise UsageError(f"no notebook {name} in notebooks/{suggestion(name, have)}")
        return [have[name] for name in wanted]

    def reads(self, source: Path) -> Iterator[Path]:
        """What a chapter says it reads; UsageError for a pattern that no file fits."""
        for line in READS.findall(source.read_text(encoding="utf-8")):
            for pattern in line.split():
                paths = sorted(self.root.glob(pattern))
                if not paths:
                    raise UsageError(f"{source.stem}: it reads {pattern}, and there is no such file")
                yield from paths

    def key(self, source: Path, given: Mapping[str, Value]) -> str:
        """Digest of what a chapter depends on, but for what it notes when it runs."""
        parts = [source.read_bytes(), json.dumps(dict(given), sort_keys=True).encode(), tool_digest().encode()]
        parts += [sha256(self.root / "constraints.txt").encode(), self.library_digest(source).encode()]
        return hashlib.sha256(b"\0".join([*parts, self.digest_of(self.reads(source))])).hexdigest()

    def library_digest(self, source: Path) -> str:
        """Digest of the library's code that a chapter reaches by its imports."""
        from dyniso.study import sources

        package = self.root / "dyniso"
        if not package.is_dir():
            return ""
        try:
            reached = sources.reached_by_source(source.read_text(encoding="utf-8"), package, NO_CODE)
        except SyntaxError as error:
            raise UsageError(f"{source.stem}: line {error.lineno}: {error.msg}") from None
        return sources.digest_of(reached, package)

    def digest_of(self, paths: Iterable[Path]) -> bytes:
        """Names and contents of files, hashed; of a module its code and docstrings, without comments and layout."""
        digest = hashlib.sha256()
        for path in paths:
            module = path.suffix == ".py" and path.parent.name != "notebooks"  # the prose of a chapter is in comments
            content = without_comments(path) if module else sha256(path)
            digest.update(f"{path.relative_to(self.root)}\0{content}\0".encode())
        return digest.digest()

    def saved(self, source: Path) -> dict[str, Any]:
        """metadata.dyniso of the executed chapter; empty if there is none."""
        return saved_facts(self.out / f"{source.stem}.ipynb")

    def is_current(self, source: Path) -> bool:
        """Whether executing the chapter again would change nothing."""
        saved = self.saved(source)
        files = {self.out / "figures" / f"{name}.csv": digest for name, digest in saved.get("figures", {}).items()}
        files |= {self.root / path: digest for path, digest in saved.get("reads", {}).items()}
        same = all(sha256(path) == digest for path, digest in files.items())
        return same and saved.get("key") == self.key(source, {})

    def prune(self) -> None:
        """Remove chapters without a source, and CSVs of figures that no chapter shows any more."""
        sources = self.sources()
        wanted = {name for source in sources for name in self.saved(source).get("figures", {})}
        for folder, suffix, keep in (
            (self.out, ".ipynb", {source.stem for source in sources}),
            (self.out / "figures", ".csv", wanted),
        ):
            for path in folder.glob(f"*{suffix}"):
                if path.stem not in keep:
                    path.unlink()


def without_comments(module: Path) -> str:
    """Digest of a module's code and docstrings; of the whole text if it is no Python."""
    from dyniso.study.sources import tree_of

    try:
        return hashlib.sha256(ast.dump(tree_of(module)).encode()).hexdigest()
    except SyntaxError:
        return sha256(module)


def tool_digest() -> str:
    """Digest of the code below tools/ that makes a page; comments and docstrings do not count."""
    from dyniso.study.sources import code

    texts = [code(Path(str(maker.__file__)).read_text(encoding="utf-8")) for maker in MAKERS]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ build


def job(project: Project, source: Path, given: Mapping[str, Value], out: Path, for_book: bool = False) -> Job:
    """An execution of a chapter, its parameters checked."""
    checked = parameters.checked_parameters(parameters.declared_parameters(execution.load(source)), given)
    facts = {"key": project.key(source, checked)}
    return Job(project.root, source, out, checked, facts, for_book)


def attempt(project: Project, source: Path) -> tuple[str, str | None, float]:
    """Execute one chapter for `build`: its name, the error if it failed, and the seconds."""
    start = time.monotonic()
    try:
        execution.execute(job(project, source, {}, project.out / f"{source.stem}.ipynb", for_book=True))
    except NotebookFailed as error:
        return source.stem, str(error), time.monotonic() - start
    return source.stem, None, time.monotonic() - start


def build(project: Project, names: Sequence[str], jobs: int) -> int:
    """Execute what is not current, several at a time. Returns the exit status."""
    sources = project.sources(names)
    stale = [source for source in sources if not project.is_current(source)]
    for source in stale:
        check_parameters_cell(source)
    if told(observing.name_faults(project.root)):
        return 1
    for source in sources:
        if source not in stale:
            print(f"current  {source.stem}")
    failed = False
    for name, error, seconds in attempts(project, stale, jobs):
        print(f"{'FAILED ' if error else 'executed'} {name} ({seconds:.1f} s)", flush=True)
        failed |= told([error] if error else [])
    shared = told(shared_figures(project, sources))
    if not names and not failed:
        project.prune()
    return 1 if failed or shared else 0


def told(lines: Iterable[str]) -> bool:
    """Print lines on stderr; whether there were any."""
    found = list(lines)
    for line in found:
        print(line, file=sys.stderr, flush=True)
    return bool(found)


def check_parameters_cell(source: Path) -> None:
    """UsageError, naming the notebook, if its parameters cell breaks the grammar or a default its own bounds."""
    try:
        parameters.declared_parameters(execution.load(source))
    except UsageError as error:
        raise UsageError(f"{source.stem}: {error}") from None


def attempts(project: Project, sources: Sequence[Path], jobs: int) -> Iterator[tuple[str, str | None, float]]:
    """Results of `attempt`, in the order of `sources`; in this process if one at a time is enough."""
    if min(jobs, len(sources)) <= 1:
        yield from (attempt(project, source) for source in sources)
        return
    with ProcessPoolExecutor(min(jobs, len(sources)), mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(attempt, [project] * len(sources), sources)


def shared_figures(project: Project, sources: Sequence[Path]) -> list[str]:
    """One line for each figure name that two chapters use: they would overwrite each other's CSV."""
    owner: dict[str, str] = {}
    lines = []
    for source in sources:
        for figure in project.saved(source).get("figures", {}):
            if figure in owner:
                lines.append(f"figure {figure} is in both {owner[figure]} and {source.stem}")
            owner[figure] = source.stem
    return lines


# ---------------------------------------------------------------------------------------------------- run and check


def run(project: Project, source: Path, given: Mapping[str, Value], out: Path | None) -> int:
    """Execute one chapter with other parameters into a file outside the book. Returns the exit status."""
    if source.suffix != ".py" or not source.is_file():
        known = [path.name for path in project.sources()]
        raise UsageError(f"no chapter {source}; expected a file that ends in .py{suggestion(source.name, known)}")
    target = output(project, source, out)
    check_parameters_cell(source)
    chapter = job(project, source.resolve(), given, target)
    require_place(chapter)
    try:
        execution.execute(chapter)
    except NotebookFailed as error:
        told([str(error)])
        return 1
    print(f"saved {target}")
    return 0


def output(project: Project, source: Path, out: Path | None) -> Path:
    """Where `run` writes: build/run by default, into a folder that is named; UsageError for what is no place for it."""
    if out is None:
        return project.root / "build" / "run" / f"{source.stem}.ipynb"
    target = out / f"{source.stem}.ipynb" if out.is_dir() else out
    if {target.suffix, target.resolve().suffix} != {".ipynb"}:
        raise UsageError(f"-o {out}; expected a folder that exists, or a file that ends in .ipynb")
    if any(target.exists() and target.samefile(one) for one in [source, *project.sources()]):
        raise UsageError(f"-o {out} is the source of a chapter; expected another file")
    if target.resolve().is_relative_to(project.out.resolve()):
        raise UsageError(f"-o {out} is a page of the book, made by `build`; expected a place outside {project.out}")
    return target


def require_place(chapter: Job) -> None:
    """UsageError, before anything runs, where the notebook or the folder of its figures cannot be written."""
    folder = chapter.out.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=folder, prefix=".running-").cleanup()
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; expected a folder that can be written") from None
    if chapter.out.is_dir() or (chapter.figures.exists() and not chapter.figures.is_dir()):
        raise UsageError(f"{chapter.out} or {chapter.figures.name} beside it is in the way; choose another -o")


def check(project: Project, names: Sequence[str]) -> int:
    """Say which chapters are stale. Returns the exit status."""
    stale = [source.stem for source in project.sources(names) if not project.is_current(source)]
    for name in stale:
        print(f"stale  {name}")
    return 1 if stale else 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--root", type=Path, default=TOOLS.parent, help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="execute every chapter that is not current")
    building.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    building.add_argument("names", nargs="*", help="chapters, e.g. adamo; all by default")
    running = commands.add_parser("run", help="execute one chapter with other parameters")
    running.add_argument("source", type=Path, help="e.g. notebooks/adamo.py")
    running.add_argument("-p", dest="given", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    running.add_argument("-o", dest="out", type=Path, help="a file or a folder; default: build/run/<chapter>.ipynb")
    checking = commands.add_parser("check", help="say which chapters are stale")
    checking.add_argument("names", nargs="*")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    project = Project(arguments.root.resolve())
    try:
        if arguments.command == "build":
            return build(project, arguments.names, arguments.jobs)
        if arguments.command == "check":
            return check(project, arguments.names)
        return run(project, arguments.source, dict(arguments.given), arguments.out)
    except UsageError as error:
        print(f"notebooks.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"notebooks.py: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
