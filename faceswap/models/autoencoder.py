"""The autoencoder with one shared encoder and two decoders, and the registry of architectures.

Input and output are float RGB in [0, 1], (B, 3, size, size). A network with a mask head adds the
mask as a fourth output channel.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceswap.config import MODEL_SEAM
from faceswap.models.architectures import ModelConfig
from faceswap.registry import Registry
from faceswap.types import Identity


class Downscale(nn.Module):
    """Halve the side: 5x5 convolution of stride 2, LeakyReLU 0.1.

    Pads like TensorFlow's "same": an even side needs 3 extra rows, 1 before and 2 after.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 5, stride=2)

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


def depth_to_space(x: Tensor) -> Tensor:
    """Rearrange (B, 4 C, H, W) to (B, C, 2 H, 2 W).

    Output pixel (row, column) of each 2 x 2 block takes channel c from input channel
    (row * 2 + column) * C + c.
    """
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
    return x.permute(0, 3, 1, 2)  # channels_last for the next convolution


class Autoencoder(nn.Module):
    """A shared encoder and one decoder for each of the identities a and b.

    encoder  n Downscales, Linear to the latent, Linear back, one Upscale
    decoder  n - 1 Upscales, 5x5 convolution to 3 channels (4 with a mask head), sigmoid

    Here n is the number of encoder widths. ``means`` (2, latent) holds the mean latents of a's and
    b's faces. Their difference is the part of a person's identity that the shared latent encodes,
    and :meth:`swap` shifts the latent along it. The means are zero until :meth:`measure_means` runs
    or they are loaded.
    """

    means: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths, ups = config.encoder_widths, config.decoder_widths
        self.side = config.size // 2 ** len(widths)
        flat = widths[-1] * self.side**2
        self.down = nn.Sequential(
            *(Downscale(i, o) for i, o in zip((3, *widths), widths, strict=False))
        )
        self.to_latent = nn.Linear(flat, config.latent)
        self.from_latent = nn.Linear(config.latent, flat)
        self.up = Upscale(widths[-1], ups[0])
        self.channels = 4 if config.mask_head else 3
        self.decoders = nn.ModuleDict({key: _decoder(ups, self.channels) for key in ("a", "b")})
        self.register_buffer("means", torch.zeros(2, config.latent))

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

    def swap(self, images: Tensor, to: Identity, identity_strength: float) -> Tensor:
        """Encode faces of the other identity and decode them as ``to``; see :meth:`decode`.

        Args:
            images: Faces of the identity that is not ``to``, (B, 3, size, size).
            to: Identity whose decoder is used.
            identity_strength: Share of the difference between the two mean latents to add: 0 keeps
                the source latent, 1 moves the mean latent of one person to that of the other.
        """
        toward_b = self.means[1] - self.means[0]
        change = identity_strength * (toward_b if to == "b" else -toward_b)
        return self.decode(self.from_code(self.to_code(images) + change), to)

    @torch.no_grad()
    def measure_means(self, faces: dict[Identity, Iterable[Tensor]]) -> None:
        """Compute ``means`` from batches (B, 3, size, size) of the faces of both identities."""
        for row, key in enumerate(sorted(faces)):
            codes = torch.cat([self.to_code(batch) for batch in faces[key]])
            self.means[row] = codes.mean(dim=0)


def _decoder(ups: tuple[int, ...], channels: int) -> nn.Sequential:
    upscales = (Upscale(i, o) for i, o in pairwise(ups))
    return nn.Sequential(*upscales, nn.Conv2d(ups[-1], channels, 5, padding=2), nn.Sigmoid())


MODELS: Registry[type[Autoencoder]] = Registry(MODEL_SEAM, {
    "original": Autoencoder, "small": Autoencoder, "medium": Autoencoder, "large": Autoencoder,
})  # fmt: skip


def build(config: ModelConfig) -> Autoencoder:
    """Build the network that ``config`` describes, with random weights.

    Raises:
        SettingsError: If the architecture is unknown or its plug-in cannot be imported.
    """
    return MODELS.resolve(config.name)(config)
