"""Execute the chapters: notebooks/NN_title.py (py:percent, the only source) -> book/nb/NN_title.ipynb.

    python tools/notebooks.py build [--jobs 2] [name ...]                    every chapter that is not current
    python tools/notebooks.py run notebooks/01_x.py -p tier check -o x.ipynb  one chapter, with other parameters
    python tools/notebooks.py check                                          which are stale; exit 1 if any is

A chapter is current when the key in its metadata equals the hash of its source, its parameters, the library's code that
it reaches, the small data and this file, and its figures' CSVs are as it left them. A chapter that reads other files of
the project says so in a line of its source, `# reads: book/statements.toml notebooks/*.py`, and its key has these too.
The parameters cell is the documentation and the check of its own values: `name = value  # ALLOWED: help`, ALLOWED being
`lo..hi` or `a | b | c`.

Exit status: 0 done, 1 a chapter failed or is stale, 2 the call was wrong (one line, before any kernel starts).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Value = bool | int | float | str

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
KERNEL_ENV = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
DATASETS = {"mnist", "fashion-mnist", "cifar10", "cifar100"}  # below data/: downloads, which chapters do not read
READS = re.compile(r"^# reads:(.*)$", re.MULTILINE)
START_TIMEOUT_S = 180  # a kernel starts in 1 s; this much on a busy machine


class UsageError(Exception):
    """The caller asked for something that does not exist or is not allowed; one line."""


class NotebookFailed(Exception):
    """A chapter could not be executed or saved; one line."""


# ---------------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell. Either `choices` or `bounds` limits its values."""

    name: str
    default: Value
    allowed: str
    help: str
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def parse(cls, line: str) -> Parameter:
        """Read `name = value  # ALLOWED: help`.

        Raises UsageError if the line is something else, or the value is not allowed.
        """
        try:
            parameter = cls(*limits(*split_line(line)))
        except (SyntaxError, TypeError, ValueError):
            expected = "`name = value  # lo..hi: help` or `name = value  # a | b: help`"
            raise UsageError(f"parameters cell: expected {expected}, got `{line.strip()}`") from None
        parameter.read(parameter.default)
        return parameter

    def read(self, value: Value) -> Value:
        """`value`, which may be text from the command line, in the type of the default.

        Raises UsageError, naming the value and what is allowed, if it is ill-typed or not allowed.
        """
        got = value if isinstance(value, str) else repr(value)
        if self.choices:
            if got not in self.choices:
                raise UsageError(f"{self.name} = {got} is not one of {self.allowed}{nearest(got, self.choices)}")
            return got == "True" if isinstance(self.default, bool) else type(self.default)(got)
        try:
            number = int(got) if isinstance(self.default, int) else float(got)
        except ValueError:
            wanted = "a whole number" if isinstance(self.default, int) else "a number"
            raise UsageError(f"{self.name} = {got} is not {wanted}; allowed: {self.allowed}") from None
        if not self.bounds[0] <= number <= self.bounds[1]:
            raise UsageError(f"{self.name} = {got} is out of range; allowed: {self.allowed}")
        return number


def split_line(line: str) -> tuple[str, Value, str, str]:
    """Name, value, ALLOWED and help of a line of a parameters cell; some ValueError if it has not all four.

    >>> split_line("seeds = 4  # 1..64: how many seeds")
    ('seeds', 4, '1..64', 'how many seeds')
    """
    (node,) = ast.parse(line).body
    if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
        raise ValueError("not an assignment to one name")
    comment = line.encode()[node.value.end_col_offset :].decode().strip().removeprefix("#")
    allowed, _, help_text = (part.strip() for part in comment.partition(":"))
    default = ast.literal_eval(node.value)
    if not isinstance(default, bool | int | float | str) or not help_text:
        raise ValueError("not a plain value with a range or choices, and a help text")
    return node.targets[0].id, default, allowed, help_text


def limits(name: str, default: Value, allowed: str, help_text: str) -> tuple[Any, ...]:
    """The fields of a Parameter; some ValueError if ALLOWED is neither a range of numbers nor choices."""
    if "|" in allowed:
        choices = tuple(word.strip().strip("'\"") for word in allowed.split("|"))
        return name, default, allowed, help_text, choices
    if isinstance(default, bool | str):
        raise ValueError("a range needs a number")
    low, high = (float(bound) for bound in allowed.split(".."))
    return name, default, allowed, help_text, (), (low, high)


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error message, or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def declared_parameters(nb: Any) -> dict[str, Parameter]:
    """The parameters of a notebook, by name, from its cell tagged `parameters`; empty if it has none."""
    cells = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) > 1:
        raise UsageError(f"{len(cells)} cells are tagged `parameters`; expected one")
    lines = cells[0].source.splitlines() if cells else []
    found = [Parameter.parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return {parameter.name: parameter for parameter in found}


def checked_parameters(declared: Mapping[str, Parameter], given: Mapping[str, Value]) -> dict[str, Value]:
    """`given`, in the declared types; UsageError for a name that is not declared or a value that is not allowed."""
    for name in given:
        if name not in declared:
            has = ", ".join(declared) or "none"
            raise UsageError(f"unknown parameter {name}{nearest(name, declared)} (declared: {has})")
    return {name: declared[name].read(value) for name, value in given.items()}


# ------------------------------------------------------------------------------------------------- project and keys


@dataclass(frozen=True)
class Project:
    """Where the sources are, where the executed chapters go, and what their content depends on."""

    root: Path

    @property
    def out(self) -> Path:
        return self.root / "book" / "nb"

    def sources(self, names: Sequence[str] = ()) -> list[Path]:
        """The chapters called `names` (01_x, 01_x.py or a path), or all."""
        have = {path.stem: path for path in sorted((self.root / "notebooks").glob("*.py"))}
        wanted = [Path(name).stem for name in names] or list(have)
        for name in wanted:
            if name not in have:
                raise UsageError(f"no notebook {name} in notebooks/{nearest(name, have)}")
        return [have[name] for name in wanted]

    def dependencies(self) -> Iterator[Path]:
        """The small data, the pinned versions and this tool: what every chapter may depend on."""
        for path in sorted((self.root / "data").rglob("*")):
            if path.is_file() and path.relative_to(self.root / "data").parts[0] not in DATASETS:
                yield path
        yield from (path for path in (self.root / "constraints.txt", Path(__file__)) if path.exists())

    @cached_property
    def dependency_digest(self) -> bytes:
        """Names and contents of all dependencies, hashed once a run."""
        return self.digest_of(self.dependencies())

    def library_digest(self, source: Path) -> str:
        """Digest of the library's code that a chapter reaches by its imports; comments and docstrings do not count."""
        from dyniso.study import sources

        package = self.root / "dyniso"
        if not package.is_dir():
            return ""
        return sources.digest_of(sources.reached_by_source(source.read_text(encoding="utf-8"), package), package)

    def digest_of(self, paths: Iterable[Path]) -> bytes:
        """Names and contents of files, hashed."""
        digest = hashlib.sha256()
        for path in paths:
            name = path.relative_to(self.root) if path.is_relative_to(self.root) else path.name
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.digest()

    def reads(self, source: Path) -> Iterator[Path]:
        """What one chapter says it reads beyond the dependencies of all; UsageError for a pattern that no file fits."""
        for line in READS.findall(source.read_text(encoding="utf-8")):
            for pattern in line.split():
                paths = sorted(self.root.glob(pattern))
                if not paths:
                    raise UsageError(f"{source.stem}: it reads {pattern}, and there is no such file")
                yield from paths

    def key(self, source: Path, parameters: Mapping[str, Value]) -> str:
        """The content key of one executed chapter."""
        parts = [source.read_bytes(), json.dumps(dict(parameters), sort_keys=True).encode(), self.dependency_digest]
        parts.append(self.library_digest(source).encode())
        return hashlib.sha256(b"\0".join([*parts, self.digest_of(self.reads(source))])).hexdigest()

    def saved(self, source: Path) -> dict[str, Any]:
        """metadata.dyniso of the executed chapter; empty if there is none."""
        path = self.out / f"{source.stem}.ipynb"
        try:
            metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["metadata"]["dyniso"]
        except (FileNotFoundError, KeyError, json.JSONDecodeError):
            return {}
        return metadata

    def is_current(self, source: Path) -> bool:
        """Whether executing the chapter again would change nothing."""
        saved = self.saved(source)
        csvs = {self.out / "figures" / f"{name}.csv": digest for name, digest in saved.get("figures", {}).items()}
        intact = all(path.exists() and sha256(path) == digest for path, digest in csvs.items())
        return bool(saved) and intact and saved["key"] == self.key(source, {})

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


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------------- execution


def load(source: Path) -> Any:
    """A py:percent file as a notebook whose bytes depend on the file alone."""
    import jupytext

    nb = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    nb.metadata = type(nb.metadata)(kernelspec=KERNEL)
    nb.nbformat, nb.nbformat_minor = 4, 5
    return nb


def execute(project: Project, source: Path, given: Mapping[str, Value], out: Path) -> None:
    """Run one chapter and save it and its figures' CSVs (in figures/ beside it), each in one step, or not at all."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    nb = load(source)
    parameters = checked_parameters(declared_parameters(nb), given)
    key = project.key(source, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=".running-") as scratch,
        tempfile.TemporaryDirectory() as sockets,
    ):
        environment = KERNEL_ENV | {"DYNISO_FIGURES": str(Path(scratch, "figures").resolve())}
        options: dict[str, Any] = {"cwd": str(source.parent), "progress_bar": False, "start_timeout": START_TIMEOUT_S}
        options["kernel_manager_class"] = ipc_kernel_manager(sockets)
        options["extra_arguments"] = ["--IPKernelApp.log_level=CRITICAL"]  # it warns of local TCP, and of its own end
        try:
            with environ(environment):
                nb = papermill.execute_notebook(nb, None, parameters=parameters, **options)
        except PapermillExecutionError as error:
            first = next((line for line in error.source.splitlines() if line.strip()), "")
            where = f"{source.stem}: cell {error.cell_index} (`{first}`)"
            raise NotebookFailed(f"{where}: {error.ename}: {one_line(error.evalue)}") from None
        except Exception as error:
            raise NotebookFailed(f"{source.stem}: {type(error).__name__}: {one_line(str(error))}") from None
        tidy(nb, source.stem)
        if out.parent == project.out:
            nb.cells = list(with_observations(nb.cells))
        figures = {path.stem: sha256(path) for path in sorted(Path(scratch).glob("figures/*.csv"))}
        nb.metadata["dyniso"] = {"key": key, "parameters": dict(parameters), "figures": figures}
        Path(scratch, out.name).write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
        (out.parent / "figures").mkdir(exist_ok=True)
        for name in figures:
            os.replace(Path(scratch, "figures", f"{name}.csv"), out.parent / "figures" / f"{name}.csv")
        os.replace(Path(scratch, out.name), out)


def ipc_kernel_manager(sockets: str) -> type:
    """A kernel manager that talks over socket files in a folder of its own, with a short path.

    The usual free TCP port is chosen before the kernel binds it, so kernels that start at the same time can collide.
    """
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class IpcKernelManager(AsyncKernelManager):
        @default("transport")
        def _default_transport(self) -> str:
            return "ipc"

        @default("ip")
        def _default_ip(self) -> str:
            return str(Path(sockets, "kernel"))

    return IpcKernelManager


@contextmanager
def environ(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the kernels that start inside, and as they were afterwards."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def one_line(message: str) -> str:
    return " ".join(message.split())


def tidy(nb: Any, name: str) -> None:
    """Make an executed notebook reproducible, and its figures what the book's renderer expects. In place."""
    nb.metadata.pop("papermill", None)
    for index, cell in enumerate(nb.cells):
        cell.id = f"cell-{index:03d}"
        for field in ("papermill", "execution"):
            cell.metadata.pop(field, None)
        if cell.cell_type == "code":
            cell.outputs = joined_streams(cell.outputs)
            try:
                lift_figure(cell)
            except ValueError as error:
                raise NotebookFailed(f"{name}: cell {index}: {error}") from None


def joined_streams(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of one stream as one: where the kernel cuts a text depends on timing."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def with_observations(cells: Iterable[Any]) -> Iterator[Any]:
    """The cells, with what `claim` showed as observations of the book: Markdown below the cell that checked them."""
    import nbformat

    for cell in cells:
        shown = [o for o in cell.get("outputs", []) if "claim" in o.get("metadata", {}).get("dyniso", {})]
        yield cell
        if shown:
            cell.outputs = [output for output in cell.outputs if output not in shown]
            blocks = [observation(cell.source, **output["metadata"]["dyniso"]) for output in shown]
            yield nbformat.v4.new_markdown_cell("\n\n".join(blocks), id=f"{cell.id}-observations")


def observation(source: str, claim: str, sentence: str) -> str:
    """One checked sentence in MyST: numbered, with its name as anchor, and what was checked behind a fold."""
    from dyniso.report.notebook import claim_lines, is_named

    condition = next((one.condition for one in claim_lines(source) if is_named(one, claim)), "")
    fold = f"::::{{dropdown}} What was checked\n```python\n{condition}\n```\n::::\n" if condition else ""
    return f":::::{{prf:observation}}\n:label: {claim}\n\n✓ {sentence}\n\n{fold}:::::"


def lift_figure(cell: Any) -> None:
    """Move what `show` noted on its outputs to the cell, where myst-nb reads captions and alt texts."""
    marks = [output.get("metadata", {}).get("dyniso", {}) for output in cell.outputs]
    cell.outputs = [output for output, mark in zip(cell.outputs, marks, strict=True) if not mark.get("drop")]
    figures = [mark for mark in marks if "name" in mark]
    if not figures:
        return
    claims = [output for output in cell.outputs if "claim" in output.get("metadata", {}).get("dyniso", {})]
    displays = [output for output in cell.outputs if output["output_type"] != "stream" and output not in claims]
    if len(displays) > 1:  # myst-nb would put each of them into the same figure
        raise ValueError(f"show({figures[0]['name']!r}) must be the only display of its cell, found {len(displays)}")
    (figure,) = figures
    points = f"Plotted points: {{download}}`CSV <figures/{figure['name']}.csv>`."
    cell.metadata["mystnb"] = {
        "image": {"alt": figure["alt"], "classes": "dark-light"},  # the theme's name for: leave it alone in dark mode
        "figure": {"name": figure["name"], "caption": f"{figure['caption']} {points}"},
    }


# ---------------------------------------------------------------------------------------------------- command line


def attempt(project: Project, source: Path) -> tuple[str, str | None, float]:
    """Execute one chapter for `build`: its name, the error if it failed, and the seconds."""
    start = time.monotonic()
    try:
        execute(project, source, {}, project.out / f"{source.stem}.ipynb")
    except NotebookFailed as error:
        return source.stem, str(error), time.monotonic() - start
    return source.stem, None, time.monotonic() - start


def build(project: Project, names: Sequence[str], jobs: int) -> int:
    """Execute what is not current, several at a time. Returns the exit status."""
    sources = project.sources(names)
    stale = [source for source in sources if not project.is_current(source)]
    for source in stale:
        check_parameters_cell(source)
    for source in sources:
        if source not in stale:
            print(f"current  {source.stem}")
    failed = False
    for name, error, seconds in attempts(project, stale, jobs):
        print(f"{'FAILED ' if error else 'executed'} {name} ({seconds:.1f} s)", flush=True)
        if error:
            failed = True
            print(error, file=sys.stderr, flush=True)
    shared = shared_figures(project, sources)
    for line in shared:
        print(line, file=sys.stderr)
    if not names and not failed:
        project.prune()
    return 1 if failed or shared else 0


def check_parameters_cell(source: Path) -> None:
    """UsageError, naming the notebook, if its parameters cell breaks the grammar or a default its own bounds."""
    try:
        declared_parameters(load(source))
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


def run(project: Project, source: Path, given: Mapping[str, Value], out: Path) -> int:
    """Execute one chapter with other parameters into a file outside the book. Returns the exit status."""
    if not source.exists():
        known = [path.name for path in project.sources()]
        raise UsageError(f"no file {source}{nearest(source.name, known)}")
    check_parameters_cell(source)
    try:
        execute(project, source.resolve(), given, out)
    except NotebookFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"saved {out}")
    return 0


def check(project: Project, names: Sequence[str]) -> int:
    """Say which chapters are stale. Returns the exit status."""
    stale = [source.stem for source in project.sources(names) if not project.is_current(source)]
    for name in stale:
        print(f"stale  {name}")
    return 1 if stale else 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="execute every chapter that is not current")
    building.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    building.add_argument("names", nargs="*", help="chapters, e.g. adamo; all by default")
    running = commands.add_parser("run", help="execute one chapter with other parameters")
    running.add_argument("source", type=Path, help="e.g. notebooks/adamo.py")
    running.add_argument("-p", dest="given", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    running.add_argument("-o", dest="out", type=Path, help="default: build/run/<chapter>.ipynb")
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
        out = arguments.out or project.root / "build" / "run" / f"{arguments.source.stem}.ipynb"
        return run(project, arguments.source, dict(arguments.given), out)
    except UsageError as error:
        print(f"notebooks.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
