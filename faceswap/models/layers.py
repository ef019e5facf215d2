"""Layers that networks share, in forms that processors and GPUs compute fast."""

import torch
import torch.nn.functional as F
from torch import Tensor


def depth_to_space(x: Tensor) -> Tensor:
    """Rearrange (B, 4 C, H, W) to (B, C, 2 H, 2 W).

    Output pixel (row, column) of each 2 x 2 block takes channel c from input channel
    (row * 2 + column) * C + c.
    """
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
    return x.permute(0, 3, 1, 2)  # channels_last for the next convolution


def conv_to_image(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve (B, C_in, H, W) with stride 1 to the few channels of an image, (B, C_out, H, W).

    If H and W are even, this is computed as a convolution of stride 2 that gives the four pixels of
    each 2 x 2 block as channels, because processors and GPUs are slow at convolutions to three or
    four channels.

    Args:
        x: The input.
        weight: Of odd sides, (C_out, C_in, K, K).
        bias: (C_out,).
    """
    reach = weight.shape[-1] // 2
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        return F.conv2d(x, weight, bias, padding=reach)
    # The windows of a block's pixels are parts of the same window, one pixel larger.
    moved = [F.pad(weight, (c, 1 - c, r, 1 - r)) for r in (0, 1) for c in (0, 1)]
    return depth_to_space(F.conv2d(x, torch.cat(moved), bias.repeat(4), 2, reach))
