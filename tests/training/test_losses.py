import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from faceswap.training.losses import dssim, l1, l1_dssim, l1_dssim_scales, masked


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 31, 31, generator=generator)
    noise = torch.rand(2, 3, 31, 31, generator=generator)
    return (0.7 * target + 0.3 * noise), target


def test_dssim_equals_its_definition(pair):
    one, two = (images.double().numpy() for images in pair)

    ours = 1 - 2 * dssim(*pair)

    views = [np.lib.stride_tricks.sliding_window_view(images, (8, 8), (2, 3))[:, :, ::2, ::2]
             for images in (one, two)]  # fmt: skip
    means = [view.mean((-2, -1)) for view in views]
    variances = [view.var((-2, -1)) for view in views]
    covariance = (views[0] * views[1]).mean((-2, -1)) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (variances[0] + variances[1] + 9e-4)
    np.testing.assert_allclose(ours.numpy(), luminance * structure, atol=2e-4)


def test_dssim_agrees_with_scikit_image_about_the_order(pair):
    output, target = pair
    worse = 0.4 * target + 0.6 * (output - 0.7 * target) / 0.3

    def reference(images):
        return structural_similarity(
            images[0].numpy(), target[0].numpy(), channel_axis=0, data_range=1.0
        )

    assert reference(worse) < reference(output) < 1
    assert dssim(worse, target).mean() > dssim(output, target).mean() > 0


def test_an_error_of_the_shape_counts_at_every_scale():
    """Noise averages out at coarse scales; a shifted edge does not."""
    target = torch.zeros(1, 3, 64, 64)
    target[..., 24:] = 1
    shifted = torch.roll(target, 3, -1)
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    noisy = (target + 0.3 * (noise - 0.5)).clamp(0, 1)

    def at_scale(images, scale):
        pooled = [torch.nn.functional.avg_pool2d(each, scale) for each in (images, target)]
        return dssim(*pooled).mean()

    expected = sum(at_scale(shifted, scale) for scale in (1, 2, 4)) / 3 + l1(shifted, target)
    torch.testing.assert_close(l1_dssim_scales(shifted, target), expected)
    assert at_scale(noisy, 4) < 0.2 * at_scale(noisy, 1)
    assert at_scale(shifted, 4) > 0.5 * at_scale(shifted, 1)


@pytest.mark.parametrize("loss", [l1, l1_dssim, l1_dssim_scales])
def test_loss_is_zero_only_for_equal_images(pair, loss):
    output, target = pair

    assert loss(target, target, None) == pytest.approx(0, abs=1e-6)
    assert loss(output, target, None) > 0.05


@pytest.mark.parametrize("loss", [l1, l1_dssim, l1_dssim_scales])
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

    for loss in (l1_dssim, l1_dssim_scales):
        torch.testing.assert_close(loss(*pair, full), loss(*pair, None))


@pytest.mark.parametrize("loss", [l1, l1_dssim, l1_dssim_scales])
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
