"""Do the tests see a mistake? One line is changed at a time, in a copy, and the tests that concern it are run.

python tools/mutants.py                     all of tests/mutants.toml; writes book/evidence/mutants.json
python tools/mutants.py --only pull         those whose file or reason holds a word; nothing is written
python tools/mutants.py --jobs 2 --seconds 600    stops after that long; the same call goes on with what is left

A mutant is caught if one of its tests fails; all of them pass without it, which is seen first. An entry with
`equivalent` is a change that no test could see, with the reason, and is not run. Exit code 1 if a mutant survives.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dyniso.study.provenance import provenance

ROOT = Path(__file__).parents[1]
LIST, TARGET = ROOT / "tests" / "mutants.toml", ROOT / "book" / "evidence" / "mutants.json"
EQUAL = "equivalent"
KEYS = {"file", "old", "new", "why", "tests", EQUAL}
LIMIT_S = 600  # a mutant that loops for ever is caught by then


def entries(path: Path = LIST) -> list[dict[str, Any]]:
    """The list, checked: each old line stands once in its file, and its tests exist.

    Raises:
        ValueError: an entry that is not so (says which).
    """
    found: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    for entry in found:
        require_entry(entry)
    return found


def require_entry(entry: dict[str, Any]) -> None:
    """ValueError unless an entry can be applied and has tests, or a reason why it has none."""
    name = f"{entry.get('file')}: {entry.get('new')!r}"
    if entry.keys() - KEYS or not {"file", "old", "new", "why"} <= entry.keys():
        raise ValueError(f"{name} has the keys {sorted(entry)}; allowed are {sorted(KEYS)}")
    count = (ROOT / entry["file"]).read_text(encoding="utf-8").count(entry["old"])
    if count != 1 or entry["old"] == entry["new"]:
        raise ValueError(f"{name} replaces what stands {count} times in the file: {entry['old']!r}; it must stand once")
    if EQUAL not in entry and not entry.get("tests"):
        raise ValueError(f"{name} names no tests")
    missing = [test for test in entry.get("tests", []) if not (ROOT / test.partition("::")[0]).exists()]
    if missing:
        raise ValueError(f"{name} names tests that are not there: {missing}")


def copied(folder: Path) -> Path:
    """The tracked files of the project in a new folder."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, target)
    return folder


def tried(entry: dict[str, Any], folder: Path, earlier: str = "") -> dict[str, Any]:
    """Apply one mutant in a copy, run its tests, and take it back: caught or survived, with seconds and what failed.

    A test that saw it earlier is run first, and alone if it still does.
    """
    path = folder / entry["file"]
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(entry["old"], entry["new"]), encoding="utf-8")
    started = time.monotonic()
    try:
        failed, last = seen_again(earlier, entry, folder) or first_failure(entry["tests"], folder)
    finally:
        path.write_text(whole, encoding="utf-8")
    row = {key: entry[key] for key in ("file", "old", "new", "why")}
    return row | {
        "result": "caught" if failed else "survived",
        "by": last,
        "basis": basis(entry, folder),
        "seconds": round(time.monotonic() - started, 1),
    }


def seen_again(test: str, entry: dict[str, Any], folder: Path) -> tuple[bool, str] | None:
    """What `first_failure` says of one test, if that is among an entry's tests and fails; None otherwise."""
    if not any(test == named or test.startswith(f"{named}::") for named in entry["tests"]):
        return None
    try:
        failed, last = first_failure([test], folder)
    except RuntimeError:  # a test of this name is no longer there
        return None
    return (True, last) if failed else None


def first_failure(tests: list[str], folder: Path, limit_s: float | None = LIMIT_S, jobs: int = 0) -> tuple[bool, str]:
    """Whether a test fails in a folder's code, and the first that does; in some processes side by side if `jobs`."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "DYNISO_SKIP_SITE": "1"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}  # a mutant may be as old, by the second, as what is compiled
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", f"-n{jobs}", *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return True, f"no end within {limit_s} s"
    named = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(f"{' '.join(command)} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode != 0, (named[0].partition(" ")[2].partition(" - ")[0] if named else "")


def require_passing(entries: list[dict[str, Any]], folder: Path, jobs: int = 0) -> None:
    """RuntimeError, naming the first, unless all tests of some entries pass in a copy that has no mistake."""
    tests = sorted({test for entry in entries for test in entry["tests"]})
    whole = {test for test in tests if "::" not in test}
    once = [test for test in tests if test in whole or test.partition("::")[0] not in whole]
    failed, first = first_failure(once, folder, None, jobs)
    if failed:
        raise RuntimeError(f"{first} fails without any mutant, so it can tell nothing")


def known(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results that are stored, by file and change, of entries whose tests and the library say the same as then."""
    stored = stored_rows()
    now = {key(e): basis(e, ROOT) for e in entries if EQUAL not in e}
    return {key(row): row for row in stored if now.get(key(row)) == row.get("basis", "")}


def stored_rows() -> list[dict[str, Any]]:
    """The rows of the table as it is, of whatever code."""
    rows: list[dict[str, Any]] = json.loads(TARGET.read_text(encoding="utf-8"))["rows"] if TARGET.exists() else []
    return rows


def basis(entry: dict[str, Any], root: Path) -> str:
    """Digest of what a result rests on: the library, and the tests that are run with what they share."""
    tests = {root / test.partition("::")[0] for test in entry["tests"]}
    shared = {path for test in tests for path in test.parent.glob("*.py") if not path.name.startswith("test_")}
    code = {*(root / "dyniso").rglob("*.py"), root / entry["file"]}
    files = [sha256(path) for path in sorted(code | tests | shared | {root / "tests" / "conftest.py"}) if path.exists()]
    return hashlib.sha256("\0".join([*entry["tests"], *files]).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def key(entry: dict[str, Any]) -> str:
    return f"{entry['file']}\0{entry['old']}\0{entry['new']}"


def write(rows: list[dict[str, Any]]) -> None:
    """The table as JSON, with what made it."""
    facts = {k: v for k, v in provenance().items() if k in ("commit", "torch", "python", "hardware", "started")}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps({"made_by": facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def try_all(todo: list[dict[str, Any]], jobs: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Try some mutants, several side by side in copies of their own; those that no time is left for are left out."""
    deadline = time.monotonic() + seconds
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
    earlier = {key(row): row["by"] for row in stored_rows()}

    def one(entry: dict[str, Any]) -> dict[str, Any] | None:
        if time.monotonic() > deadline:
            return None
        folder = copies.get()
        try:
            return tried(entry, folder, earlier.get(key(entry), ""))
        finally:
            copies.put(folder)

    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        folders = [copied(Path(scratch) / str(i)) for i in range(jobs)]
        require_passing(todo, folders[0], jobs if jobs > 1 else 0)
        for folder in folders:
            copies.put(folder)
        for future in concurrent.futures.as_completed([pool.submit(one, entry) for entry in todo]):
            row = future.result()
            if row is not None:
                yield row


def equivalents(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of the entries that are not run, each with the reason."""
    rows = [{k: e[k] for k in ("file", "old", "new", "why")} | {"by": e["equivalent"]} for e in entries if EQUAL in e]
    return {key(row): row | {"result": EQUAL} for row in rows}


def main() -> int:
    """Parse the call, try what is not known yet, print one line a mutant, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a word in the file's name or the reason")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    wanted = [e for e in entries() if options.only in e["file"] or options.only in e["why"]]
    rows = equivalents(wanted) | ({} if options.only else known(wanted))
    todo = [e for e in wanted if key(e) not in rows]
    for row in try_all(todo, options.jobs, options.seconds) if todo else ():
        rows[key(row)] = row
        told = f"{row['result']:<9} {row['seconds']:5.0f} s  {row['file']}: {row['why']}  [{row['by']}]"
        print(told, flush=True)
        if not options.only:
            write([rows[key(e)] for e in wanted if key(e) in rows])
    counts = {r: sum(row["result"] == r for row in rows.values()) for r in ("caught", "survived", EQUAL)}
    print(", ".join(f"{n} {r}" for r, n in counts.items()), f"of {len(wanted)}")
    return int(counts["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
