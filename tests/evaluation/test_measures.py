from dataclasses import fields

import pytest

from faceswap.evaluation.measures import MEASURES, Measure, _loses
from faceswap.evaluation.results import Score, SwapScores


def test_every_score_has_a_goal():
    assert set(MEASURES) == {field.name for field in fields(SwapScores)}


@pytest.mark.parametrize(
    ("goal", "model", "rival", "loses"),
    [
        ("higher", Score(0.5, 0.4, 0.6), 0.7, True),
        ("higher", Score(0.5, 0.4, 0.8), 0.7, False),  # within the interval
        ("lower", Score(0.5, 0.4, 0.6), 0.3, True),
        ("lower", Score(0.5, 0.4, 0.6), 0.9, False),
        ("one", Score(0.5, 0.4, 0.6), 0.7, True),
        ("one", Score(2.0, 1.9, 2.1), 0.4, False),  # the rival is farther from 1
        ("one", Score(1.1, 0.9, 1.3), 1.0, False),
        ("higher", Score(0.5, None, None), 0.6, True),
    ],
)
def test_model_loses_beyond_its_own_interval(goal, model, rival, loses):
    assert _loses(Measure(goal, ()), model, Score(rival, None, None)) == loses


def test_undefined_scores_are_not_compared():
    assert not _loses(Measure("higher", ()), None, Score(1.0, None, None))
    assert not _loses(Measure("higher", ()), Score(1.0, None, None), None)
