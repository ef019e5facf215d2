"""Numbers, names and times in words."""

import pytest

from faceswap.types import clock, counted, named


@pytest.mark.parametrize(("number", "words"), [(0, "0 faces"), (1, "1 face"), (2, "2 faces")])
def test_noun_agrees_with_its_number(number, words):
    assert counted(number, "face") == words


@pytest.mark.parametrize(
    ("names", "line"),
    [([], ""), (["x"], "x"), (["x", "y"], "x, y"), (["x", "y", "z", "w"], "x, y and 2 more")],
)
def test_line_names_the_first_and_counts_the_others(names, line):
    assert named(names, 2) == line


@pytest.mark.parametrize(
    ("seconds", "digits", "words"),
    [
        (0, 1, "0:00.0"), (62.04, 3, "1:02.040"), (59.96, 1, "1:00.0"), (-0.001, 1, "0:00.0"),
        (3599.9996, 3, "1:00:00.000"), (7325.5, 1, "2:02:05.5"),
    ],
)  # fmt: skip
def test_clock_carries_and_shows_hours_only_if_needed(seconds, digits, words):
    assert clock(seconds, digits) == words
