from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.crops.masks import hull, soften, square
from faceswap.faces.geometry import AlignedFace, Face, align_face
from faceswap.media.frame import Frame, rounded
from faceswap.swapping.compositor import BLENDS, COLORS, Swap, layer, paste

COVERAGE = 0.625


def frame_of(image):
    return Frame(image, 0, Fraction(0), Path("x.png"))


def psnr(one, two):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2))


@pytest.mark.parametrize("masker", [hull, square])
def test_pasting_an_unchanged_crop_restores_the_frame(collins, collins_face, masker):
    frame = frame_of(collins)
    aligned = align_face(frame, collins_face, 256, COVERAGE)
    mask = soften(masker(aligned, COVERAGE), COVERAGE, 0.03, 0.12)

    restored = paste(frame, Swap(aligned, aligned.image, mask)).image

    box = collins_face.box
    window = np.s_[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    assert psnr(restored[window], collins[window]) >= 40


def test_pixels_outside_the_mask_stay_bit_identical(collins, collins_face):
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
    np.testing.assert_array_equal(collins, before)  # the input frame is not modified


def test_full_mask_replaces_and_half_mask_mixes():
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


def test_face_at_the_border_is_clipped_to_the_frame(collins, collins_face):
    moved = collins_face.landmarks - [collins_face.landmarks[:, 0].mean(), 0]
    face = Face(collins_face.box, 1.0, moved.astype(np.float32))
    aligned = align_face(frame_of(collins), face, 256, COVERAGE)
    swap = Swap(aligned, 255 - aligned.image, square(aligned, COVERAGE))

    pasted = paste(frame_of(collins), swap).image

    assert pasted.shape == collins.shape
    assert (pasted[:, 0] != collins[:, 0]).any()


@pytest.mark.parametrize("shift", [(-2000, 0), (5000, 300)])
def test_face_outside_the_frame_changes_nothing(collins, collins_face, shift):
    face = Face(collins_face.box, 1.0, (collins_face.landmarks + shift).astype(np.float32))
    aligned = align_face(frame_of(collins), face, 256, COVERAGE)

    pasted = paste(frame_of(collins), Swap(aligned, aligned.image, square(aligned, COVERAGE)))

    np.testing.assert_array_equal(pasted.image, collins)


def match(name, swapped, reference, mask):
    """Measure and apply a colour match to the new face."""
    method = COLORS[name]
    recoloured = method.apply(swapped.astype(np.float32), method.measure(swapped, reference, mask))
    return rounded(recoloured)


@pytest.fixture
def face_and_footage():
    """A face, footage of other colours that is black outside the mask, and the mask."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (64, 64, 3))
    swapped = np.clip(90 + 12 * noise, 0, 255).astype(np.uint8)
    mixed = np.array([150, 110, 95]) + noise @ [[20, 5, 0], [0, 18, 4], [6, 0, 25]]
    reference = np.clip(mixed, 0, 255).astype(np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[10:50, 20:40] = 1
    reference[mask == 0] = 0  # pixels outside must not count
    return swapped, reference, mask


@pytest.mark.parametrize("name", ["average", "reinhard", "linear", "histogram"])
def test_color_match_gives_the_footage_mean_within_the_mask(face_and_footage, name):
    swapped, reference, mask = face_and_footage

    matched = match(name, *face_and_footage)

    inside = mask > 0
    wanted = reference[inside].mean(axis=0)
    # Equal means in Lab give nearly equal means in RGB.
    atol = 3 if name == "reinhard" else 0.6
    np.testing.assert_allclose(matched[inside].mean(axis=0), wanted, atol=atol)
    assert (matched != swapped).any()
    np.testing.assert_array_equal(matched, match(name, *face_and_footage))


def test_linear_match_gives_the_footage_covariance(face_and_footage):
    _, reference, mask = face_and_footage

    matched = match("linear", *face_and_footage)

    inside = mask > 0
    wanted = np.cov(reference[inside].T.astype(float))
    np.testing.assert_allclose(np.cov(matched[inside].T.astype(float)), wanted, rtol=0.05, atol=3)


def test_reinhard_gives_the_footage_spread_in_lab(face_and_footage):
    from skimage.color import rgb2lab

    _, reference, mask = face_and_footage

    matched = match("reinhard", *face_and_footage)

    inside = mask > 0
    spread = [rgb2lab(image)[inside].std(axis=0) for image in (matched, reference)]
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.05)


def test_histogram_agrees_with_scikit_image(face_and_footage):
    from skimage.exposure import match_histograms

    swapped, reference, mask = face_and_footage
    inside = mask > 0

    matched = match("histogram", *face_and_footage)[inside].astype(int)

    wanted = match_histograms(swapped[inside][:, None], reference[inside][:, None], channel_axis=-1)
    assert np.abs(matched - wanted[:, 0]).mean() < 1.5


@pytest.mark.parametrize("name", sorted(COLORS))
def test_color_match_with_an_empty_mask_changes_nothing(name):
    image = np.full((8, 8, 3), 90, np.uint8)

    matched = match(name, image, image + 1, np.zeros((8, 8), np.float32))

    np.testing.assert_array_equal(matched, image)


@pytest.mark.parametrize("name", sorted(COLORS))
def test_color_match_of_a_uniform_face_is_finite(name):
    image = np.full((16, 16, 3), 90, np.uint8)

    matched = match(name, image, image + 20, np.ones((16, 16), np.float32))

    assert np.abs(matched.astype(int) - (90 if name == "none" else 110)).max() <= 1


@pytest.mark.parametrize("blend", sorted(BLENDS))
def test_every_blend_restores_an_unchanged_crop(collins, collins_face, blend):
    aligned = align_face(frame_of(collins), collins_face, 256, COVERAGE)
    mask = soften(hull(aligned, COVERAGE), COVERAGE, 0.03, 0.12)

    restored = paste(frame_of(collins), Swap(aligned, aligned.image, mask), blend).image

    assert psnr(restored, collins) >= 45
    far = np.s_[: int(collins_face.box.top) - 60]
    np.testing.assert_array_equal(restored[far], collins[far])


@pytest.mark.parametrize("blend", sorted(BLENDS))
def test_every_blend_pastes_a_changed_face(collins, collins_face, blend):
    aligned = align_face(frame_of(collins), collins_face, 256, COVERAGE)
    mask = soften(hull(aligned, COVERAGE), COVERAGE, 0.03, 0.12)
    other = np.ascontiguousarray(aligned.image[::-1])

    pasted = paste(frame_of(collins), Swap(aligned, other, mask), blend).image

    box = collins_face.box
    window = np.s_[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    assert np.abs(pasted[window].astype(int) - collins[window]).mean() > 5


def test_linear_light_blends_black_and_white_brighter():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    half = np.full((2, 2), 0.5, np.float32)

    assert BLENDS["alpha"](black, white, half).mean() == pytest.approx(127.5)
    assert BLENDS["linear"](black, white, half).mean() == pytest.approx(187.5, abs=0.5)


def test_poisson_takes_the_frame_color():
    frame, face = np.full((64, 64, 3), 100, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    face[30:34, 30:34] = 220
    mask = np.zeros((64, 64), np.float32)
    mask[10:54, 10:54] = 1

    mixed = BLENDS["poisson"](frame, face, mask)

    assert abs(mixed[15, 15].mean() - 100) < 3  # the frame is flat there
    assert mixed[32, 32].mean() > 112  # the face's detail is kept


def test_pyramid_softens_a_step_and_keeps_detail():
    frame, face = np.full((128, 128, 3), 100, np.uint8), np.full((128, 128, 3), 160, np.uint8)
    mask = np.zeros((128, 128), np.float32)
    mask[24:104, 24:104] = 1

    mixed = BLENDS["pyramid"](frame, face, mask)

    assert 102 < mixed[64, 25].mean() < 150  # still a mixture at the mask's edge
    assert mixed[64, 64].mean() > mixed[64, 25].mean() + 10


def swap_at(left, top, colour, share):
    """A 32 px swap of one colour and one mask value, placed somewhere in a frame."""
    face = Face(None, 1.0, np.zeros((68, 2), np.float32))
    image = np.full((32, 32, 3), colour, np.uint8)
    aligned = AlignedFace(face, image, np.array([[1.0, 0, -left], [0, 1.0, -top]]))
    mask = np.zeros((32, 32), np.float32)
    mask[4:28, 4:28] = share
    return Swap(aligned, image, mask)


def over(rgba, image):
    share = rgba[..., 3:] / 255
    return rgba[..., :3] * share + image * (1 - share)


def test_layer_over_the_original_equals_the_swap(collins, collins_face):
    frame = frame_of(collins)
    aligned = align_face(frame, collins_face, 256, COVERAGE)
    mask = soften(hull(aligned, COVERAGE), COVERAGE, 0.03, 0.12)
    swap = Swap(aligned, 255 - aligned.image, mask)

    (_, rgba), *others = layer(frame, [swap]).changes

    assert not others
    assert rgba.shape == (*collins.shape[:2], 4)
    assert (rgba[..., 3] == 255).any()
    pasted = paste(frame, swap).image
    assert np.abs(over(rgba, collins) - pasted).max() <= 2
    unchanged = (pasted == collins).all(axis=2)
    assert rgba[..., 3][~unchanged].all()


def test_overlapping_layers_are_composited_in_order():
    frame = frame_of(np.full((64, 64, 3), 90, np.uint8))
    swaps = [swap_at(8, 8, (200, 0, 30), 0.5), swap_at(20, 16, (10, 250, 90), 0.75),
             swap_at(500, 500, (1, 2, 3), 1)]  # fmt: skip

    rgba = layer(frame, swaps).changes[0][1]

    pasted = frame
    for swap in swaps:
        pasted = paste(pasted, swap)
    assert np.abs(over(rgba, frame.image) - pasted.image).max() <= 2
    assert sorted(set(rgba[..., 3].ravel())) == [0, 128, 191, 223]  # 1 - 0.5 * 0.25 of 255
    assert not rgba[rgba[..., 3] == 0].any()


def test_frame_without_faces_has_an_empty_layer():
    assert not layer(frame_of(np.full((8, 9, 3), 90, np.uint8)), []).changes[0][1].any()
