from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from faceswap.models import autoencoder, sampling
from faceswap.models.architectures import PRESETS
from faceswap.models.refiner import Refiner, RefinerConfig
from faceswap.training.refining import (
    Bank,
    RefinerTraining,
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


def test_image_has_no_distance_to_itself(photos):
    assert texture_distance(photos, photos, ones(photos), generator()) == 0


def test_distance_ignores_where_a_texture_is(photos):
    mirrored = photos.flip(3)
    soft = F.avg_pool2d(photos, 5, 1, 2)

    def distance(images):
        return float(texture_distance(images, photos, ones(photos), generator()))

    assert distance(soft) > 1.5 * distance(mirrored)


def test_pixels_outside_the_mask_do_not_count(photos):
    mask = ones(photos)
    mask[..., :60] = 0
    changed = photos.clone()
    changed[..., :60] = 0

    assert texture_distance(changed, photos, mask, generator()) == 0


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
    distances = [
        float(texture_distance(images, photos, ones(photos), generator()))
        for images in (before, after)
    ]
    assert distances[1] < 0.7 * distances[0]
    assert (after - photos).abs().mean() < 1.1 * (before - photos).abs().mean()


@pytest.mark.parametrize("scale", [1, 2])
def test_photos_of_the_bank_show_the_decoder_input_enlarged(collins, scale):
    """With a network that returns its input, input and photo show the same pixels."""
    config = PRESETS["small"]
    crop = torch.from_numpy(collins[:256, 100:356].copy()).permute(2, 0, 1)[None]
    faces = F.interpolate(crop.float(), size=(config.crop_size,) * 2, mode="area").to(torch.uint8)
    faces = torch.cat([faces, torch.full_like(faces[:, :1], 255)], dim=1)

    class Copy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = config

        def forward(self, images, key):
            return images

    bank = fill_bank(Copy(), faces, "b", None, scale, 16, generator())

    assert bank.decoded.shape == (16, 3, config.size, config.size)
    assert bank.photos.shape == (16, 4, scale * config.size, scale * config.size)
    shrunk = F.avg_pool2d(bank.photos[:, :3].float(), scale)
    unwarped = [*range(2, 8), *range(10, 16)]
    inner = np.s_[..., 4:-4, 4:-4]
    difference = (shrunk - bank.decoded.float())[unwarped][inner].abs().mean()
    assert difference < 2.5


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
    return SimpleNamespace(ema_or_model=network, step=step, color_shift=(0.1, 0.0, -0.1),
                           refiners={})  # fmt: skip


def crops(count=5):
    noise = torch.randint(0, 256, (count, 4, 128, 128), generator=generator())
    return noise.to(torch.uint8)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return autoencoder.build(PRESETS["small"])


def test_both_refiners_are_trained_the_same_way_every_time(network):
    runs = [run_of(network) for _ in range(2)]
    for run in runs:
        refine_decoders(run, {"a": crops(), "b": crops(7)}, steps=2)

    assert set(runs[0].refiners) == {"a", "b"}
    for key in "ab":
        one, two = (run.refiners[key].state_dict() for run in runs)
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert one["last.bias"].abs().max() > 0


def test_training_goes_on_with_the_refiners_of_the_run(network):
    run = run_of(network)
    refine_decoders(run, {"b": crops()}, steps=1)
    first = run.refiners["b"]
    refine_decoders(run, {"b": crops()}, steps=1)

    assert run.refiners["b"] is first
    assert not first.training


def test_crops_without_a_mask_count_everywhere(network):
    run = run_of(network)

    refine_decoders(run, {"b": crops()[:, :3]}, steps=2)

    assert torch.isfinite(run.refiners["b"].last.weight).all()
