"""What becomes of a number that is missing, and of a run that has diverged, where rows are made tables."""

import numpy as np
import pandas as pd
import pytest

from dyniso.report.results import WORST
from dyniso.report.rows import OVER, Rows

COLUMNS = ["method", "seed", "task", "layer", "metric", "value"]


@pytest.mark.parametrize("over", OVER)
def test_missing_number_is_none_whatever_becomes_of_several_layers(over):
    frame = pd.DataFrame([("adam", 0, 0, "hidden1", "dead", 0.5)], columns=COLUMNS)
    table = Rows(frame, ["adam"], [0], 2).table("dead", over=over)
    np.testing.assert_array_equal(table, [[[np.nan, 0.5, np.nan]]])


def test_rank_of_a_diverged_run_is_below_that_of_every_other():
    assert WORST["activation_rank"] < 1  # a single direction has rank 1
