"""The autoencoder with one shared encoder and two decoders, and the registry of architectures.

Input and output are float RGB in [0, 1], (B, 3, size, size). A network with a mask head adds the
mask as a fourth output channel.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceswap.config import MODEL_SEAM
from faceswap.models.architectures import ModelConfig
from faceswap.models.layers import conv_to_image, depth_to_space
from faceswap.registry import Registry
from faceswap.types import Identity

IMAGE_CHANNELS = 3
SOFT_LIMIT = 2.0  # see Autoencoder._within
STATISTICS = ("means", "covariances")  # buffers that files of earlier versions lack


class ImageConv(nn.Conv2d):
    """A convolution from or to an image, always in float32.

    bfloat16 resolves fewer than the 256 levels of an image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W')."""
        kind = x.device.type
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            return self._exactly(x.float())

    def _exactly(self, x: Tensor) -> Tensor:
        return super().forward(x)


class ToImage(ImageConv):
    """A 5x5 convolution of stride 1 to an image, see :func:`conv_to_image`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 5, padding=2)

    def _exactly(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return conv_to_image(x, self.weight, self.bias)


class Residual(nn.Module):
    """Add two 3x3 convolutions with a LeakyReLU 0.1 between them. A fresh one adds nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return cast(Tensor, x + self.second(F.leaky_relu(self.first(x), 0.1, inplace=True)))


class Downscale(nn.Module):
    """Halve the side: 5x5 convolution of stride 2, LeakyReLU 0.1.

    Pads like TensorFlow's "same": an even side needs 3 extra rows, 1 before and 2 after.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        kind = ImageConv if channels_in == IMAGE_CHANNELS else nn.Conv2d
        self.conv = kind(channels_in, channels_out, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) with even H and W to (B, C_out, H / 2, W / 2)."""
        return F.leaky_relu(self.conv(F.pad(x, (1, 2, 1, 2))), 0.1, inplace=True)


class Upscale(nn.Module):
    """Double the side: 3x3 convolution to 4x the channels, LeakyReLU 0.1, pixel shuffle.

    The shuffle reads channel (r * 2 + c) * C_out + c_out for row r, column c. This is TensorFlow's
    depth-to-space order, which differs from torch's PixelShuffle.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, 2 H, 2 W)."""
        return depth_to_space(F.leaky_relu(self.conv(x), 0.1, inplace=True))


class Autoencoder(nn.Module):
    """A shared encoder and one decoder for each of the identities a and b.

    encoder  n Downscales, Linear to the latent, Linear back, one Upscale
    decoder  n - 1 Upscales, each with a residual block if the configuration says so,
             5x5 convolution to 3 channels (4 with a mask head), sigmoid

    Here n is the number of encoder widths. ``means`` (2, latent) and ``covariances`` (2, latent,
    latent) describe the latents of a's and b's faces. The difference of the means is the part of a
    person's identity that the shared latent encodes, and :meth:`swap` shifts the latent along it.
    Both are zero until :meth:`measure_latents` runs or they are loaded.
    """

    covariances: Tensor

    means: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths, ups = config.encoder_widths, config.decoder_widths
        self.side = config.size // 2 ** len(widths)
        flat = widths[-1] * self.side**2
        self.down = nn.Sequential(
            *(Downscale(i, o) for i, o in zip((IMAGE_CHANNELS, *widths), widths, strict=False))
        )
        self.to_latent = nn.Linear(flat, config.latent)
        self.from_latent = nn.Linear(config.latent, flat)
        self.up = Upscale(widths[-1], ups[0])
        self.channels = 4 if config.mask_head else 3
        self.decoders = nn.ModuleDict(
            {key: _decoder(ups, self.channels, config.residual) for key in ("a", "b")}
        )
        self.register_buffer("means", torch.zeros(2, config.latent))
        self.register_buffer("covariances", torch.zeros(2, config.latent, config.latent))

    def to_code(self, images: Tensor) -> Tensor:
        """Map images (B, 3, size, size) to bottleneck vectors (B, latent)."""
        if self.config.channel_order == "bgr":
            images = images.flip(1)
        return cast(Tensor, self.to_latent(self.down(images).flatten(1)))

    def from_code(self, latent: Tensor) -> Tensor:
        """Map bottleneck vectors (B, latent) to the decoders' input (B, C, 2 side, 2 side)."""
        x = self.from_latent(latent)
        return cast(Tensor, self.up(x.view(len(x), -1, self.side, self.side)))

    def encode(self, images: Tensor) -> Tensor:
        """Map images (B, 3, size, size) to the decoders' input (B, C, 2 side, 2 side)."""
        return self.from_code(self.to_code(images))

    def decode(self, code: Tensor, identity: Identity) -> Tensor:
        """Map the output of :meth:`encode` to decoded faces of ``identity``, (B, C, size, size).

        C is 3, or 4 with a mask head. The fourth channel is the mask, 1 on the face.
        """
        decoded: Tensor = self.decoders[identity](code)
        if self.config.channel_order == "bgr":
            decoded = torch.cat([decoded[:, :3].flip(1), decoded[:, 3:]], dim=1)
        return decoded

    def forward(self, images: Tensor, identity: Identity) -> Tensor:
        """Encode images (B, 3, size, size) and decode them as ``identity``; see :meth:`decode`."""
        return self.decode(self.encode(images), identity)

    def swap(
        self, images: Tensor, to: Identity, identity_strength: float,
        expression_range: float = 0.0, mixing: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Encode faces of the other identity and decode them as ``to``; see :meth:`decode`.

        Args:
            images: Faces of the identity that is not ``to``, (B, 3, size, size).
            to: Identity whose decoder is used.
            identity_strength: Share of the difference between the two mean latents to add: 0 keeps
                the source latent, 1 moves the mean latent of one person to that of the other.
            expression_range: How far the latent may leave the mean of ``to``, in standard
                deviations of the latents of ``to`` along each of their principal axes; 0 does not
                limit it. Only a strength above 0 is limited.
            mixing: Shares of the latents of ``images`` in those that are decoded, (N, B); None
                decodes the B latents as they are.
        """
        source, target = (0, 1) if to == "b" else (1, 0)
        change = identity_strength * (self.means[target] - self.means[source])
        code = self.to_code(images)
        if mixing is not None:
            code = mixing.to(code.dtype) @ code
        if expression_range and bool(self.covariances.any()):
            deviation = code - self.means[source]
            limited = self._within(deviation, source, target, expression_range)
            change = change + min(identity_strength, 1.0) * (limited - deviation)
        return self.decode(self.from_code(code + change), to)

    def _within(self, deviation: Tensor, source: int, target: int, limit: float) -> Tensor:
        """Bring deviations from the source's mean latent (B, latent) into the target's range.

        The target's decoder has only seen latents that vary as the target's do. Along each of the
        target's principal axes, a spread that exceeds ``limit`` standard deviations is scaled down
        to it, and what lies ``SOFT_LIMIT`` times as far is bent back softly.
        """
        variances, axes = torch.linalg.eigh(self.covariances[target].double())
        spread = variances.clamp(min=0).sqrt()
        own = (axes.T @ self.covariances[source].double() @ axes).diagonal().clamp(min=0).sqrt()
        gain = (limit * spread / own.clamp(min=1e-12)).clamp(max=1)
        end = (SOFT_LIMIT * limit * spread).clamp(min=1e-9)
        along = deviation.double() @ axes * gain
        return cast(Tensor, (end * torch.tanh(along / end) @ axes.T).to(deviation.dtype))

    @torch.no_grad()
    def measure_latents(self, faces: dict[Identity, Iterable[Tensor]]) -> None:
        """Compute ``means`` and ``covariances`` from batches (B, 3, size, size) of faces."""
        means, covariances = [], []
        for key in sorted(faces):
            codes = torch.cat([self.to_code(batch) for batch in faces[key]])
            means.append(codes.mean(dim=0))
            centered = (codes - means[-1]).double()
            covariances.append((centered.T @ centered / len(codes)).to(codes.dtype))
        self.means, self.covariances = torch.stack(means), torch.stack(covariances)


def _decoder(ups: tuple[int, ...], channels: int, residual: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(ups):
        layers.append(Upscale(i, o))
        if residual:
            layers.append(Residual(o))
    return nn.Sequential(*layers, ToImage(ups[-1], channels), nn.Sigmoid())


MODELS: Registry[type[Autoencoder]] = Registry(MODEL_SEAM, {
    "original": Autoencoder, "small": Autoencoder, "medium": Autoencoder, "large": Autoencoder,
})  # fmt: skip


def with_statistics(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Add zeros for the statistics of latents that a state of an earlier version lacks."""
    zero = torch.zeros(1, 1, 1)  # expanded, because a forged header can describe terabytes
    missing = {
        "means": zero[0].expand(2, config.latent),
        "covariances": zero.expand(2, config.latent, config.latent),
    }
    return missing | state


def build(config: ModelConfig) -> Autoencoder:
    """Build the network that ``config`` describes, with random weights.

    Raises:
        SettingsError: If the architecture is unknown or its plug-in cannot be imported.
    """
    return MODELS.resolve(config.name)(config)
