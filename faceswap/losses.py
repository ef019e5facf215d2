"""Training losses: (output, target, mask) -> scalar. Images are (B, 3, H, W) in [0, 1]."""

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


def l1(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference, within ``mask`` (B, 1, H, W) if given."""
    difference = (output - target).abs()
    if mask is None:
        return difference.mean()
    return (difference * mask).sum() / (mask.sum() * output.shape[1]).clamp(min=1)


def l1_dssim(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """:func:`l1` plus the mean of :func:`dssim`, within ``mask`` if given."""
    structure = dssim(output, target)
    if mask is None:
        return l1(output, target) + structure.mean()
    edge = WINDOW // 2
    inner = mask[..., edge:-edge:STRIDE, edge:-edge:STRIDE]
    share = (structure * inner).sum() / (inner.sum() * output.shape[1]).clamp(min=1)
    return l1(output, target, mask) + share


LOSSES: dict[LossName, Loss] = {"l1": l1, "l1-dssim": l1_dssim}
