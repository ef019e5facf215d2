"""A frame with changed rects gives the same pixels as a whole changed image."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.media.frame import Frame, rounded
from faceswap.media.photos import DeepPhoto

HEIGHT, WIDTH = 30, 40


def random_rects(random, count):
    for _ in range(count):
        left, right = sorted(random.choice(WIDTH + 1, 2, replace=False).tolist())
        top, bottom = sorted(random.choice(HEIGHT + 1, 2, replace=False).tolist())
        yield left, top, right, bottom


def random_image(random, deep):
    if deep:
        return DeepPhoto(random.integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16))
    return random.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def frame_of(pixels):
    return Frame(pixels, 3, Fraction(3, 25), Path("x.mp4"))


@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
def test_overlapping_changes_equal_changes_to_a_whole_image(deep):
    random = np.random.default_rng(1)
    for _ in range(20):
        frame = frame_of(random_image(random, deep))
        whole = frame.rgb_float((0, 0, WIDTH, HEIGHT)).copy()
        before = frame.image.copy()
        for left, top, right, bottom in random_rects(random, 6):
            new = random.uniform(0, 255, (bottom - top, right - left, 3)).astype(np.float32)
            frame = frame.changed((left, top, right, bottom), new)
            whole[top:bottom, left:right] = new
        for left, top, right, bottom in random_rects(random, 4):
            part = whole[top:bottom, left:right]
            np.testing.assert_array_equal(frame.rgb_float((left, top, right, bottom)), part)
            np.testing.assert_array_equal(frame.crop((left, top, right, bottom)), rounded(part))
        np.testing.assert_array_equal(frame.image, rounded(whole))
        assert (frame.index, frame.time, frame.shape) == (3, Fraction(3, 25), (HEIGHT, WIDTH))
        untouched = frame_of(frame.pixels)
        np.testing.assert_array_equal(untouched.image, before)
        np.testing.assert_array_equal(frame.gray(), untouched.gray())  # gray() ignores changes


def test_changed_rects_never_overlap():
    random = np.random.default_rng(2)
    for _ in range(30):
        frame = frame_of(random_image(random, deep=False))
        for left, top, right, bottom in random_rects(random, 5):
            frame = frame.changed(
                (left, top, right, bottom), np.zeros((bottom - top, right - left, 3), np.uint8)
            )
        hits = np.zeros((HEIGHT, WIDTH), int)
        for (left, top, right, bottom), pixels in frame.changes:
            assert pixels.shape == (bottom - top, right - left, 3)
            hits[top:bottom, left:right] += 1
        assert hits.max() == 1


def test_repainted_frame_shows_only_the_new_image():
    random = np.random.default_rng(3)
    frame = frame_of(random_image(random, deep=True)).changed(
        (2, 3, 12, 9), np.zeros((6, 10, 3), np.uint8)
    )
    new = random_image(random, deep=False)

    np.testing.assert_array_equal(frame.repainted(new).image, new)
    assert len(frame.repainted(new).changes) == 1


def test_crop_is_a_copy():
    frame = frame_of(random_image(np.random.default_rng(4), deep=False))
    before = frame.image.copy()

    frame.crop((0, 0, 10, 10))[:] = 0

    np.testing.assert_array_equal(frame.image, before)


def test_rounded_picks_the_nearest_level_and_clips():
    levels = rounded(np.array([-3.0, 0.4, 0.6, 254.6, 300.0], np.float32))

    assert levels.tolist() == [0, 0, 1, 255, 255]
