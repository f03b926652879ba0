"""One chapter: a py:percent file becomes an executed notebook with the CSVs of its figures, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from observing import with_observations
from parameters import Value

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
START_TIMEOUT_S = 180  # a kernel starts in 1 s; this much on a busy machine


class NotebookFailed(Exception):
    """A chapter could not be executed or saved; one line."""


@dataclass(frozen=True)
class Job:
    """One execution of a chapter."""

    root: Path  # of the project
    source: Path
    out: Path
    parameters: Mapping[str, Value]
    facts: Mapping[str, Any] = field(default_factory=dict)  # saved in the notebook's metadata
    for_book: bool = False  # claims become observations, and a chapter that stops is not saved

    @property
    def figures(self) -> Path:
        """Where its CSVs go: two notebooks of one folder do not overwrite each other's."""
        return self.out.parent / ("figures" if self.for_book else f"{self.out.stem}-figures")


def load(source: Path) -> Any:
    """A py:percent file as a notebook whose bytes depend on the file alone."""
    import jupytext

    nb = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    nb.metadata = type(nb.metadata)(kernelspec=KERNEL)
    nb.nbformat, nb.nbformat_minor = 4, 5
    return nb


def execute(job: Job) -> None:
    """Run a chapter and save it with its figures' CSVs.

    Raises:
        NotebookFailed: it stopped, or could not be saved. Outside the book what ran is saved; in the book nothing is,
            and the last good chapter stays.
    """
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.out.parent, prefix=".running-") as folder:
        scratch = Path(folder).resolve()
        nb, stopped = executed(job, scratch)
        if stopped and (job.for_book or nb is None):
            raise NotebookFailed(stopped)
        tidy(nb, job)
        try:
            save(nb, job, scratch)
        except OSError as error:
            raise NotebookFailed(f"{job.source.stem}: cannot save {job.out}: {error.strerror}") from error
    if stopped:
        raise NotebookFailed(f"{stopped}\nsaved what ran in {job.out}")


def executed(job: Job, scratch: Path) -> tuple[Any, str]:
    """The notebook as far as it ran (None if not at all), and the line that stopped it, or ""."""
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from kernels import own_kernels
    from papermill.exceptions import PapermillExecutionError

    partial = scratch / "partial.ipynb"
    options: dict[str, Any] = {"cwd": str(job.source.parent), "progress_bar": False, "start_timeout": START_TIMEOUT_S}
    options["extra_arguments"] = ["--IPKernelApp.log_level=CRITICAL"]  # it warns of local TCP, and of its own end
    with environ(kernel_environment(scratch)):
        try:
            options |= {"parameters": dict(job.parameters), "kernel_manager_class": own_kernels(AsyncKernelManager)}
            return papermill.execute_notebook(load(job.source), str(partial), **options), ""
        except PapermillExecutionError as error:
            first = next((line for line in error.source.splitlines() if line.strip()), "")
            stopped = f"cell {error.cell_index} (`{first}`): {error.ename}: {one_line(error.evalue)}"
        except KeyboardInterrupt:
            stopped = "interrupted"
        except Exception as error:
            stopped = f"{type(error).__name__}: {one_line(str(error))}"
    return saved_by_papermill(partial), f"{job.source.stem}: {stopped}"


def saved_by_papermill(partial: Path) -> Any:
    """The notebook as papermill saved it after the last cell that ended; None where it could not."""
    import nbformat

    try:
        return nbformat.read(partial, 4)
    except (OSError, ValueError):
        return None


def kernel_environment(scratch: Path) -> dict[str, str]:
    """Where a kernel puts figures' points and the list of what it reads, and the caller's folders."""
    from dyniso.study.store import runs_folder

    places = {
        "DYNISO_FIGURES": scratch / "figures",
        "DYNISO_READS": scratch / "reads.txt",
        "DYNISO_RUNS": runs_folder(),
    }
    if os.environ.get("DYNISO_DATA"):
        places["DYNISO_DATA"] = Path(os.environ["DYNISO_DATA"]).expanduser()
    return {name: str(path.absolute()) for name, path in places.items()}


def save(nb: Any, job: Job, scratch: Path) -> None:
    """Write the notebook, and move the CSVs of its figures, each in one step."""
    import nbformat

    csvs = sorted(scratch.glob("figures/*.csv"))
    figures = {path.stem: sha256(path) for path in csvs}
    facts = {"parameters": dict(job.parameters), "figures": figures, "reads": noted(scratch / "reads.txt", job.root)}
    nb.metadata["dyniso"] = dict(job.facts) | facts
    (scratch / job.out.name).write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
    if figures or job.for_book:
        job.figures.mkdir(exist_ok=True)
    for path in csvs:
        os.replace(path, job.figures / path.name)
    os.replace(scratch / job.out.name, job.out)


def noted(file: Path, root: Path) -> dict[str, str]:
    """Digest of each file of the project that a chapter read, by its path in the project; "" where there was none."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    paths = sorted({Path(line) for line in lines if Path(line).is_relative_to(root)})
    return {path.relative_to(root).as_posix(): sha256(path) for path in paths}


def sha256(path: Path) -> str:
    """Digest of a file's bytes; "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def saved_facts(path: Path) -> dict[str, Any]:
    """metadata.dyniso of an executed chapter; empty if there is none."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["metadata"]["dyniso"]
    except (FileNotFoundError, KeyError, json.JSONDecodeError):
        return {}
    return facts


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


def tidy(nb: Any, job: Job) -> None:
    """Make an executed notebook reproducible, and its figures what the book's renderer expects. In place."""
    nb.metadata.pop("papermill", None)
    for index, cell in enumerate(nb.cells):
        cell.id = f"cell-{index:03d}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = joined_streams(cell.outputs)
            try:
                lift_figure(cell, job.figures.name)
            except ValueError as error:
                if job.for_book:  # elsewhere a reader sees both displays
                    raise NotebookFailed(f"{job.source.stem}: cell {index}: {error}") from None
    if job.for_book:
        nb.cells = list(with_observations(nb.cells))


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


def lift_figure(cell: Any, folder: str = "figures") -> None:
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
    points = f"Plotted points: {{download}}`CSV <{folder}/{figure['name']}.csv>`."
    cell.metadata["mystnb"] = {
        "image": {"alt": figure["alt"], "classes": "dark-light"},  # the theme's name for: leave it alone in dark mode
        "figure": {"name": figure["name"], "caption": f"{figure['caption']} {points}"},
    }
