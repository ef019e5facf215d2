import math

import numpy as np
import pytest

from faceswap.evaluation.bootstrap import mean_of, scored


def test_interval_of_a_mean_is_that_of_normal_theory():
    values = np.random.default_rng(0).normal(5, 2, 400)

    score = mean_of(list(values))

    reach = 1.96 * values.std() / 20
    assert score.value == pytest.approx(values.mean(), abs=1e-4)
    assert score.low == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert score.high == pytest.approx(values.mean() + reach, abs=0.1 * reach)


def test_interval_narrows_with_more_faces():
    values = list(np.random.default_rng(0).normal(0, 1, 900))

    few, many = mean_of(values[:9]), mean_of(values)

    assert many.high - many.low < 0.3 * (few.high - few.low)


def test_faces_without_a_number_are_left_out():
    assert mean_of([1.0, math.nan, 3.0]).value == 2


def test_undefined_score_is_none():
    assert mean_of([]) is None
    assert mean_of([math.nan] * 5) is None


def test_two_faces_have_no_interval():
    score = scored(2, lambda draw: float(len(draw)))

    assert (score.value, score.low, score.high) == (2, None, None)
