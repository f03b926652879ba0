"""dyniso.report.notebook: checked sentences and captioned figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dyniso.report import notebook


@pytest.mark.parametrize("true", [True, np.bool_(True), torch.tensor(True)])
def test_claim_prints_what_holds(true: Any, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.claim("it-holds", "It holds.", true)
    assert capsys.readouterr().out == "✓ It holds.\n"


@pytest.mark.parametrize("false", [False, np.bool_(False), torch.tensor(False)])
def test_claim_stops_at_what_does_not_hold(false: Any) -> None:
    with pytest.raises(AssertionError, match=r"it-holds: It holds\."):
        notebook.claim("it-holds", "It holds.", false)


@pytest.mark.parametrize("neither", [1, "yes", None, np.array([True]), torch.ones(2), lambda: True])
def test_claim_refuses_what_is_not_a_truth_value(neither: Any) -> None:
    with pytest.raises(TypeError, match="expected True or False"):
        notebook.claim("it-holds", "It holds.", neither)


FIGURE = {"name": "fig-a", "caption": "A line.", "alt": "It rises."}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alt": " "}, "alt is empty"),
        ({"caption": ""}, "caption is empty"),
        ({"caption": "One.\n\nTwo."}, "one paragraph"),
        ({"name": "Fig A"}, "lower-case words"),
    ],
)
def test_show_refuses_a_figure_that_not_everyone_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str
) -> None:
    monkeypatch.setenv("DYNISO_FIGURES", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        notebook.show(None, pd.DataFrame({"x": [1]}), **(FIGURE | change))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_show_saves_the_plotted_points_and_marks_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    shown: list[tuple[Any, Any]] = []
    monkeypatch.setenv("DYNISO_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(notebook, "display", lambda data, metadata: shown.append((data, metadata)))
    table = pd.DataFrame({"x": [1, 2], "y": [0.1, 1 / 3]})
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(table.x, table.y)
    notebook.show(figure, table, **(FIGURE | {"caption": "A line,\nafter {cite:t}`roy2007`."}))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "figures" / "fig-a.csv"), table, check_exact=True)
    (image, image_metadata), (caption, caption_metadata) = shown
    assert image_metadata["dyniso"] == {
        "name": "fig-a",
        "caption": "A line, after {cite:t}`roy2007`.",
        "alt": "It rises.",
    }
    assert 300 < image_metadata["image/png"]["width"] < 420, "four inches at 96 pixels an inch, less the trimmed margin"
    assert image["image/png"].startswith("iVBOR")
    assert caption["text/markdown"] == "A line, after roy2007."
    assert caption_metadata["dyniso"] == {"drop": True}


@pytest.mark.parametrize("name", ["It holds", "it_holds", "", "-a"])
def test_claim_refuses_a_name_that_is_no_words_joined_by_hyphens(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case words joined by hyphens"):
        notebook.claim(name, "It holds.", True)


def test_stamp_says_at_which_commit_the_page_was_executed() -> None:
    made_by = {"dyniso": "1", "commit": "abc+", "torch": "2", "hardware": "a CPU"}
    table = notebook.stamp_table(made_by, notebook="adamo")
    assert "| executed at commit | abc + changes |" in table
