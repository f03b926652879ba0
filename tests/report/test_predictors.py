"""What a number before a task tells of it. Oracle: with one predictor, R^2 is the square of the correlation."""

import numpy as np
import pandas as pd
import pytest

from dyniso.report.predictors import correlation, explained


def test_what_one_predictor_explains_is_the_square_of_its_rank_correlation():
    generator = np.random.default_rng(0)
    a = generator.normal(size=40)
    frame = pd.DataFrame({"a": a, "b": a + generator.normal(size=40)})
    assert 0.1 < explained(frame, ["a"], "b") == pytest.approx(correlation(frame, "a", "b") ** 2)
