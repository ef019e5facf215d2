"""Training losses: (output, target, weight) -> scalar. Images are (B, 3, H, W) in [0, 1]."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from faceswap.config import LossName

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

WINDOW, STRIDE = 7, 2  # every second window: the same mean, a quarter of the work


def dssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural dissimilarity (1 - SSIM) / 2 of windows, (B, 3, (H - 7) // 2 + 1, ...).

    Z. Wang et al., "Image quality assessment: from error visibility to structural similarity",
    IEEE TIP 13(4), 2004, eq. 13, uniform window of 7 px, K1 0.01, K2 0.03.
    """
    mean_o, mean_t = _window_mean(output), _window_mean(target)
    product, squares = mean_o * mean_t, mean_o * mean_o + mean_t * mean_t
    covariance = _window_mean(output * target) - product
    variances = _window_mean(output * output + target * target) - squares
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return (1 - ssim) / 2


def _window_mean(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, WINDOW, STRIDE)


def l1(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference, the pixels weighed by ``weight`` (B, 1, H, W) if given."""
    return _mean((output - target).abs(), weight)


def l1_dssim(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """:func:`l1` plus the mean of :func:`dssim`, both weighed by ``weight`` if given."""
    edge = WINDOW // 2
    inner = None if weight is None else weight[..., edge:-edge:STRIDE, edge:-edge:STRIDE]
    return l1(output, target, weight) + _mean(dssim(output, target), inner)


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of (B, C, H, W), the pixels of an image weighed by ``weight`` (B, 1, H, W) if given.

    Each image counts alike, so the mean over a batch is the mean of its parts' means.
    """
    if weight is None:
        return values.mean()
    weights = weight.sum(dim=(1, 2, 3)).clamp(min=1) * values.shape[1]
    return ((values * weight).sum(dim=(1, 2, 3)) / weights).mean()


def masked(output: Tensor, target: Tensor, loss: Loss, outside: float) -> Tensor:
    """``loss`` of the colours, pixels off the face weighing ``outside``, and of the mask.

    Args:
        output: What a network with a mask head paints, (B, 4, H, W).
        target: What it should paint; the last channel is 1 on the face.
        loss: Measures the colours.
        outside: Weight of pixels off the face, 0 to 1.

    Returns:
        The loss plus the mean square error of the mask. Without the fourth channel, only the loss.
    """
    if output.shape[1] == 3:
        return loss(output, target, None)
    mask = target[:, 3:]
    weight = outside + (1 - outside) * mask
    return loss(output[:, :3], target[:, :3], weight) + F.mse_loss(output[:, 3:], mask)


LOSSES: dict[LossName, Loss] = {"l1": l1, "l1-dssim": l1_dssim}
