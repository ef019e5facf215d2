"""The mastering display and the light levels of HDR video, which a new encoder has to be told.

They are defined in SMPTE ST 2086 and CTA-861.3. Decoders attach them to key frames, laid out as
FFmpeg's ``AVMasteringDisplayMetadata`` and ``AVContentLightMetadata``.
"""

import logging
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.sidedata.sidedata import Type

from faceswap.media import colorspace, reader
from faceswap.media.reader import Decoded
from faceswap.media.views import HDR

log = logging.getLogger(__name__)

DISPLAY_LAYOUT = "@20i2i"  # ten fractions, then whether primaries and luminance are known
LEVELS_LAYOUT = "@2I"
LOST = {Type.DOVI_RPU_BUFFER: "Dolby Vision", Type.DYNAMIC_HDR_PLUS: "HDR10+"}  # per frame
# Options that hold both, by encoder; the other encoders have none.
PARAMETERS = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}
AV1_COLOCATED = 2, 2  # the chroma location at the upper left, here and in AV1
XY_UNIT, NITS_UNIT = 50_000, 10_000  # steps per unit, as in the bitstreams of H.264 and H.265


@dataclass(frozen=True, slots=True)
class Light:
    """What HDR video says about its light.

    Attributes:
        primaries: x and y (CIE 1931) of red, green, blue and white of the mastering display; None
            if unknown.
        luminance: Its lowest and its highest luminance in cd/m2; None if unknown.
        levels: Highest light level of a pixel, and highest average of a frame, in cd/m2; None if
            unknown.
        chroma: Where the chroma samples lie; see :func:`colorspace.chroma_location`.
        lost: Names of metadata of single frames, which no encoder here can write.
    """

    primaries: tuple[Fraction, ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    levels: tuple[int, int] | None = None
    chroma: int = 0
    lost: tuple[str, ...] = ()

    @property
    def display(self) -> tuple[tuple[Fraction, ...], tuple[Fraction, Fraction]] | None:
        """The mastering display, if it is known whole."""
        return (self.primaries, self.luminance) if self.primaries and self.luminance else None

    def is_written_by(self, encoder: str, options: Mapping[str, str]) -> bool:
        """Return whether an encoder with these options writes what is known of this."""
        wanted = self.options(encoder)
        is_written = all(part in options.get(key, "") for key, part in wanted.items())
        return bool(wanted and is_written) or not (self.display or self.levels)

    def options(self, encoder: str) -> dict[str, str]:
        """Return the options with which an encoder writes this; empty if it cannot.

        Args:
            encoder: FFmpeg's encoder name.
        """
        name = PARAMETERS.get(encoder)
        is_av1 = encoder == "libsvtav1"
        parts = []
        if self.display:
            display = _display(*self.display, in_units=not is_av1)
            key = "master-display" if encoder == "libx265" else "mastering-display"
            parts.append(f"{key}={display}")
        if self.levels:
            key = {"libx264": "cll", "libx265": "max-cll"}.get(encoder, "content-light")
            parts.append(f"{key}={self.levels[0]},{self.levels[1]}")
        if self.chroma and not is_av1:
            parts.append(f"chromaloc={self.chroma}")
        elif self.chroma == AV1_COLOCATED[0]:
            parts.append(f"chroma-sample-position={AV1_COLOCATED[1]}")
        return {name: ":".join(parts)} if name and parts else {}


def _display(
    primaries: tuple[Fraction, ...], luminance: tuple[Fraction, Fraction], *, in_units: bool
) -> str:
    """Write a mastering display as encoders read it: G, B, R, white point, luminance."""

    def written(value: Fraction, unit: int) -> str:
        return str(round(value * unit)) if in_units else f"{float(value):.5f}"

    x_y = [written(value, XY_UNIT) for value in primaries]
    red, green, blue, white = (f"({x},{y})" for x, y in zip(x_y[::2], x_y[1::2], strict=True))
    low, high = (written(value, NITS_UNIT) for value in luminance)
    return f"G{green}B{blue}R{red}WP{white}L({high},{low})"


def is_hdr(video: Any) -> bool:
    """Return whether the tags of a video stream say PQ or HLG."""
    return video.codec_context.color_trc in HDR


def light_of(path: Path) -> Light:
    """Read what a video says about its light, from its first frame.

    Raises:
        InputError: If it is not a readable video, or none of its frames can be decoded.
    """
    with closing(reader.read_video(path)) as frames:
        first = next(frames)
    assert isinstance(first.pixels, Decoded), "read from a video"
    frame = first.pixels.frame
    try:
        side_data: Any = frame.side_data
        found = {one.type: bytes(one) for one in side_data}
    except ValueError as error:  # PyAV refuses all side data if it does not know the type of one
        log.warning("what %s says about its light cannot be read: %s", path, error)
        found = {}
    return replace(light_from(found), chroma=colorspace.chroma_location(frame))


def light_from(data: dict[Any, bytes]) -> Light:
    """Return what the side data of a frame says about its light."""
    primaries = luminance = levels = None
    display = data.get(Type.MASTERING_DISPLAY_METADATA, b"")
    if len(display) >= struct.calcsize(DISPLAY_LAYOUT):
        *numbers, has_primaries, has_luminance = struct.unpack_from(DISPLAY_LAYOUT, display)
        values = [
            Fraction(over, under) if under else Fraction(0)
            for over, under in zip(numbers[::2], numbers[1::2], strict=True)
        ]
        primaries = tuple(values[:8]) if has_primaries else None
        luminance = (values[8], values[9]) if has_luminance else None
    light = data.get(Type.CONTENT_LIGHT_LEVEL, b"")
    if len(light) >= struct.calcsize(LEVELS_LAYOUT):
        most, average = struct.unpack_from(LEVELS_LAYOUT, light)
        levels = (most, average) if most or average else None
    lost = tuple(name for kind, name in LOST.items() if kind in data)
    return Light(primaries, luminance, levels, lost=lost)
