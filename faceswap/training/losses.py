"""Training losses, which map (output, target, weight) to a scalar.

Output and target are (B, 3, H, W) in [0, 1]. The weight is (B, 1, H, W), or None.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from faceswap.config import LOSS_SEAM
from faceswap.registry import Registry

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# Pixels. An even window weights both pixels of each doubling of the decoder's last layers alike, and
# stride 2 estimates the same mean at a quarter of the cost.
WINDOW, STRIDE = 8, 2
SCALES = (1, 2, 4)  # images are compared at these fractions of their size, if a window fits


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
    return F.avg_pool2d(images, WINDOW, STRIDE)


def l1(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference; ``weight`` (B, 1, H, W) weights the pixels if given."""
    return _mean((output - target).abs(), weight)


def l1_dssim(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sum of :func:`l1` and the mean :func:`dssim`; ``weight`` applies to both.

    The dissimilarity is the mean over three scales, as in Z. Wang et al., "Multiscale structural
    similarity for image quality assessment", Asilomar 2003, but without its product: fine scales
    see texture, coarse ones the shape of eyes and mouth.
    """
    total, structure, scales = l1(output, target, weight), output.new_zeros(()), 0
    for scale in SCALES:
        if min(output.shape[-2:]) < WINDOW * scale:
            break
        images = [F.avg_pool2d(each, scale) if scale > 1 else each for each in (output, target)]
        inner = None
        if weight is not None:
            at_scale = F.avg_pool2d(weight, scale) if scale > 1 else weight
            edge = WINDOW // 2 - 1  # the weight of a window is that of its middle
            inner = F.avg_pool2d(at_scale[..., edge:-edge, edge:-edge], 2, STRIDE)
        structure = structure + _mean(dssim(*images), inner)
        scales += 1
    return total + structure / max(scales, 1)


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
    return loss(output[:, :3], target[:, :3], weight) + F.mse_loss(output[:, 3:], mask)


LOSSES: Registry[Loss] = Registry(LOSS_SEAM, {"l1": l1, "l1-dssim": l1_dssim})
