"""Batched augmentation: small similarity changes, and the random warp that the network undoes.

Faces are uint8 crops (B, 3, S, S), RGB; results are float32 in [0, 1]. Randomness is drawn apart
from its use, so that a reference implementation can be given the same numbers. The arithmetic is
that of the original loop (5x5 grid over what the network sees, its view; normal noise; umeyama for
the target), restated in shares of that view, so it holds for any crop and network size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from faceswap.models.architectures import ModelConfig
from faceswap.models.sampling import _sample

ROTATION = 10.0  # degrees either way
ZOOM = 0.05  # share either way
SHIFT = 0.05  # share of the crop's side either way
FLIP = 0.4  # probability
NODES = 5  # grid points a side, spread over the view
NOISE = 5 / 160  # standard deviation of a grid point, in sides of the view: 5 px of 160


@dataclass(frozen=True, slots=True)
class TransformNoise:
    """Draws for :func:`random_transform`, each (B,) float64.

    Attributes:
        angle: Counter-clockwise, degrees.
        zoom: Factor around the centre.
        shift_x: Share of the side, to the right.
        shift_y: Share of the side, down.
        flip: 1 mirrors left and right, after all else.
    """

    angle: Tensor
    zoom: Tensor
    shift_x: Tensor
    shift_y: Tensor
    flip: Tensor

    def shard(self, some: slice) -> "TransformNoise":
        """The draws of some of the faces."""
        return TransformNoise(
            self.angle[some], self.zoom[some], self.shift_x[some], self.shift_y[some],
            self.flip[some],
        )  # fmt: skip


def draw_transform(count: int, generator: torch.Generator) -> TransformNoise:
    """Draw ``count`` similarity changes."""
    signed = torch.rand(4, count, generator=generator, dtype=torch.float64) * 2 - 1
    flip = torch.rand(count, generator=generator, dtype=torch.float64) < FLIP
    return TransformNoise(
        signed[0] * ROTATION, 1 + signed[1] * ZOOM, signed[2] * SHIFT, signed[3] * SHIFT,
        flip.double(),
    )  # fmt: skip


def draw_warp(count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` grids of node displacements, (B, 2, 5, 5) float64: x, y in sides of view."""
    return torch.randn(count, 2, NODES, NODES, generator=generator, dtype=torch.float64) * NOISE


def transform_matrices(noise: TransformNoise, size: int) -> Tensor:
    """Where each output pixel of :func:`random_transform` reads, (B, 2, 3) float64.

    Maps output to input in crop coordinates that run from -1 to 1 between the crop's edges. The
    centre of rotation is pixel (size // 2, size // 2), as OpenCV users write it.
    """
    radians = noise.angle * (math.pi / 180)
    cos, sin = torch.cos(radians) / noise.zoom, torch.sin(radians) / noise.zoom
    center = (size // 2 + 0.5) * 2 / size - 1
    mirror = 1 - 2 * noise.flip
    # output -> mirrored -> shift undone -> rotated back and scaled around the centre
    offset_x = -2 * noise.shift_x - center
    offset_y = -2 * noise.shift_y - center
    rows = [
        [cos * mirror, -sin, cos * offset_x - sin * offset_y + center],
        [sin * mirror, cos, sin * offset_x + cos * offset_y + center],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def random_transform(faces: Tensor, noise: TransformNoise) -> Tensor:
    """Rotate, zoom, shift and mirror whole crops; edges are repeated.

    Args:
        faces: (B, 3, S, S) uint8.
        noise: From :func:`draw_transform`.

    Returns:
        (B, 3, S, S) float32 in [0, 1].
    """
    size = faces.shape[-1]
    columns, rows = _raster(transform_matrices(noise, size), _pixel_centers(size))
    return _sample(faces, lambda some: columns[some] + rows[some])


def random_warp(
    faces: Tensor, displacement: Tensor, model: ModelConfig, transform: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Make the network's input, a warped face, and its target, the face with the warp undone.

    The nodes of a regular grid over the view are displaced; bilinear interpolation between
    them is the warp. The target is sampled through the similarity that best maps the displaced
    nodes back onto the regular grid (umeyama; in two dimensions the least-squares similarity is the
    ratio of two complex sums).

    Args:
        faces: (B, 3, S, S) uint8 crops.
        displacement: From :func:`draw_warp`, (B, 2, 5, 5).
        model: Gives the size, the view and the pixel centres.
        transform: From :func:`transform_matrices`: applied to the crop first, in the same sampling.

    Returns:
        Warped and target, each (B, 3, size, size) float32 in [0, 1].
    """
    size = model.size
    origin = (model.input_center - 0.5) / size  # of the grid in the view
    nodes = torch.linspace(0, 1, NODES, dtype=torch.float64)
    grid = displacement + torch.stack(torch.meshgrid(nodes, nodes, indexing="xy")) + origin
    offset = model.output_center + 0.5 - model.input_center
    target = _similarity(grid, nodes * size - offset)

    # From here on in -1..1 of the crop. An affine map commutes with interpolation, so the transform
    # is applied to 25 nodes and one matrix a face, not to every pixel.
    grid = model.view * (2 * grid - 1)
    target = target * (2 * model.view)
    target[..., 2] -= model.view
    if transform is not None:
        linear, start = transform[..., :2], transform[..., 2]
        grid = torch.einsum("bij,bjyx->biyx", linear, grid) + start[..., None, None]
        target = linear @ target
        target[..., 2] += start
    between = _interpolation(size).float()  # (size, 5)
    columns, rows = _raster(target, torch.arange(size, dtype=torch.float64))
    nodes_32 = grid.float()

    def points(some: slice) -> Tensor:
        """Where some faces' warped (above) and target (below) pixels read."""
        warped = between @ nodes_32[some] @ between.T  # (b, 2, size, size)
        return torch.cat([warped, columns[some] + rows[some]], dim=2)

    both = _sample(faces, points)
    return both[..., :size, :], both[..., size:, :]


def sample_gain(count: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw ``count`` lights, (B, 3) float32: a gain for each of red, green and blue.

    Half of the variance of its logarithm, ``sigma`` squared, is common to the three.
    """
    normal = torch.randn(count, 4, generator=generator) * sigma / math.sqrt(2)
    return torch.exp(normal[:, :1] + normal[:, 1:])


def apply_gain(images: Tensor, gain: Tensor) -> Tensor:
    """Multiply float images (B, 3, H, W) by gains (B, 3), within [0, 1]; a fourth channel stays."""
    lit = (images[:, :3] * gain.to(images.device)[:, :, None, None]).clamp(0, 1)
    return lit if images.shape[1] == 3 else torch.cat([lit, images[:, 3:]], dim=1)


def _interpolation(size: int) -> Tensor:
    """Weights (size, 5) of the nodes at each pixel, pixel centres at (i + 0.5) / size."""
    position = (torch.arange(size, dtype=torch.float64) + 0.5) / size * (NODES - 1)
    nodes = torch.arange(NODES, dtype=torch.float64)
    return (1 - (position[:, None] - nodes).abs()).clamp(min=0)


def _similarity(grid: Tensor, axis: Tensor) -> Tensor:
    """Matrices (B, 2, 3) from target pixels into the view, for displaced nodes (B, 2, 5, 5)."""
    source = torch.complex(grid[:, 0], grid[:, 1]).flatten(1)  # (B, 25)
    regular = torch.meshgrid(axis, axis, indexing="xy")
    target = torch.complex(*regular).flatten()
    source_mean, target_mean = source.mean(1, keepdim=True), target.mean()
    centered = source - source_mean
    forward = (centered.conj() * (target - target_mean)).sum(1) / (centered.abs() ** 2).sum(1)
    back = 1 / forward  # the sampling needs target -> source
    start = source_mean[:, 0] - back * target_mean
    top = torch.stack([back.real, -back.imag, start.real], dim=-1)
    bottom = torch.stack([back.imag, back.real, start.imag], dim=-1)
    return torch.stack([top, bottom], dim=-2)


def _pixel_centers(size: int) -> Tensor:
    """Pixel centres of a crop in coordinates -1..1 between its edges."""
    return (torch.arange(size, dtype=torch.float64) * 2 + 1) / size - 1


def _raster(matrices: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Two parts, (B, 2, 1, N) and (B, 2, N, 1), whose sum maps a raster by (B, 2, 3) matrices."""
    columns = matrices[..., 0, None] * axis + matrices[..., 2, None]
    rows = matrices[..., 1, None] * axis
    return columns[:, :, None, :].float(), rows[:, :, :, None].float()
