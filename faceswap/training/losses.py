"""Training losses, which map (output, target, weight) to a scalar.

Output and target are (B, 3, H, W) in [0, 1]. The weight is (B, 1, H, W), or None.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from faceswap.config import LOSS_SEAM
from faceswap.registry import Registry

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# Pixels. An even window weights both pixels alike that the decoder's last doubling makes of one.
# Stride 2 estimates the same mean at a quarter of the cost.
WINDOW, STRIDE = 8, 2
SCALES = (2, 4)  # further fractions of their size at which images are compared


def dssim(output: Tensor, target: Tensor) -> Tensor:
    """Return the structural dissimilarity (1 - SSIM) / 2 of each window.

    The shape is (B, 3, (H - 8) // 2 + 1, (W - 8) // 2 + 1), as windows are 2 px apart.

    Z. Wang et al., "Image quality assessment: from error visibility to structural similarity",
    IEEE TIP 13(4), 2004, eq. 13, with a uniform 8 px window, K1 = 0.01 and K2 = 0.03.
    """
    mean_o, mean_t = _window_mean(output), _window_mean(target)
    product, squares = mean_o * mean_t, mean_o * mean_o + mean_t * mean_t
    covariance = _window_mean(output * target) - product
    variances = _window_mean(output * output + target * target) - squares
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return (1 - ssim) / 2


def _window_mean(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(images, STRIDE), WINDOW // STRIDE, 1)


def l1(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference; ``weight`` (B, 1, H, W) weights the pixels if given."""
    return _mean((output - target).abs(), weight)


def l1_dssim(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sum of :func:`l1` and the mean :func:`dssim`; ``weight`` applies to both."""
    return l1(output, target, weight) + _structure(output, target, weight)


def l1_dssim_scales(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sum of :func:`l1` and the mean of :func:`dssim` at full, half and quarter size.

    Z. Wang et al., "Multiscale structural similarity for image quality assessment", Asilomar 2003,
    but a mean instead of their product: fine scales see texture, coarse ones the shape of eyes and
    mouth. A size below one window is left out.
    """
    structures = [_structure(output, target, weight)]
    for scale in SCALES:
        if min(output.shape[-2:]) >= WINDOW * scale:
            at_scale = None if weight is None else F.avg_pool2d(weight, scale)
            images = [F.avg_pool2d(each, scale) for each in (output, target)]
            structures.append(_structure(images[0], images[1], at_scale))
    return l1(output, target, weight) + torch.stack(structures).mean()


def _structure(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean :func:`dssim`; the weight of a window is that of its middle."""
    edge = WINDOW // 2 - 1
    inner = None
    if weight is not None:
        inner = F.avg_pool2d(weight[..., edge:-edge, edge:-edge], 2, STRIDE)
    return _mean(dssim(output, target), inner)


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean of (B, C, H, W), weighted per pixel by ``weight`` (B, 1, H, W) if given.

    Weights are normalized per image, so the mean over a batch is the mean of the means over equal
    shards of it.
    """
    if weight is None:
        return values.mean()
    weights = weight.sum(dim=(1, 2, 3)).clamp(min=1) * values.shape[1]
    return ((values * weight).sum(dim=(1, 2, 3)) / weights).mean()


def masked(output: Tensor, target: Tensor, loss: Loss, outside: float) -> Tensor:
    """Return the colour loss, weighted by the face mask, plus the mean squared error of the mask.

    Args:
        output: Decoded faces, (B, 4, H, W); (B, 3, H, W) from a network without a mask head.
        target: Target images with as many channels; the fourth is 1 on the face.
        loss: Loss of the three colour channels.
        outside: Weight of the pixels outside the face, 0 to 1.

    Returns:
        A scalar. Without a mask channel it is the unweighted colour loss.
    """
    if output.shape[1] == 3:
        return loss(output, target, None)
    mask = target[:, 3:]
    weight = outside + (1 - outside) * mask
    # Pooling needs half the time for one channel after the other.
    colors = output[:, :3].contiguous(), target[:, :3].contiguous()
    return loss(*colors, weight) + F.mse_loss(output[:, 3:], mask)


LOSSES: Registry[Loss] = Registry(LOSS_SEAM, {
    "l1": l1, "l1-dssim": l1_dssim, "l1-dssim-scales": l1_dssim_scales,
})  # fmt: skip
