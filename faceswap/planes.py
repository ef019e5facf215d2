"""Between RGB and the planes that a video stores, without a shift of light or colour."""

from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from faceswap.types import Image

# The default conversion between YUV and RGB darkens by 1.6 of 255 a round trip; these flags do not.
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# AVColorSpace of a frame -> the swscale constant that converts back the same way; 5 is BT.601
SWS_COLORSPACE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
COLOR_TAGS = ("colorspace", "color_range", "color_trc", "color_primaries")
BT709, STUDIO_RANGE = 1, 1  # AVCOL_SPC_BT709, AVCOL_RANGE_MPEG
GRID = (
    8  # pixels a side: a whole number of chroma samples in every subsampling, and a filter's reach
)

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive
Tags = dict[str, int]


def tags_of(frame: Any) -> Tags:
    """The colour tags of a frame or a codec."""
    return {tag: getattr(frame, tag) for tag in COLOR_TAGS}


def converted(frame: av.VideoFrame, pixel_format: str, tags: Tags) -> av.VideoFrame:
    """A frame in another pixel format, with these colour tags."""
    new = frame.reformat(
        format=pixel_format,
        interpolation=EXACT,
        dst_colorspace=SWS_COLORSPACE.get(tags["colorspace"], 5),
        dst_color_range=tags["color_range"] or STUDIO_RANGE,
    )
    for tag, value in tags.items():
        setattr(new, tag, value)
    return new


def patched(image: Image, changed: Box, like: av.VideoFrame) -> av.VideoFrame:
    """The stored frame, bit for bit, but for a box converted from RGB.

    Args:
        image: The whole frame, (H, W, 3).
        changed: The box.
        like: The stored frame, planar YUV.
    """
    inner = _on_grid(changed, 0, like)
    left, top, right, bottom = _on_grid(changed, GRID, like)  # filters look at neighbours
    part = np.ascontiguousarray(image[top:bottom, left:right])
    tags = tags_of(like)
    box = converted(av.VideoFrame.from_ndarray(part, format="rgb24"), like.format.name, tags)
    new = av.VideoFrame(like.width, like.height, like.format.name)
    for tag, value in tags.items():
        setattr(new, tag, value)
    deep = any(component.bits > 8 for component in like.format.components)
    for old, target, source in zip(like.planes, new.planes, box.planes, strict=True):
        pixels = _pixels(target, deep)
        pixels[:] = _pixels(old, deep)
        across, down = -(-like.width // old.width), -(-like.height // old.height)
        x0, x1 = inner[0] // across, -(-inner[2] // across)
        y0, y1 = inner[1] // down, -(-inner[3] // down)
        x, y = left // across, top // down
        pixels[y0:y1, x0:x1] = _pixels(source, deep)[y0 - y : y1 - y, x0 - x : x1 - x]
    return new


def _on_grid(box: Box, margin: int, frame: av.VideoFrame) -> Box:
    """A box grown by a margin to whole groups of pixels that share their colour."""
    left, top = ((low - margin) // GRID * GRID for low in box[:2])
    right, bottom = (-(-(high + margin) // GRID) * GRID for high in box[2:])
    return max(left, 0), max(top, 0), min(right, frame.width), min(bottom, frame.height)


def _pixels(plane: Any, deep: bool) -> npt.NDArray[Any]:
    """A plane of a frame as an array over its very memory, (H, W) uint8 or uint16."""
    rows = np.frombuffer(plane, np.uint16 if deep else np.uint8)
    return rows[: plane.height * plane.line_size // (1 + deep)].reshape(plane.height, -1)[
        :, : plane.width
    ]


def is_planar_yuv(frame: av.VideoFrame) -> bool:
    """Whether a frame stores light and two colours in a plane each."""
    return frame.format.name.startswith("yuv") and len(frame.planes) == 3


def is_rgb(pixel_format: str) -> bool:
    """Whether a pixel format stores red, green and blue."""
    return bool(av.VideoFormat(pixel_format).is_rgb)


def pixel_format(original: Any, codec: str) -> str:
    """The source's pixel format if the encoder has it, else the nearest 4:4:4 or 4:2:0."""
    name = str(original.pix_fmt).replace("yuvj", "yuv")
    odd = original.width % 2 or original.height % 2
    supported = {f.name for f in av.Codec(codec, "w").video_formats or []}
    if (
        name in supported
        and not (odd and "420" in name)
        and not (original.width % 2 and "422" in name)
    ):
        return name
    deep = any(c.bits > 8 for c in av.VideoFormat(name).components)
    full = odd or not any(s in name for s in ("420", "nv12", "411", "410", "pal8", "gray"))
    candidate = f"yuv{'444' if full else '420'}p{'10le' if deep else ''}"
    return candidate if candidate in supported else "yuv444p" if odd else "yuv420p"
