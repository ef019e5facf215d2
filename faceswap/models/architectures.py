"""Network architectures: sizes, channel widths and crop geometry."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from faceswap.config import COVERAGE, MODEL_SEAM, Option, Settings
from faceswap.errors import SettingsError

FIELD_OF_VIEW = 0.8  # a ``view`` that shows the jaw and forehead, which COVERAGE would cut off


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Architecture and crop geometry, stored in the model file with the weights.

    ``input_center`` and ``output_center`` are the sampling positions of the first input and output
    pixel, in network pixels from the edge of the network crop. 0.5 is the exact pixel centre. The
    classic training loop samples its 64 px input at 0.7 and its target at 0.2 (grid from index 48
    instead of 47.5; target grid 0..64 instead of -0.5..63.5), so a classic network moves a face by
    half a pixel, and conversion needs both values to undo that.

    Raises:
        SettingsError: If a value is out of range, the numbers of encoder and decoder widths differ,
            or the size is not a multiple of 2 ** len(encoder_widths).
    """

    name: Annotated[Any, Option("Name of the architecture.", seam=MODEL_SEAM)]
    size: Annotated[
        int, Option("Side of the network's input and output in pixels.", low=16, high=1024)
    ] = 64
    encoder_widths: Annotated[tuple[int, ...], Option("Encoder channels after each halving.")]
    latent: Annotated[int, Option("Length of the bottleneck vector.", low=1, high=65536)]
    decoder_widths: Annotated[tuple[int, ...], Option("Decoder channels after each doubling.")]
    channel_order: Annotated[
        Literal["rgb", "bgr"], Option("Channel order that the weights were trained with.")
    ] = "rgb"
    coverage: Annotated[
        float,
        Option("Side of the face square as a share of the crop side.", low=0.1, high=1.0),
    ] = COVERAGE
    view: Annotated[
        float, Option("Side of the network crop as a share of the crop side.", low=0.1, high=1.0)
    ] = COVERAGE
    crop_size: Annotated[
        int,
        Option("Side of the crop that the input is sampled from, in pixels.", low=16, high=4096),
    ] = 256
    input_center: Annotated[
        float, Option("Position of the first input pixel, in network pixels from the edge.")
    ] = 0.5
    output_center: Annotated[
        float, Option("Position of the first output pixel, in network pixels from the edge.")
    ] = 0.5
    mask_head: Annotated[
        bool, Option("Whether the decoders output a mask as a fourth channel.")
    ] = False

    residual: Annotated[
        bool, Option("Whether a residual block follows each doubling of the decoders.")
    ] = False

    def __post_init__(self) -> None:
        self.check()
        if self.size % 2 ** len(self.encoder_widths):
            raise SettingsError(
                f"size must be a multiple of {2 ** len(self.encoder_widths)}, not {self.size}"
            )
        if len(self.encoder_widths) != len(self.decoder_widths):
            raise SettingsError("encoder_widths and decoder_widths must have the same length")
        for width in (*self.encoder_widths, *self.decoder_widths):
            if not 1 <= width <= 8192:
                raise SettingsError(f"every width must be from 1 to 8192, not {width}")

    def at_size(self, size: int) -> Self:
        """Return this architecture at another size, with a crop size in the same proportion.

        Raises:
            SettingsError: If the new size or crop size is out of range, or the size is not a
                multiple of 2 ** len(encoder_widths).
        """
        return dataclasses.replace(self, size=size, crop_size=size * self.crop_size // self.size)

    def enlarged(self, scale: int) -> Self:
        """Return the geometry of images of the same square at ``scale`` times the resolution."""

        def moved(center: float) -> float:
            return scale * (center - 0.5) + 0.5

        return dataclasses.replace(
            self,
            size=scale * self.size,
            input_center=moved(self.input_center),
            output_center=moved(self.output_center),
        )


PRESETS: dict[str, ModelConfig] = {
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
        crop_size=128,  # 1.28 crop pixels per network pixel, so bilinear sampling does not alias
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
        residual=True,
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
        residual=True,
    ),
}


def preset_of(name: str) -> ModelConfig:
    """Return the preset of a built-in architecture, or of a plug-in's network class.

    Raises:
        SettingsError: If there is no such architecture, or its plug-in cannot be imported or has no
            ``preset`` that is a ModelConfig.
    """
    if name in PRESETS:
        return PRESETS[name]
    preset = getattr(MODEL_SEAM.load(name), "preset", None)
    if not isinstance(preset, ModelConfig):
        raise SettingsError(
            f"the plug-in model {name!r} must have a class attribute `preset`, a ModelConfig"
        )
    return preset
