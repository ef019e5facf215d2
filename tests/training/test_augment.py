"""Compare the transform and random_warp with the per-image reference on equal random numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from faceswap.faces.geometry import face_matrix, warp_image
from faceswap.models import sampling
from faceswap.models.architectures import PRESETS
from faceswap.training import augment
from tests.support.reference import reference_transform, reference_warp

CLASSIC = PRESETS["original"]
BATCH = 16


@pytest.fixture(scope="module")
def crops(collins, hopper, collins_face):
    from faceswap.faces.detection import detect_hog

    faces = [(collins, collins_face), (hopper, detect_hog(hopper, 0.2)[0])]
    images = [
        warp_image(photo, face_matrix(face.landmarks, 256, 0.625), 256, 256)
        for photo, face in faces
    ]
    return np.stack([images[i % 2] for i in range(BATCH)])  # (B, 256, 256, 3)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def planar(crops):
    return torch.from_numpy(crops.transpose(0, 3, 1, 2).copy())


def grey_levels(tensor, images):
    return np.abs(tensor.numpy().transpose(0, 2, 3, 1) * 255 - np.stack(images)).mean()


def numbers(noise, i):
    fields = (noise.angle, noise.zoom, noise.shift_x, noise.shift_y, noise.flip)
    return [float(field[i]) for field in fields]


def test_transform_matrices_match_the_reference(crops, generator):
    noise = augment.draw_transform(BATCH, generator)
    matrices = augment.transform_matrices(noise, 256).float()

    images = planar(crops).float() / 255
    grid = F.affine_grid(matrices, images.shape, align_corners=False)
    ours = F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    assert 0 < noise.flip.sum() < BATCH  # both cases occur
    reference = [
        reference_transform(crop, *numbers(noise, i)).astype(float) for i, crop in enumerate(crops)
    ]
    assert grey_levels(ours, reference) < 1


def test_random_warp_matches_the_reference(crops, generator):
    displacement = augment.draw_warp(BATCH, generator)

    warped, target = augment.random_warp(planar(crops), displacement, CLASSIC)

    assert warped.shape == target.shape == (BATCH, 3, 64, 64)
    pairs = [reference_warp(crop, displacement[i].numpy() * 160) for i, crop in enumerate(crops)]
    assert grey_levels(warped, [pair[0].astype(float) for pair in pairs]) < 1
    assert grey_levels(target, [pair[1].astype(float) for pair in pairs]) < 1


def test_combined_transform_and_warp_match_the_sequential_reference(crops, generator):
    noise = augment.draw_transform(BATCH, generator)
    displacement = augment.draw_warp(BATCH, generator)
    matrices = augment.transform_matrices(noise, 256)

    warped, target = augment.random_warp(planar(crops), displacement, CLASSIC, matrices)

    pairs = []
    for i, crop in enumerate(crops.astype(np.float32)):
        moved = reference_transform(crop, *numbers(noise, i))
        pairs.append(reference_warp(np.ascontiguousarray(moved), displacement[i].numpy() * 160))
    # Sampling twice blurs detail that sampling once keeps, so allow two grey levels.
    assert grey_levels(warped, [pair[0] for pair in pairs]) < 2
    assert grey_levels(target, [pair[1] for pair in pairs]) < 2


def test_warp_scales_with_the_network_size(crops, generator):
    from dataclasses import replace

    large = replace(PRESETS["small"], size=160, crop_size=256)
    displacement = augment.draw_warp(BATCH, generator)

    small_warp, small_target = augment.random_warp(planar(crops), displacement, PRESETS["small"])
    large_warp, large_target = augment.random_warp(planar(crops), displacement, large)

    halve = torch.nn.functional.avg_pool2d
    assert (halve(large_warp, 2) - small_warp).abs().mean() * 255 < 3
    assert (halve(large_target, 2) - small_target).abs().mean() * 255 < 3


def test_without_noise_input_and_target_equal_the_network_crop(crops):
    no_displacement = torch.zeros(BATCH, 2, 5, 5, dtype=torch.float64)

    warped, target = augment.random_warp(planar(crops), no_displacement, PRESETS["small"])

    expected = sampling.network_crop(planar(crops), PRESETS["small"])
    torch.testing.assert_close(warped, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(target, expected, atol=1e-4, rtol=0)


def test_random_numbers_have_the_specified_spread(generator):
    noise = augment.draw_transform(20000, generator)
    warp = augment.draw_warp(2000, generator)

    assert noise.angle.abs().max() <= 10
    assert noise.angle.std() == pytest.approx(20 / 12**0.5, rel=0.03)
    assert (noise.zoom - 1).abs().max() <= 0.05
    assert noise.shift_x.abs().max() <= 0.05
    assert noise.flip.mean() == pytest.approx(0.4, abs=0.02)
    assert warp.std() * 160 == pytest.approx(5, rel=0.02)


def test_same_seed_draws_the_same_warp():
    first, second = (augment.draw_warp(4, torch.Generator().manual_seed(7)) for _ in range(2))

    assert torch.equal(first, second)
