"""Training losses: (output, target, mask) -> scalar. Images are (B, 3, H, W) in [0, 1]."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from faceswap.config import LossName

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

WINDOW = 7


def dssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural dissimilarity (1 - SSIM) / 2 per pixel, (B, 3, H - 6, W - 6).

    Z. Wang et al., "Image quality assessment: from error visibility to structural similarity",
    IEEE TIP 13(4), 2004, eq. 13, uniform window of 7 px, K1 0.01, K2 0.03.
    """
    mean_o, mean_t = F.avg_pool2d(output, WINDOW, 1), F.avg_pool2d(target, WINDOW, 1)
    var_o = F.avg_pool2d(output * output, WINDOW, 1) - mean_o * mean_o
    var_t = F.avg_pool2d(target * target, WINDOW, 1) - mean_t * mean_t
    covariance = F.avg_pool2d(output * target, WINDOW, 1) - mean_o * mean_t
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mean_o * mean_t + c1) * (2 * covariance + c2)
    ssim = ssim / ((mean_o**2 + mean_t**2 + c1) * (var_o + var_t + c2))
    return (1 - ssim) / 2


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
    inner = mask[..., edge:-edge, edge:-edge]
    share = (structure * inner).sum() / (inner.sum() * output.shape[1]).clamp(min=1)
    return l1(output, target, mask) + share


LOSSES: dict[LossName, Loss] = {"l1": l1, "l1-dssim": l1_dssim}
