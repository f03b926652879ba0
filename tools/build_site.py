"""Build the book's site from book/ into build/_build/html, warnings as errors; nothing is done if no input changed.

Always from scratch: Sphinx reports a page's warnings only when it reads that page, so a second build after a failed one
would pass. A full build costs about as much as a partial one.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import apidoc

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
KEY = BUILD / "site.key"
COMMAND = ["book", "--config", "_config.yml", "--path-output", "build", "-W", "-n", "--keep-going", "-q"]


def content_key() -> str:
    """Hash of the names and contents of everything that the site is made from."""
    digest = hashlib.sha256()
    tools = [Path(__file__), Path(__file__).with_name("apidoc.py"), Path(__file__).with_name("book_extension.py")]
    for path in [ROOT / "_config.yml", ROOT / "constraints.txt", *tools, *sorted((ROOT / "book").rglob("*"))]:
        if path.is_file() and ".ipynb_checkpoints" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    for name, path in apidoc.documented().items():
        digest.update(f"{name}\0{apidoc.interface(path.read_text(encoding='utf-8'))}\0".encode())
    return digest.hexdigest()


def main() -> int:
    apidoc.write_pages()
    index = BUILD / "_build" / "html" / "index.html"
    key = content_key()
    if index.exists() and KEY.exists() and KEY.read_text() == key:
        print(f"current  {index}")
        return 0
    KEY.unlink(missing_ok=True)
    shutil.rmtree(BUILD / "_build", ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    status = subprocess.run([jupyter_book, "build", *COMMAND], cwd=ROOT, stdin=subprocess.DEVNULL).returncode
    if status:
        return status
    KEY.write_text(key)
    print(f"open {index}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
