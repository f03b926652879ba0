"""Contracts of dyniso.report.figures.kernels: what is drawn is what the table says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dyniso.report.figures import kernels as kernel_figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(ax) -> dict[str, np.ndarray]:
    """Label -> x and y, of the lines that have a label."""
    return {str(line.get_label()): line.get_xydata() for line in ax.get_lines() if line.get_label()[0] != "_"}


def test_spectra_have_a_line_each_and_dots_where_descent_was_run():
    curves = pd.DataFrame(
        {"spectrum": ["a", "a", "b", "b"], "steps": [1, 2] * 2, "P_K": [0.1, 0.2, 0.3, 0.4], "simulated": [0.1] * 4}
    )
    (ax,) = kernel_figures.spectra(curves).axes
    assert drawn(ax)["b"].tolist() == [[1, 0.3], [2, 0.4]]
    assert len(ax.get_lines()) == 4


def test_infinite_bounds_are_named_and_not_drawn_as_points():
    columns = ("block", "block_sums", "block_product", "kernel", "kernel_sums", "kernel_ratio")
    table = pd.DataFrame([(1, 2, np.inf, 3, 4, 5), (1, 2, 3, 3, 4, 5)], columns=columns).assign(network=["n", "m"])
    above, below = kernel_figures.tightness(table).axes
    assert [text.get_text() for text in above.texts] == ["infinite"] and not below.texts
    assert np.isnan(drawn(above)["bound, last expression"][0, 0])
    assert drawn(below)["measured"].tolist() == [[3, 0], [3, 1]]
    assert [label.get_text() for label in above.get_yticklabels()] == ["n", "m"]


def test_points_of_a_network_stand_in_its_row_whatever_the_order():
    measured = pd.DataFrame(
        {"network": ["n", "m", "m", "n"], "inputs": ["short"] * 2 + ["long"] * 2, "kernel": [1.0, 2.0, 3.0, 4.0]}
    )
    (ax,) = kernel_figures.by_inputs(measured).axes
    assert drawn(ax)["long"].tolist() == [[3, 1], [4, 0]]


def test_markers_are_joined_only_where_there_is_no_formula():
    maps = pd.DataFrame(
        {"activation": ["relu", "sort"], "c": [0.5] * 2, "simulated": [0.6, 0.7], "formula": [0.6, None]}
    )
    formulas = pd.DataFrame({"formula: ReLU": [0.3, 1.0]}, index=[0.0, 1.0])
    (ax,) = kernel_figures.correlations(maps, formulas).axes
    styles = {line.get_label(): line.get_linestyle() for line in ax.get_lines()}
    assert styles["relu"] == "None" and styles["sort"] == ":"
    assert drawn(ax)["formula: ReLU"].tolist() == [[0, 0.3], [1, 1]]


def test_condition_numbers_are_averaged_geometrically_and_progress_plainly():
    nets = pd.DataFrame({"deviation": [0, 0], "kappa_W2": [1, 100], "kappa_theta": [4, 9], "P_10": [0.2, 0.4]})
    top, bottom = kernel_figures.gauge(nets, dict.fromkeys("abcd", "P_10")).axes
    assert drawn(top)["κ of $W_2$"].tolist() == [[0, pytest.approx(10)]]
    assert drawn(bottom)["a"].tolist() == [[0, pytest.approx(0.3)]]


def test_prediction_is_across_and_what_was_removed_is_up():
    runs = pd.DataFrame({"target": ["signs"], "predicted": [0.2], "removed": [0.3]})
    (ax,) = kernel_figures.predictions(runs).axes
    assert drawn(ax)["signs"].tolist() == [[0.2, 0.3]]
