import cv2
import numpy as np
import pytest

from faceswap.evaluation import texture
from faceswap.evaluation.texture import SlicedWasserstein


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)


def everywhere():
    return np.ones((256, 256), bool)


def test_bands_and_their_rest_add_up_to_the_luma(noise):
    luma = noise.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])

    rest = luma - sum(texture.bands(noise))

    assert np.abs(rest - cv2.GaussianBlur(luma, (0, 0), 8)).max() < 0.1 * luma.std()


@pytest.mark.parametrize(("period", "strongest"), [(2.5, 0), (6, 1), (13, 2), (28, 3)])
def test_a_wave_is_strongest_in_the_band_of_its_length(period, strongest):
    wave = 128 + 100 * np.sin(np.arange(256) * 2 * np.pi / period)
    image = np.repeat(np.tile(wave, (256, 1))[..., None], 3, axis=2).astype(np.uint8)

    assert texture.band_energies(image, everywhere()).argmax() == strongest


def test_half_the_contrast_is_half_the_sharpness(noise):
    half = (64 + noise / 2).round().astype(np.uint8)
    full, faint = (texture.band_energies(image, everywhere()) for image in (noise, half))

    for band in range(4):
        assert texture.sharpness(faint[[band]], full[[band]]) == pytest.approx(0.5, abs=0.01)


def patches(shift, count, seed):
    random = np.random.default_rng(seed)
    return [random.normal(shift, 1, (128, 147)).astype(np.float32) for _ in range(count)]


def test_distance_equals_the_sorted_difference_of_equal_sets():
    faces, real = patches(0.5, 4, 0), patches(0, 4, 1)
    there = np.concatenate(real).reshape(-1, 49, 3)
    mean, spread = there.mean(axis=(0, 1)), there.std(axis=(0, 1))
    axes = np.random.default_rng(1).standard_normal((147, texture.DIRECTIONS))
    axes /= np.linalg.norm(axes, axis=0)
    one, two = (
        np.sort(((np.concatenate(p).reshape(-1, 49, 3) - mean) / spread).reshape(-1, 147) @ axes, 0)
        for p in (faces, real)
    )

    found = SlicedWasserstein(faces, real).distance(np.ones(4))

    assert found == pytest.approx(1000 * np.abs(one - two).mean(), rel=1e-3)


def test_distance_with_weights_equals_that_of_repeated_faces():
    faces, real = patches(0.5, 3, 0), patches(0, 4, 1)
    repeated = [faces[0], faces[0], faces[2]]

    weighted = SlicedWasserstein(faces, real).distance(np.array([2.0, 0.0, 1.0]))

    assert weighted == pytest.approx(
        SlicedWasserstein(repeated, real).distance(np.ones(3)), rel=1e-3
    )


def test_lost_contrast_is_a_distance():
    real = patches(0, 4, 1)
    flat = [0.5 * patch for patch in patches(0, 4, 0)]

    assert SlicedWasserstein(flat, real).distance(np.ones(4)) > 300


def test_patches_lie_inside_the_area(noise):
    area = np.zeros((256, 256), bool)
    area[100:140, 100:140] = True
    outside = noise.copy()
    outside[:90], outside[150:], outside[:, :90], outside[:, 150:] = 0, 0, 0, 0

    inner, cut = (texture.patches_of(image, area)[0] for image in (noise, outside))

    np.testing.assert_array_equal(inner, cut)


def test_empty_area_has_no_patches(noise):
    nothing = np.zeros((256, 256), bool)

    assert [len(level) for level in texture.patches_of(noise, nothing)] == [0, 0, 0]
    assert np.isnan(texture.band_energies(noise, nothing)).all()
