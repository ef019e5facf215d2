from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.crops.masks import hull, learned, product, soften, square
from faceswap.faces.geometry import align_face, transform
from faceswap.media.frame import Frame

COVERAGE = 0.625


@pytest.fixture(scope="module")
def aligned(collins, collins_face):
    photo = Frame(collins, 0, Fraction(0), Path("x.png"))
    return align_face(photo, collins_face, 256, COVERAGE)


def test_square_covers_the_network_crop(aligned):
    mask = square(aligned, COVERAGE)

    assert mask.sum() == 160 * 160
    assert mask[48:208, 48:208].all()


def test_hull_contains_eyes_nose_mouth_and_forehead(aligned):
    mask = hull(aligned, COVERAGE)
    points = transform(aligned.face.landmarks, aligned.matrix)

    for x, y in points[27:68]:
        assert mask[round(float(y)), round(float(x))] == 1
    brows = points[17:27, 1].min()
    assert np.flatnonzero(mask.any(axis=1))[0] < brows
    assert mask.sum() < square(aligned, COVERAGE).sum()


@pytest.mark.parametrize("masker", [hull, square])
def test_soften_never_grows_a_mask_and_reaches_zero(aligned, masker):
    hard = masker(aligned, COVERAGE)
    soft = soften(hard, COVERAGE, erosion=0.03, feather=0.12)

    assert soft[hard == 0].max() == 0
    assert soft.max() == pytest.approx(1)
    assert ((soft > 0) & (soft < 1)).sum() > 500
    border = np.concatenate([soft[0], soft[-1], soft[:, 0], soft[:, -1]])
    assert border.max() == 0


def test_erosion_removes_its_fraction_of_the_square(aligned):
    soft = soften(square(aligned, COVERAGE), COVERAGE, erosion=0.1, feather=0.0)

    assert np.flatnonzero(soft[128]).tolist() == list(range(64, 192))  # 16 of 160 px a side


def test_soften_without_erosion_and_feather_changes_nothing(aligned):
    hard = hull(aligned, COVERAGE)

    np.testing.assert_array_equal(soften(hard, COVERAGE, 0.0, 0.0), hard)


def test_decoded_mask_is_thresholded_and_limited_to_the_square(aligned):
    decoded = np.full((256, 256), 0.05, np.float32)
    decoded[:, 100:] = 0.95
    decoded[100, 100] = 0.5

    mask = learned(aligned, COVERAGE, decoded)

    assert mask.dtype == np.float32
    assert not mask[:, :100].any()
    assert (mask[101:208, 100:208] == 1).all()
    assert not mask[:48].any()
    assert mask[100, 100] == pytest.approx(0.5)


def test_product_multiplies_both_masks(aligned):
    decoded = np.zeros((256, 256), np.float32)
    decoded[:128] = 1

    mask = product(aligned, COVERAGE, decoded)

    assert not mask[128:].any()
    np.testing.assert_array_equal(mask[:128], hull(aligned, COVERAGE)[:128])
