"""Batched augmentation: small similarity transforms, and the random warp that the network undoes.

Faces are uint8 crops (B, C, S, S): RGB, and the mask as a fourth channel if the model has a mask
head. Results are float32 in [0, 1]. Random numbers are drawn separately from their use, so that
tests can pass the same numbers to a reference implementation. The arithmetic follows the classic
faceswap training loop (5x5 grid over the network crop, normal noise, umeyama for the target).
Lengths are fractions of the crop or the network crop, so it works at any crop and network size.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from faceswap.models.architectures import ModelConfig
from faceswap.models.sampling import _sample, upload

ROTATION = 10.0  # maximum, degrees
ZOOM = 0.05  # maximum change of the scale
SHIFT = 0.05  # maximum, as a share of the crop side
FLIP = 0.4  # probability
NODES = 5  # grid points along each side of the network crop
NOISE = 5 / 160  # standard deviation of a grid point's x and y: 5 px for a network crop of 160 px


@dataclass(frozen=True, slots=True)
class TransformNoise:
    """Random numbers for :func:`transform_matrices`, each (B,) float64.

    Attributes:
        angle: Degrees, counter-clockwise.
        zoom: Scale factor.
        shift_x: Shift to the right, as a share of the crop side.
        shift_y: Shift downwards, as a share of the crop side.
        flip: 1 mirrors the crop left to right after the other operations; 0 does not.
    """

    angle: Tensor
    zoom: Tensor
    shift_x: Tensor
    shift_y: Tensor
    flip: Tensor

    def shard(self, faces: slice) -> "TransformNoise":
        """Return the numbers for a slice of the faces."""
        return TransformNoise(
            self.angle[faces], self.zoom[faces], self.shift_x[faces], self.shift_y[faces],
            self.flip[faces],
        )  # fmt: skip


def draw_transform(count: int, generator: torch.Generator) -> TransformNoise:
    """Draw the random numbers for ``count`` similarity transforms."""
    signed = torch.rand(4, count, generator=generator, dtype=torch.float64) * 2 - 1
    flip = torch.rand(count, generator=generator, dtype=torch.float64) < FLIP
    return TransformNoise(
        signed[0] * ROTATION, 1 + signed[1] * ZOOM, signed[2] * SHIFT, signed[3] * SHIFT,
        flip.double(),
    )  # fmt: skip


def draw_warp(count: int, generator: torch.Generator) -> Tensor:
    """Draw x and y displacements of the nodes of ``count`` grids, (B, 2, 5, 5) float64.

    The unit is the side of the network crop.
    """
    return torch.randn(count, 2, NODES, NODES, generator=generator, dtype=torch.float64) * NOISE


def transform_matrices(noise: TransformNoise, size: int) -> Tensor:
    """Return matrices (B, 2, 3) float64 that rotate, zoom, shift and mirror crops.

    They map output to input, as sampling needs. Coordinates run from -1 to 1 between the edges of
    the crop. The centre of rotation and zoom is pixel (size // 2, size // 2), as in the classic
    loop.

    Args:
        noise: From :func:`draw_transform`.
        size: Side of the crops in pixels, which decides where the centre is.
    """
    radians = noise.angle * (math.pi / 180)
    cos, sin = torch.cos(radians) / noise.zoom, torch.sin(radians) / noise.zoom
    center = (size // 2 + 0.5) * 2 / size - 1
    mirror = 1 - 2 * noise.flip
    # output -> undo the mirroring -> undo the shift -> undo rotation and zoom about the centre
    offset_x = -2 * noise.shift_x - center
    offset_y = -2 * noise.shift_y - center
    rows = [
        [cos * mirror, -sin, cos * offset_x - sin * offset_y + center],
        [sin * mirror, cos, sin * offset_x + cos * offset_y + center],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def random_warp(
    faces: Tensor, displacement: Tensor, model: ModelConfig, transform: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample the network's input, a warped face, and its target, the face without the warp.

    Args:
        faces: (B, C, S, S) uint8 crops.
        displacement: From :func:`draw_warp`, (B, 2, 5, 5).
        model: Provides the size, the network crop and the pixel centres.
        transform: From :func:`transform_matrices`; applied to the crop before the warp, in the same
            sampling pass.

    Returns:
        Warped input and target, each (B, C, size, size) float32 in [0, 1].
    """
    numbers = places(displacement, model, transform)
    return sample_pair(faces, upload(numbers, faces.device), model)


def places(displacement: Tensor, model: ModelConfig, transform: Tensor | None = None) -> Tensor:
    """Return the numbers from which the sampling points of inputs and targets are computed.

    The warp displaces the nodes of a regular grid over the network crop and interpolates between
    them bilinearly. The target is sampled through the similarity that best maps the displaced
    nodes back onto the regular grid (umeyama; in two dimensions the least-squares similarity is the
    ratio of two complex sums).

    Args:
        displacement: See :func:`random_warp`.
        model: See :func:`random_warp`.
        transform: See :func:`random_warp`.

    Returns:
        Displaced nodes and a matrix for each face, (B, 56) float32.
    """
    size = model.size
    origin = (model.input_center - 0.5) / size  # so that the first pixel is sampled at input_center
    nodes = torch.linspace(0, 1, NODES, dtype=torch.float64)
    grid = displacement + torch.stack(torch.meshgrid(nodes, nodes, indexing="xy")) + origin
    offset = model.output_center + 0.5 - model.input_center
    target = _similarity(grid, nodes * size - offset)

    # From here on, coordinates run from -1 to 1 over the crop. An affine map commutes with
    # interpolation, so transform 25 nodes and one matrix per face instead of every pixel.
    grid = model.view * (2 * grid - 1)
    target = target * (2 * model.view)
    target[..., 2] -= model.view
    if transform is not None:
        linear, start = transform[..., :2], transform[..., 2]
        grid = torch.einsum("bij,bjyx->biyx", linear, grid) + start[..., None, None]
        target = linear @ target
        target[..., 2] += start
    return torch.cat([grid.flatten(1), target.flatten(1)], dim=1).float()


def sample_pair(faces: Tensor, numbers: Tensor, model: ModelConfig) -> tuple[Tensor, Tensor]:
    """Sample the network's inputs and targets; see :func:`random_warp`.

    Args:
        faces: (B, C, S, S) uint8 crops.
        numbers: From :func:`places`, on the same device.
        model: Provides the size.
    """
    size = model.size
    grids = numbers[:, : 2 * NODES**2].view(-1, 2, NODES, NODES)
    matrices = numbers[:, 2 * NODES**2 :].view(-1, 2, 3)
    weights, axis = _axes(size, faces.device)
    columns, rows = _raster(matrices, axis)

    def points(chunk: slice) -> Tensor:
        """Return sampling points of some faces: the rows of the input, then those of the target."""
        warped = weights @ grids[chunk] @ weights.T  # (b, 2, size, size)
        return torch.cat([warped, columns[chunk] + rows[chunk]], dim=2)

    both = _sample(faces, points)
    return both[..., :size, :], both[..., size:, :]


def sample_gain(count: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw ``count`` random gains of red, green and blue, (B, 3) float32.

    The log gains have variance ``sigma`` squared; the three channels share half of it.
    """
    normal = torch.randn(count, 4, generator=generator) * sigma / math.sqrt(2)
    return torch.exp(normal[:, :1] + normal[:, 1:])


def apply_gain(images: Tensor, gain: Tensor) -> Tensor:
    """Multiply the colours of float images (B, 3 or 4, H, W) by gains (B, 3), clamped to [0, 1].

    A mask in the fourth channel stays unchanged. The gains are on the images' device.
    """
    lit = (images[:, :3] * gain[:, :, None, None]).clamp(0, 1)
    return lit if images.shape[1] == 3 else torch.cat([lit, images[:, 3:]], dim=1)


@functools.cache
def _axes(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what all batches share, on a device.

    Returns:
        The linear weights (size, 5) of the nodes at the pixel centres (i + 0.5) / size, and the
        numbers 0 to size - 1.
    """
    pixels = torch.arange(size, dtype=torch.float64)
    position = (pixels + 0.5) / size * (NODES - 1)
    nodes = torch.arange(NODES, dtype=torch.float64)
    weights = (1 - (position[:, None] - nodes).abs()).clamp(min=0)
    return weights.float().to(device), pixels.float().to(device)


def _similarity(grid: Tensor, axis: Tensor) -> Tensor:
    """Fit matrices (B, 2, 3) that map target pixels to the network crop.

    Args:
        grid: Displaced nodes in the network crop, (B, 2, 5, 5).
        axis: Coordinates of the regular nodes in the target, pixels, (5,).
    """
    source = torch.complex(grid[:, 0], grid[:, 1]).flatten(1)  # (B, 25)
    regular = torch.meshgrid(axis, axis, indexing="xy")
    target = torch.complex(*regular).flatten()
    source_mean, target_mean = source.mean(1, keepdim=True), target.mean()
    centered = source - source_mean
    forward = (centered.conj() * (target - target_mean)).sum(1) / (centered.abs() ** 2).sum(1)
    back = 1 / forward  # sampling needs target -> source
    start = source_mean[:, 0] - back * target_mean
    top = torch.stack([back.real, -back.imag, start.real], dim=-1)
    bottom = torch.stack([back.imag, back.real, start.imag], dim=-1)
    return torch.stack([top, bottom], dim=-2)


def _raster(matrices: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Map the raster ``axis`` x ``axis`` by matrices (B, 2, 3).

    Returns:
        Two terms, (B, 2, 1, N) and (B, 2, N, 1); their sum is the mapped raster.
    """
    columns = matrices[..., 0, None] * axis + matrices[..., 2, None]
    rows = matrices[..., 1, None] * axis
    return columns[:, :, None, :], rows[:, :, :, None]
