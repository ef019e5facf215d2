from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faceswap.config import ConvertConfig
from faceswap.faces.geometry import Box, Face
from faceswap.media.frame import Frame
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.swapping import detail
from faceswap.swapping.render import paste_swaps
from faceswap.swapping.swapper import Swapper, prepare_video


@pytest.fixture
def photo(collins):
    return np.ascontiguousarray(collins[60:260, 130:320])


@pytest.fixture
def mask(photo):
    mask = np.zeros(photo.shape[:2], np.float32)
    cv2.ellipse(mask, (95, 90), (70, 85), 0, 0, 360, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(mask, (9, 9), 2), np.float32)


def generator(seed=0):
    return np.random.default_rng(seed)


def rounded(pixels):
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def noisy(image, sigma, blur=0.0):
    grain = generator(3).standard_normal(image.shape[:2])
    grain = cv2.GaussianBlur(grain, (0, 0), blur) if blur else grain
    return rounded(image + (grain * sigma / grain.std())[..., None])


def motion_blurred(image, x, y):
    """Average copies moved along a line, which is the definition of motion blur."""
    moved = [
        cv2.warpAffine(
            image.astype(np.float32),
            np.array([[1, 0, t * x], [0, 1, t * y]]),
            image.shape[1::-1],
            borderMode=cv2.BORDER_REPLICATE,
        )
        for t in np.linspace(-0.5, 0.5, 65)
    ]
    return rounded(np.mean(moved, axis=0))


def band(image, mask, fine, coarse):
    """Energy of the band between two Gaussian blurs, well inside the mask."""
    luma = image.astype(np.float32).mean(axis=2)
    difference = cv2.GaussianBlur(luma, (0, 0), fine) - cv2.GaussianBlur(luma, (0, 0), coarse)
    inside = cv2.erode((mask > 0.99).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return float((difference[inside] ** 2).mean())


def matched(swapped, reference, mask, seed=0, **motion):
    numbers = detail.measure(swapped, reference, mask, **motion)
    return detail.apply(swapped, numbers, generator(seed))


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_sharp_face_becomes_as_soft_as_the_footage(photo, mask, sigma):
    reference = cv2.GaussianBlur(photo, (0, 0), sigma)

    result = matched(photo, reference, mask)

    for scales in ((0.5, 1), (1, 2), (2, 4)):
        ratio = band(result, mask, *scales) / band(reference, mask, *scales)
        assert ratio == pytest.approx(1, abs=0.15)
    assert band(photo, mask, 1, 2) > 1.15 * band(reference, mask, 1, 2)


def test_soft_face_is_sharpened_within_bounds(photo, mask):
    soft = cv2.GaussianBlur(photo, (0, 0), 1.2)

    numbers = detail.measure(soft, photo, mask)
    result = detail.apply(soft, np.r_[numbers[:6], 0, 0], generator())

    before, after, wanted = (band(image, mask, 1, 2) for image in (soft, result, photo))
    assert 1.3 * before < after <= wanted
    assert numbers[3:6].max() <= detail.MAX_GAIN


@pytest.mark.parametrize("sigma", [2.0, 4.0, 8.0])
def test_footage_grain_is_added(photo, mask, sigma):
    clean = rounded(cv2.GaussianBlur(photo, (0, 0), 1.5) * 0.6 + 50)  # away from black and white

    result = matched(clean, noisy(clean, sigma), mask)

    difference = (result - clean.astype(float)).mean(axis=2)[mask > 0.99]
    assert difference.std() == pytest.approx(sigma, rel=0.2)


def test_coarse_grain_stays_coarse():
    """Neighbouring pixels of real grain are correlated, and the correlation is kept."""

    def correlation(image):
        values = image[..., 0].astype(float) - 120
        return (values[:, 1:] * values[:, :-1]).mean() / values.var()

    gray = np.full((200, 200, 3), 120, np.uint8)
    reference = noisy(gray, 6, blur=0.6)

    result = matched(gray, reference, np.ones((200, 200), np.float32))

    assert correlation(result) == pytest.approx(correlation(reference), abs=0.1)
    assert result.std() == pytest.approx(6, rel=0.2)


def test_face_with_the_footage_detail_stays_bit_identical(photo, mask):
    for image in (photo, noisy(photo, 5)):
        assert np.array_equal(matched(image, image, mask), image)


def test_grain_is_reproducible_and_differs_between_frames(photo, mask):
    reference = noisy(photo, 5)

    first, again, other = (matched(photo, reference, mask, seed) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_only_pixels_with_a_full_mask_are_measured(photo, mask):
    reference = noisy(cv2.GaussianBlur(photo, (0, 0), 1.0), 4)
    numbers = detail.measure(photo, reference, mask, (12.0, 0.0))
    outside = mask < 0.99
    swapped, other = photo.copy(), reference.copy()
    swapped[outside] = generator(1).integers(0, 256, (outside.sum(), 3))
    other[outside] = generator(2).integers(0, 256, (outside.sum(), 3))

    assert np.array_equal(detail.measure(swapped, other, mask, (12.0, 0.0)), numbers)


@pytest.mark.parametrize("line", [(8.0, 0.0), (0.0, 8.0), (7.0, 4.0), (-12.0, 5.0)])
def test_footage_motion_blur_is_measured_and_applied(photo, mask, line):
    reference = motion_blurred(photo, *line)

    numbers = detail.measure(photo, reference, mask, (2 * line[0], 2 * line[1]))
    result = detail.apply(photo, numbers, generator())

    assert np.hypot(*numbers[:2]) == pytest.approx(np.hypot(*line), rel=0.2)
    assert numbers[0] * line[1] == pytest.approx(numbers[1] * line[0], abs=1e-6)
    error = np.abs(result.astype(float) - reference)[mask > 0.99].mean()
    assert error < 0.3 * np.abs(photo.astype(float) - reference)[mask > 0.99].mean()


@pytest.mark.parametrize(
    ("blurred", "displacement"),
    [(True, (0.0, 0.0)), (True, (1.0, 0.0)), (False, (16.0, 0.0)), (False, (0.0, 16.0))],
)
def test_no_motion_blur_for_a_still_face_or_a_short_exposure(photo, mask, blurred, displacement):
    reference = motion_blurred(photo, 8.0, 0.0) if blurred else cv2.GaussianBlur(photo, (0, 0), 1.5)

    assert not detail.measure(photo, reference, mask, displacement)[:2].any()


@pytest.mark.parametrize("seed", [21, 28, 40, 78])
def test_noise_on_smooth_footage_is_measurable(seed):
    """A barely trained decoder paints noise. Blurring it may leave it more energy than before."""
    random = generator(seed)
    noise = 128 + random.normal(0, random.uniform(2, 60), (100, 100))
    blur = random.choice([0, 0.6, 1.0])
    noise = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), blur) if blur else noise
    coarse = random.normal(0, 1, (100, 100)).astype(np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), random.uniform(2, 8))
    footage = 128 + coarse / coarse.std() * random.uniform(0.2, 10)
    if seed % 2:
        footage = cv2.blur(footage, (9, 1))
    oval = np.zeros((100, 100), np.float32)
    cv2.ellipse(oval, (50, 50), (42, 46), 0, 0, 360, 1.0, -1)
    moved = random.uniform(4, 30)

    numbers = detail.measure(
        rounded(noise)[..., None].repeat(3, axis=2),
        footage.astype(np.uint8)[..., None].repeat(3, axis=2),
        oval,
        (moved, 0.0),
    )

    assert np.isfinite(numbers).all()
    assert 0 <= numbers[0] <= detail.SHUTTER * moved
    assert numbers[1] == 0


def test_face_too_small_to_measure_is_unchanged(photo):
    small = np.zeros(photo.shape[:2], np.float32)
    small[80:95, 80:95] = 1

    assert np.array_equal(matched(photo, noisy(photo, 9), small), photo)


def face_at(x, y, track=1):
    return Face(Box(0, 0, 9, 9), 1.0, np.full((68, 2), (x, y), np.float32), track)


def test_displacement_is_per_frame_and_per_track():
    before, now, after = face_at(0, 10), face_at(4, 10), face_at(10, 4)
    other = face_at(99, 99, track=2)

    assert detail.displacement(now, [[other, before], [now], [after]]) == (5.0, -3.0)
    assert detail.displacement(now, [[now, other], [after]]) == (6.0, -6.0)
    assert detail.displacement(now, [[now], [other]]) == (0.0, 0.0)
    assert detail.displacement(face_at(0, 0, track=-1), [[before], [after]]) == (0.0, 0.0)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_grain_is_one_frame_pixel_wide_on_large_and_small_faces(collins, collins_face, scale):
    """Grain must not scale with the crop, which is 256 pixels wide for faces of any size."""
    network = autoencoder.build(PRESETS["small"])
    network.swap = lambda images, to, identity_strength, **_: images
    trained = modelfile.TrainedModel(network, ("a", "b"), (0.0, 0.0, 0.0), 0)
    large = cv2.resize(collins, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    film = noisy(rounded(large * 0.7 + 40), 6)
    landmarks = ((collins_face.landmarks + 0.5) * scale - 0.5).astype(np.float32)
    face = replace(collins_face, landmarks=landmarks, track=0)
    frames = [Frame(film, index, Fraction(index, 25), Path("x")) for index in range(3)]
    grain, frame_swaps = {}, {}
    for wanted in (False, True):
        swapper = Swapper(trained, ConvertConfig(match_detail=wanted), torch.device("cpu"))
        for frame, swaps in prepare_video(swapper, [(frame, [face]) for frame in frames]):
            frame_swaps[wanted, frame.index] = paste_swaps(frame, swaps, swapper.config).image
    left, top = landmarks[27:36].min(axis=0) - 12 * scale
    right, bottom = landmarks[27:36].max(axis=0) + 12 * scale
    nose = np.s_[int(top) : int(bottom), int(left) : int(right)]
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    for (wanted, index), image in [*frame_swaps.items(), ((None, 0), film)]:
        gray = image.mean(axis=2)[nose]
        grain[wanted, index] = 1.4826 * np.median(np.abs(cv2.filter2D(gray, -1, kernel)))

    assert grain[False, 0] < 0.5 * grain[None, 0]
    assert grain[True, 0] == pytest.approx(grain[None, 0], rel=0.2)
    assert not np.array_equal(frame_swaps[True, 0][nose], frame_swaps[True, 1][nose])


@pytest.mark.parametrize(("step", "expected"), [(0, 2), (1, 2), (4, 10)])
def test_frames_share_numbers_except_of_motion(collins, collins_face, monkeypatch, step, expected):
    """All detail is measured in every eighth frame; motion in every frame where the face moves."""
    network = autoencoder.build(PRESETS["small"])
    network.swap = lambda images, to, identity_strength, **_: images
    trained = modelfile.TrainedModel(network, ("a", "b"), (0.0, 0.0, 0.0), 0)
    found = []
    for index in range(10):
        moved = collins_face.landmarks + np.float32([step * index, 0])
        frame = Frame(collins, index, Fraction(index, 25), Path("x"))
        found.append((frame, [replace(collins_face, landmarks=moved, track=0)]))
    measured, measure = [], detail.measure

    def counted(*arguments):
        measured.append(arguments[4])
        return measure(*arguments)

    monkeypatch.setattr(detail, "measure", counted)
    config = ConvertConfig(color="none", mask="hull")
    swaps = list(prepare_video(Swapper(trained, config, torch.device("cpu")), found))

    assert len(measured) == expected
    assert sum(known is None for known in measured) == 2
    assert all(each[0].detail is not None for _, each in swaps)
    if step == 0:
        np.testing.assert_allclose(swaps[1][1][0].detail, swaps[2][1][0].detail)
