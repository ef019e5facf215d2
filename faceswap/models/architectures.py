"""The architectures of the networks: sizes, widths and crop geometry."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from faceswap.config import COVERAGE, ModelName, Settings
from faceswap.errors import SettingsError

FIELD_OF_VIEW = 0.8  # of newer models: jaw and forehead too, which the square cuts off


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Architecture and crop geometry: all that must travel with the weights.

    ``input_center`` and ``output_center`` say where the first pixel of the network's input and
    output is sampled, in network pixels from the edge of its view. 0.5 is the exact pixel
    centre. The classic training loop samples its 64 px input at 0.7 and its target at 0.2 (grid
    from index 48 instead of 47.5; target grid 0..64 instead of -0.5..63.5), so a classic net moves
    a face by half a pixel; conversion undoes that only if it knows.
    """

    name: Annotated[ModelName, "Key of the architecture in model.MODELS."]
    size: Annotated[int, "Side of the network's input and output in pixels."] = 64
    encoder_widths: Annotated[tuple[int, ...], "Channels after each halving of the encoder."]
    latent: Annotated[int, "Size of the bottleneck vector."]
    decoder_widths: Annotated[tuple[int, ...], "Channels after each doubling."]
    channel_order: Annotated[Literal["rgb", "bgr"], "Order the weights were trained with."] = "rgb"
    coverage: Annotated[float, "Share of the crop's side that the face's square takes."] = COVERAGE
    view: Annotated[float, "Share of the crop's side that the network sees."] = COVERAGE
    crop_size: Annotated[int, "Side of the crop that the network's input is sampled from."] = 256
    input_center: Annotated[float, "First input pixel, network pixels from the edge."] = 0.5
    output_center: Annotated[float, "First output pixel, network pixels from the edge."] = 0.5
    mask_head: Annotated[bool, "Whether the decoders paint a mask as a fourth channel."] = False

    def __post_init__(self) -> None:
        self.check_types()
        self.check_range("size", 16, 1024)
        self.check_range("latent", 1, 65536)
        self.check_range("coverage", 0.1, 1.0)
        self.check_range("view", 0.1, 1.0)
        self.check_range("crop_size", 16, 4096)
        if self.size % 2 ** len(self.encoder_widths):
            raise SettingsError(
                f"size must be a multiple of {2 ** len(self.encoder_widths)}, not {self.size}"
            )
        if len(self.encoder_widths) != len(self.decoder_widths):
            raise SettingsError("encoder_widths and decoder_widths must be equally many")
        for width in (*self.encoder_widths, *self.decoder_widths):
            if not 1 <= width <= 8192:
                raise SettingsError(f"a width must be from 1 to 8192, not {width}")

    def at_size(self, size: int) -> Self:
        """The same architecture for another size, with as many crop pixels per network pixel.

        Raises:
            SettingsError: If the size does not fit.
        """
        return dataclasses.replace(self, size=size, crop_size=size * self.crop_size // self.size)


PRESETS: dict[ModelName, ModelConfig] = {
    "original": ModelConfig(
        name="original",
        encoder_widths=(128, 256, 512, 1024),
        latent=1024,
        decoder_widths=(512, 256, 128, 64),
        input_center=0.7,
        output_center=0.2,
    ),
    "small": ModelConfig(
        name="small",
        size=80,
        encoder_widths=(16, 32, 64, 128),
        latent=128,
        decoder_widths=(64, 64, 32, 16),
        view=FIELD_OF_VIEW,
        crop_size=128,  # 1.28 crop pixels per network pixel: bilinear sampling does not alias
        mask_head=True,
    ),
    "medium": ModelConfig(
        name="medium",
        size=128,
        encoder_widths=(32, 64, 128, 256, 512),
        latent=512,
        decoder_widths=(256, 256, 128, 64, 32),
        view=FIELD_OF_VIEW,
        crop_size=205,
        mask_head=True,
    ),
    "large": ModelConfig(
        name="large",
        size=256,
        encoder_widths=(32, 64, 128, 256, 512, 512),
        latent=512,
        decoder_widths=(512, 256, 256, 128, 64, 32),
        view=FIELD_OF_VIEW,
        crop_size=410,
        mask_head=True,
    ),
}
