from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.config import COVERAGE
from faceswap.crops.masks import hull
from faceswap.faces.geometry import align_face, transform
from faceswap.media.frame import Frame
from faceswap.swapping.region import (
    Cover,
    bare,
    brow_cover,
    covered,
    feathered,
    sticks_out,
    without_brows,
)


@pytest.fixture(scope="module")
def aligned(collins, collins_face):
    found = align_face(Frame(collins, 0, Fraction(0), Path()), collins_face, 256, COVERAGE)
    return replace(found, skin=np.ones((256, 256), np.float32))


@pytest.fixture(scope="module")
def region(aligned):
    return hull(aligned, 0.8)


@pytest.fixture(scope="module")
def mask(aligned, region):
    return feathered(region, aligned, COVERAGE, 0.04)


def points_of(aligned):
    return transform(aligned.face.landmarks, aligned.matrix)


def test_mask_is_full_on_the_features_and_empty_outside(aligned, region, mask):
    for x, y in points_of(aligned)[27:68].round().astype(int):
        assert mask[y, x] > 0.99
    assert (mask[region == 0] == 0).all()
    assert mask.min() >= 0
    assert mask.max() == 1


def test_edge_is_wide_on_the_forehead_and_narrow_at_the_jaw(aligned, mask):
    column = round(float(points_of(aligned)[27, 0]))
    soft = (mask[:, column] > 0.02) & (mask[:, column] < 0.98)
    middle = round(float(points_of(aligned)[30, 1]))

    assert soft[:middle].sum() > 2 * soft[middle:].sum() > 0


def test_feather_is_at_least_as_wide_as_asked(aligned, region):
    narrow, wide = (feathered(region, aligned, COVERAGE, share) for share in (0.02, 0.15))

    def softness(mask):
        return ((mask > 0.02) & (mask < 0.98)).mean()

    assert softness(wide) > 1.3 * softness(narrow)


def test_occluder_in_the_region_has_a_soft_edge_too(aligned, region):
    cut = region.copy()
    cut[150:, :128] = 0

    mask = feathered(cut, aligned, COVERAGE, 0.04)

    assert (mask[150:, :128] == 0).all()
    steps = np.abs(np.diff(mask[:, 100]))
    assert steps.max() < 0.5


def test_brows_beside_the_mask_are_painted_over(aligned, mask):
    """A dark stripe above the brows shows through a soft mask, unless it is covered."""
    points = points_of(aligned)
    image = np.full((256, 256, 3), (190, 150, 130), np.uint8)
    top = round(float(points[19, 1])) - 10
    left, right = (round(float(points[i, 0])) for i in (17, 21))
    image[top : top + 6, left:right] = (60, 40, 30)
    drawn = replace(aligned, image=image)

    cover = brow_cover(drawn)

    assert sticks_out(cover, mask)
    stripe = np.s_[top : top + 6, left + 4 : right - 4]
    assert cover.mask[stripe].min() > 0.8
    assert np.abs(cover.image[stripe].astype(int) - (190, 150, 130)).max() < 12
    assert cover.mask[:20].max() == 0
    assert cover.mask[140:].max() == 0
    clean = without_brows(image, cover)
    assert np.abs(clean[stripe].astype(int) - (190, 150, 130)).max() < 30
    assert (clean[:20] == image[:20]).all()


def test_skin_over_a_brow_has_the_colour_of_the_skin_beside_it(aligned):
    """The forehead becomes brighter upwards; a cover of its upper part's colour would be seen."""
    points = points_of(aligned)
    rows = np.linspace(230, 90, 256)[:, None, None] * np.array([1.0, 0.8, 0.7])
    image = np.broadcast_to(rows, (256, 256, 3)).astype(np.uint8).copy()
    skin = image.copy()
    top = round(float(points[19, 1])) - 10
    left, right = (round(float(points[i, 0])) for i in (17, 21))
    image[top : top + 6, left:right] = (40, 30, 25)

    cover = brow_cover(replace(aligned, image=image))

    stripe = np.s_[top : top + 6, left + 4 : right - 4]
    assert np.abs(cover.image[stripe].astype(int) - skin[stripe]).max() < 8


def test_shadows_around_the_eyes_stay_in_the_footage_whose_light_is_measured(aligned):
    points = points_of(aligned)
    image = np.full((256, 256, 3), (190, 150, 130), np.uint8)
    left, top = points[36:48].min(axis=0).astype(int)
    right, bottom = points[36:48].max(axis=0).astype(int)
    shadow = np.s_[top:bottom, left:right]
    image[shadow] = (110, 80, 70)

    clean = without_brows(image, brow_cover(replace(aligned, image=image)))

    assert np.abs(clean[shadow].astype(int) - image[shadow]).mean() < 4


def test_even_skin_needs_no_cover(aligned, mask):
    plain = replace(aligned, image=np.full((256, 256, 3), (190, 150, 130), np.uint8))

    cover = brow_cover(plain)

    assert cover.mask.max() < 0.01
    assert not sticks_out(replace(cover, mask=np.zeros_like(mask)), mask)


def test_cover_lies_below_the_new_face():
    face = np.full((8, 8, 3), 200, np.uint8)
    skin = Cover(
        np.full((8, 8, 3), 100, np.uint8), np.ones((8, 8), np.float32), np.zeros((8, 8), np.float32)
    )
    mask = np.zeros((8, 8), np.float32)
    mask[:, :4], mask[:, 4:6] = 1.0, 0.25

    image, merged = covered(face, mask, skin)

    assert (merged == 1).all()
    assert (image[:, :4] == 200).all()
    assert (image[:, 4:6] == 125).all()
    assert (image[:, 6:] == 100).all()


def test_nothing_changes_where_there_is_no_cover():
    face = np.full((8, 8, 3), 200, np.uint8)
    mask = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    zero = np.zeros((8, 8), np.float32)
    nothing = Cover(np.zeros((8, 8, 3), np.uint8), zero, zero)

    image, merged = covered(face, mask, nothing)

    np.testing.assert_array_equal(merged, mask)
    assert (image == 200).all()


def test_lines_drawn_beyond_the_eyes_do_not_darken_bare_skin(collins, collins_face):
    """A brow of the new face can be longer than the footage's, and an eyeliner has a wing."""
    points = collins_face.landmarks
    x, y = round(float(points[[26, 45], 0].max())) + 27, round(float(points[45, 1]))
    drawn = collins.copy()
    drawn[y - 3 : y + 4, x - 4 : x + 5] = (20, 15, 15)
    inside = np.zeros(collins.shape[:2], np.float32)
    inside[y - 90 : y + 120, x - 200 : x + 8] = 1

    plain, lined = (bare(image, points, inside) for image in (collins, drawn))

    area = np.s_[y - 3 : y + 4, x - 4 : x + 5]
    assert np.abs(lined[area].astype(float) - plain[area]).mean() < 15
