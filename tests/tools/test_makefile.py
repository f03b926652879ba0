"""The Makefile's commands reach their tools whatever the folder of the checkout is called."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = '#!/bin/sh\necho "$DYNISO_FIGURES|$DYNISO_RUNS|$*" >> "$LOG"\n'
INSTALLED = 'touch ".venv/.installed-$(cat pyproject.toml constraints.txt | cksum | tr " " "-")"'


def test_every_step_of_make_test_is_called_below_a_folder_with_a_space_and_a_quote(tmp_path):
    checkout = tmp_path / "my dyniso's copy"
    for folder in ("tools", ".venv/bin"):
        (checkout / folder).mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/timed.sh"):
        shutil.copy(ROOT / name, checkout / name)
    for name in ("python", "ruff", "mypy"):
        (checkout / ".venv/bin" / name).write_text(TOOL)
        (checkout / ".venv/bin" / name).chmod(0o755)
    subprocess.run(["sh", "-c", INSTALLED], cwd=checkout, check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DYNISO", "MAKE", "MFLAGS"))}
    environment["LOG"] = str(tmp_path / "log")
    done = subprocess.run(["make", "test"], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    *earlier, (figures, runs, call) = [line.split("|") for line in (tmp_path / "log").read_text().splitlines()]
    assert len(earlier) == 6
    assert figures == f"{checkout}/build/nbval-figures"
    assert runs == f"{checkout}/build/runs"
    assert "-p nbval_kernels" in call
