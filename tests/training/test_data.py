import pytest
import torch

from faceswap.models.architectures import PRESETS
from faceswap.models.autoencoder import build
from faceswap.training import data
from faceswap.training.checkpoint import TrainingState
from faceswap.training.distributed import World

COUNT = 6


@pytest.fixture
def crops():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(128, 128), mode="bilinear")


def new_run(shift=(0.0, 0.0, 0.0)):
    network = build(PRESETS["small"])
    return TrainingState(network, None, torch.Generator().manual_seed(0), ("x", "y"), shift)


def training_pair(run, crops, key, size, world, warp=True, jitter=0.0):
    draw = data.draw_batch(run, torch.arange(len(crops)), key, size, world, warp, jitter)
    return data.sample_batch(run, crops, key, draw)


def test_shards_of_two_processes_form_the_batch_of_one(crops):
    whole = training_pair(new_run(), crops, "a", COUNT, World())

    shards = [training_pair(new_run(), crops, "a", COUNT, World(rank, 2)) for rank in (0, 1)]

    for one, two in zip(whole, zip(*shards, strict=True), strict=True):
        assert torch.equal(one, torch.cat(two))


def test_input_equals_target_without_warp(crops):
    warped, target = training_pair(new_run(), crops, "b", COUNT, World(), warp=False)
    with_warp, _ = training_pair(new_run(), crops, "b", COUNT, World())

    assert (warped - target).abs().max() < 1e-3
    assert (with_warp - target).abs().max() > 0.05


def test_warping_does_not_change_how_many_random_numbers_are_drawn(crops):
    one, two = new_run(), new_run()
    training_pair(one, crops, "a", COUNT, World())
    training_pair(two, crops, "a", COUNT, World(), warp=False)

    assert torch.equal(one.generator.get_state(), two.generator.get_state())


def test_color_shift_applies_only_to_identity_a(crops):
    plain = training_pair(new_run(), crops, "a", COUNT, World())[1]
    shifted = training_pair(new_run((0.1, 0, -0.1)), crops, "a", COUNT, World())[1]
    other = training_pair(new_run((0.1, 0, -0.1)), crops, "b", COUNT, World())[1]

    assert torch.equal(other, plain)
    torch.testing.assert_close(
        shifted, (plain + torch.tensor([0.1, 0, -0.1])[:, None, None]).clamp(0, 1)
    )


def test_network_crops_cover_all_faces_in_order(crops):
    many = crops.repeat(15, 1, 1, 1)

    batches = data.network_crops(new_run(), many, "b")

    assert sum(map(len, batches)) == 150
    assert torch.equal(torch.cat(batches)[:10], torch.cat(batches)[10:20])


def test_mask_is_transformed_with_its_face(crops):
    with_mask = torch.cat([crops, crops[:, :1]], dim=1)  # the red channel as mask

    warped, target = training_pair(new_run((0.1, 0, 0)), with_mask, "b", COUNT, World())

    assert warped.shape == (COUNT, 3, 80, 80)
    assert torch.equal(target[:, 3], target[:, 0])
    assert len(data.network_crops(new_run(), with_mask, "b")[0][0]) == 3


def test_jitter_changes_input_and_target_equally_but_not_the_mask(crops):
    with_mask = torch.cat([crops, crops[:, :1]], dim=1)
    settings = (with_mask, "b", COUNT, World())

    plain = training_pair(new_run(), *settings, warp=False)[1]
    warped, target = training_pair(new_run(), *settings, warp=False, jitter=0.1)

    assert torch.equal(target[:, 3:], plain[:, 3:])
    assert (warped - target[:, :3]).abs().max() < 1e-3
    gain = target[:, :3].sum(dim=(2, 3)) / plain[:, :3].sum(dim=(2, 3))
    assert len(gain.flatten().unique()) == 3 * COUNT
    assert 0.02 < gain.std() < 0.2
