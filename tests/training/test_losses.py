import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from faceswap.training.losses import dssim, l1, l1_dssim, masked


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 31, 31, generator=generator)
    noise = torch.rand(2, 3, 31, 31, generator=generator)
    return (0.7 * target + 0.3 * noise), target


def test_dssim_matches_scikit_image(pair):
    output, target = pair

    ours = 1 - 2 * dssim(output, target)

    for i in range(len(output)):
        _, full = structural_similarity(
            output[i].numpy(), target[i].numpy(), win_size=7, channel_axis=0, data_range=1.0,
            full=True, use_sample_covariance=False,
        )  # fmt: skip
        np.testing.assert_allclose(ours[i].numpy(), full[:, 3:-3:2, 3:-3:2], atol=2e-4)


@pytest.mark.parametrize("loss", [l1, l1_dssim])
def test_loss_is_zero_only_for_equal_images(pair, loss):
    output, target = pair

    assert loss(target, target, None) == pytest.approx(0, abs=1e-6)
    assert loss(output, target, None) > 0.05


@pytest.mark.parametrize("loss", [l1, l1_dssim])
def test_pixels_outside_the_mask_are_ignored(pair, loss):
    _, target = pair
    mask = torch.zeros(2, 1, 31, 31)
    mask[..., :16] = 1
    spoiled = target.clone()
    spoiled[..., 24:] = 0  # farther from the mask than an SSIM window reaches

    assert loss(spoiled, target, mask) == pytest.approx(0, abs=1e-6)
    assert loss(spoiled, target, None) > 0.05


def test_full_mask_equals_no_mask(pair):
    full = torch.ones(2, 1, 31, 31)

    torch.testing.assert_close(l1_dssim(*pair, full), l1_dssim(*pair, None))


@pytest.mark.parametrize("loss", [l1, l1_dssim])
def test_batch_loss_is_the_mean_of_its_shard_losses(pair, loss):
    weight = torch.rand(2, 1, 31, 31, generator=torch.Generator().manual_seed(2))
    weight[0] *= 0.1

    shards = [loss(*(x[i : i + 1] for x in (*pair, weight))) for i in (0, 1)]

    torch.testing.assert_close(loss(*pair, weight), (shards[0] + shards[1]) / 2)


def test_masked_loss_weights_colours_by_the_mask_and_adds_the_mask_error(pair):
    output, target = pair
    mask = torch.zeros(2, 1, 31, 31)
    mask[..., :16] = 1
    face, wanted = torch.cat([output, mask], 1), torch.cat([target, mask], 1)
    no_mask = torch.cat([output, 1 - mask], 1)

    assert masked(face, wanted, l1, 0.0) == pytest.approx(l1(output, target, mask))
    assert masked(face, wanted, l1, 1.0) == pytest.approx(l1(output, target))
    assert masked(no_mask, wanted, l1, 1.0) == pytest.approx(l1(output, target) + 1)
    assert masked(output, target, l1, 0.0) == pytest.approx(l1(output, target))
