"""What the README says: its tables are what is stored, its code runs."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_tables_of_the_readmes_are_what_is_stored():
    spec = importlib.util.spec_from_file_location("readme_tool", ROOT / "tools" / "readme.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for path in (ROOT / "README.md", ROOT / "benchmarks" / "README.md"):
        text = path.read_text()
        assert "<!-- benchmarks -->" in text
        assert tool.updated(text) == text, f"run `python tools/readme.py`: {path.name} is stale"


def test_python_of_the_readme_runs():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"model": model})


@pytest.mark.parametrize("text", ["PLACEHOLDER", "TODO", "TEST-TIME"])
def test_readme_has_nothing_left_to_fill_in(text):
    assert text not in (ROOT / "README.md").read_text()
