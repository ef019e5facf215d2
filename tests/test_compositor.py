from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.aligner import align_face
from faceswap.compositor import average, paste, unmatched
from faceswap.masks import hull, soften, square
from faceswap.types import AlignedFace, Face, Frame, Swap

COVERAGE = 0.625


def frame_of(image):
    return Frame(image, 0, Fraction(0), Path("x.png"))


def psnr(one, two):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2))


@pytest.mark.parametrize("masker", [hull, square])
def test_pasting_a_crop_back_unchanged_restores_the_frame(collins, collins_face, masker):
    frame = frame_of(collins)
    aligned = align_face(frame, collins_face, 256, COVERAGE)
    mask = soften(masker(aligned, COVERAGE), COVERAGE, 0.03, 0.12)

    restored = paste(frame, Swap(aligned, aligned.image, mask)).image

    box = collins_face.box
    window = np.s_[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    assert psnr(restored[window], collins[window]) >= 40


def test_outside_the_mask_not_a_bit_changes(collins, collins_face):
    frame = frame_of(collins)
    aligned = align_face(frame, collins_face, 256, COVERAGE)
    mask = soften(hull(aligned, COVERAGE), COVERAGE, 0.03, 0.12)
    before = collins.copy()

    pasted = paste(frame, Swap(aligned, 255 - aligned.image, mask)).image

    box = collins_face.box
    changed = np.flatnonzero((pasted != collins).any(axis=(1, 2)))
    assert box.top - 60 < changed.min() < changed.max() < box.bottom + 60
    assert (pasted != collins).any()
    inside = mask[128, 128]
    assert inside == 1
    np.testing.assert_array_equal(collins, before)  # the input frame is not touched


def test_full_mask_replaces_and_half_mask_mixes_once():
    image = np.full((64, 64, 3), 100, np.uint8)
    face = Face(None, 1.0, np.zeros((68, 2), np.float32))
    aligned = AlignedFace(face, image, np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    mask = np.zeros((64, 64), np.float32)
    mask[16:32, 16:48] = 1
    mask[32:48, 16:48] = 0.5

    pasted = paste(frame_of(image), Swap(aligned, np.full((64, 64, 3), 200, np.uint8), mask)).image

    assert (pasted[16:32, 16:48] == 200).all()
    assert (pasted[32:48, 16:48] == 150).all()  # the mask is applied once, not squared
    assert (pasted[:16] == 100).all()


def test_a_face_half_outside_the_frame_is_pasted_where_the_frame_is(collins, collins_face):
    moved = collins_face.landmarks - [collins_face.landmarks[:, 0].mean(), 0]
    face = Face(collins_face.box, 1.0, moved.astype(np.float32))
    aligned = align_face(frame_of(collins), face, 256, COVERAGE)
    swap = Swap(aligned, 255 - aligned.image, square(aligned, COVERAGE))

    pasted = paste(frame_of(collins), swap).image

    assert pasted.shape == collins.shape
    assert (pasted[:, 0] != collins[:, 0]).any()


@pytest.mark.parametrize("shift", [(-2000, 0), (5000, 300)])
def test_a_face_wholly_outside_the_frame_changes_nothing(collins, collins_face, shift):
    face = Face(collins_face.box, 1.0, (collins_face.landmarks + shift).astype(np.float32))
    aligned = align_face(frame_of(collins), face, 256, COVERAGE)

    pasted = paste(frame_of(collins), Swap(aligned, aligned.image, square(aligned, COVERAGE)))

    np.testing.assert_array_equal(pasted.image, collins)


def test_average_color_brings_the_mean_within_the_mask_to_the_footage():
    random = np.random.default_rng(0)
    swapped = random.integers(60, 120, (64, 64, 3)).astype(np.uint8)
    reference = random.integers(90, 160, (64, 64, 3)).astype(np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[10:50, 20:40] = 1
    reference[mask == 0] = 0  # what lies outside must not count

    matched = average(swapped, reference, mask)

    inside = mask > 0
    np.testing.assert_allclose(
        matched[inside].mean(axis=0), reference[inside].mean(axis=0), atol=0.5
    )


def test_average_color_of_an_empty_mask_changes_nothing():
    image = np.full((8, 8, 3), 9, np.uint8)

    matched = average(image, image + 1, np.zeros((8, 8), np.float32))

    np.testing.assert_array_equal(matched, image)


def test_no_color_match_changes_nothing():
    image = np.full((8, 8, 3), 9, np.uint8)

    assert unmatched(image, image + 1, np.ones((8, 8), np.float32)) is image
