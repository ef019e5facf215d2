from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from faceswap.models import autoencoder, sampling
from faceswap.models.architectures import PRESETS
from faceswap.models.refiner import Refiner, RefinerConfig
from faceswap.training.portraits import Portraits
from faceswap.training.refining import (
    Bank,
    RefinerTraining,
    draw_filters,
    fill_bank,
    refine_decoders,
    texture_distance,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photos(collins):
    """Parts of a photo, (16, 3, 160, 160) in [0, 1]."""
    random = np.random.default_rng(0)
    places = random.integers(0, 512 - 160, (16, 2))
    parts = [collins[y : y + 160, x : x + 160] for y, x in places]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float() / 255


def ones(images):
    return torch.ones_like(images[:, :1])


def distance_of(images, photos, mask):
    filters, pixels = draw_filters(*photos.shape[-2:], generator())
    return float(texture_distance(images, photos, mask, filters, pixels))


def test_image_has_no_distance_to_itself(photos):
    assert distance_of(photos, photos, ones(photos)) == 0


def test_distance_ignores_where_a_texture_is(photos):
    mirrored = photos.flip(3)
    soft = F.avg_pool2d(photos, 5, 1, 2)

    far, near = (distance_of(images, photos, ones(photos)) for images in (soft, mirrored))
    assert far > 1.5 * near


def test_pixels_outside_the_mask_do_not_count(photos):
    mask = ones(photos)
    mask[..., :60] = 0
    changed = photos.clone()
    changed[..., :60] = 0

    assert distance_of(changed, photos, mask) == 0


def test_training_brings_texture_back(photos):
    """A refiner learns to undo a blur better than L1 on a bicubic enlargement starts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        refiner = Refiner(RefinerConfig(scale=2))
    blurred = [cv2.GaussianBlur(p.permute(1, 2, 0).numpy(), (0, 0), 2) for p in photos]
    soft = torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2)
    small = F.avg_pool2d(soft, 2)
    bank = Bank(
        (small * 255).round().to(torch.uint8),
        (torch.cat([photos, ones(photos)], dim=1) * 255).round().to(torch.uint8),
    )
    training = RefinerTraining(refiner, bank, generator())
    before = F.interpolate(small, scale_factor=2, mode="bicubic")

    for step in range(60):
        training.step(step / 60)

    with torch.no_grad():
        after = refiner(small)
    distances = [distance_of(images, photos, ones(photos)) for images in (before, after)]
    assert distances[1] < 0.7 * distances[0]
    assert (after - photos).abs().mean() < 1.1 * (before - photos).abs().mean()


@pytest.mark.parametrize("key", ["a", "b"])
def test_photos_of_the_bank_show_the_decoder_input_enlarged(key):
    """With a network that returns its input, input and photo show the same pixels."""

    class Copy(torch.nn.Module):
        config = PRESETS["small"]

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images, key):
            return images

    people = faces(16)
    bank = fill_bank(run_of(Copy()), people, key)

    assert bank.decoded.shape == (16, 3, 80, 80)
    assert bank.photos.shape == (16, 4, 240, 240)
    shrunk = F.avg_pool2d(bank.photos[:, :3].float(), 3)
    assert (shrunk - bank.decoded.float()).abs().max() < 1.5
    plain = F.avg_pool2d(people.images[:, :3].float(), 3)
    change = (bank.decoded.float() - plain).mean((0, 2, 3))
    assert (change[0] > 10) == (key == "a")  # training adds red to a's faces


def test_enlarged_geometry_covers_the_same_square():
    config = PRESETS["original"]
    large = config.enlarged(2)

    for size in (config.crop_size, 256):
        small_matrix = sampling.output_to_crop(config, size)
        large_matrix = sampling.output_to_crop(large, size)
        # pixel (0.5, 0.5) of the small image is the middle of pixels 1 and 2 of the large one
        np.testing.assert_allclose(
            small_matrix @ [0.5, 0.5, 1], large_matrix @ [1.5, 1.5, 1], atol=1e-9
        )


def run_of(network, step=20):
    return SimpleNamespace(network=network, ema_or_model=network, step=step,
                           color_shift=(0.1, 0.0, -0.1), refiners={})  # fmt: skip


def faces(count=5):
    noise = torch.randint(0, 256, (count, 4, 240, 240), generator=generator()).to(torch.uint8)
    return Portraits(noise, None, np.zeros(count, np.int64), None,
                     np.zeros((count, 68, 2), np.float32), np.zeros(count))  # fmt: skip


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return autoencoder.build(PRESETS["small"])


def test_both_refiners_are_trained_the_same_way_every_time(network):
    runs = [run_of(network) for _ in range(2)]
    for run in runs:
        refine_decoders(run, {"a": faces(), "b": faces(7)}, steps=2)

    assert set(runs[0].refiners) == {"a", "b"}
    for key in "ab":
        one, two = (run.refiners[key].state_dict() for run in runs)
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert one["last.bias"].abs().max() > 0


def test_training_goes_on_with_the_refiners_of_the_run(network):
    run = run_of(network)
    refine_decoders(run, {"b": faces()}, steps=1)
    first = run.refiners["b"]
    refine_decoders(run, {"b": faces()}, steps=1)

    assert run.refiners["b"] is first
    assert not first.training


def test_crops_without_a_mask_count_everywhere(network):
    run = run_of(network)

    people = replace(faces(), images=faces().images[:, :3])
    refine_decoders(run, {"b": people}, steps=2)

    assert torch.isfinite(run.refiners["b"].last.weight).all()
