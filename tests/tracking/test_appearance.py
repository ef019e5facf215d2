"""Somebody who takes a face's place for a moment is noticed, and nothing else is."""

import cv2
import numpy as np
import pytest

from faceswap.faces.detection import detect_hog
from faceswap.faces.geometry import Box
from faceswap.tracking.appearance import Look, Visits

HERE, ELSEWHERE = Box(0, 0, 100, 100), Box(300, 0, 400, 100)


@pytest.fixture(scope="module")
def looks(collins, hopper):
    """Looks of one person, of the same person in worse light, and of another person."""
    # At 0.64, their embeddings are nearer than those of most people; a wider face is farther.
    wide = cv2.resize(collins, None, fx=1.25, fy=1.0)
    (one,), (other,) = detect_hog(wide, 0.2), detect_hog(hopper, 0.2)
    dim = np.asarray(cv2.GaussianBlur(wide // 2 + 40, (0, 0), 2), np.uint8)
    return {"a": Look(wide, one), "dim": Look(dim, one), "b": Look(hopper, other)}


def away(looks, shown, places=None, longest=24):
    visits = Visits(longest, 0.3)
    places = places or [HERE] * len(shown)
    return [
        visits.frames_away(index, place, looks[name])
        for index, (name, place) in enumerate(zip(shown, places, strict=True))
    ]


def test_who_comes_back_was_away(looks):
    assert away(looks, ["a", "a", "b", "b", "a", "a"]) == [None, None, None, None, 2, None]
    assert away(looks, ["b", "a", "b"]) == [None, None, 1]


def test_light_and_a_change_for_good_are_no_visits(looks):
    assert away(looks, ["a", "dim", "a", "dim"]) == [None] * 4
    assert away(looks, ["a", "a", "b", "b", "b"]) == [None] * 5


def test_who_is_away_for_long_or_elsewhere_is_not_missed(looks):
    assert away(looks, ["a", "b", "b", "b", "a"], longest=3) == [None] * 5
    assert away(looks, ["a", "b", "a"], [HERE, ELSEWHERE, HERE]) == [None] * 3
