"""Between RGB and the planes that a video stores, without a shift of light or colour."""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from faceswap.media.frame import rounded
from faceswap.types import FloatImage, Image, Rect

# The default conversion between YUV and RGB darkens by 1.6 of 255 a round trip; these flags do not.
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# AVColorSpace of a frame -> the swscale constant that converts back the same way; 5 is BT.601
SWS_COLORSPACE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
# RGB of 16 bits; the exact flags garble the interleaved rgb48. Level 255 of 8 bits is 255 * 256.
DEEP, DEEP_SCALE = "gbrp16le", 256
COLOR_TAGS = ("colorspace", "color_range", "color_trc", "color_primaries")
BT709, STUDIO_RANGE, FULL_RANGE = 1, 1, 2  # AVCOL_SPC_BT709, AVCOL_RANGE_MPEG, _JPEG
GRID = (
    8  # pixels a side: a whole number of chroma samples in every subsampling, and a filter's reach
)

CELL = 32  # rects of few sizes, for a converter is set up anew for every size
Tags = dict[str, int]
_converters = threading.local()


def tags_of(frame: Any) -> Tags:
    """The colour tags of a frame or a codec."""
    return {tag: getattr(frame, tag) for tag in COLOR_TAGS}


def _reformatter(frame: av.VideoFrame, target: str) -> VideoReformatter:
    """What converts pictures like this one; it is kept, for setting it up costs a millisecond."""
    known: dict[Any, VideoReformatter] = _converters.__dict__
    key = f"{frame.format.name} {frame.width}x{frame.height} {target}"
    if key not in known:
        if len(known) >= 16:
            known.clear()
        known[key] = VideoReformatter()
    return known[key]


def converted(frame: av.VideoFrame, pixel_format: str, tags: Tags) -> av.VideoFrame:
    """A frame in another pixel format, with these colour tags."""
    new = _reformatter(frame, pixel_format).reformat(
        frame,
        format=pixel_format,
        interpolation=EXACT,
        dst_colorspace=SWS_COLORSPACE.get(tags["colorspace"], 5),
        dst_color_range=tags["color_range"] or STUDIO_RANGE,
        threads=1,  # several gain little here, and take cores from those that look for faces
    )
    return _tagged(new, tags)


def is_deep(frame: av.VideoFrame) -> bool:
    """Whether a frame stores more than 8 bits of a colour."""
    return any(component.bits > 8 for component in frame.format.components)


def rgb_rect(frame: av.VideoFrame, rect: Rect, deep: bool = False) -> npt.NDArray[Any]:
    """The RGB of a rect of a stored frame, (H, W, 3) uint8; ``deep``: uint16.

    Equal to the rect of the whole frame's RGB, but only the rect is converted.
    """
    left, top, right, bottom = rect
    name = DEEP if deep else "rgb24"
    grown = on_grid(rect, GRID, frame, cell=CELL)
    if is_planar_yuv(frame) and grown != (0, 0, frame.width, frame.height):
        x, y = grown[:2]
        frame = _cropped(frame, grown)
        left, top, right, bottom = left - x, top - y, right - x, bottom - y
    shared = _reformatter(frame, name)
    rgb = shared.reformat(
        frame, format=name, interpolation=EXACT, dst_color_range=FULL_RANGE, threads=1
    ).to_ndarray()
    return np.ascontiguousarray(rgb[top:bottom, left:right])


def gray_of(frame: av.VideoFrame) -> Image:
    """A stored frame without colour, (H, W), in full range."""
    if not is_planar_yuv(frame):
        gray = frame.reformat(format="gray", interpolation=EXACT, dst_color_range=2).to_ndarray()
        return np.asarray(gray, np.uint8)
    bits = frame.format.components[0].bits
    luma = _pixels(frame.planes[0], bits > 8)
    if bits > 8:
        luma = (luma >> (bits - 8)).astype(np.uint8)
    if frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj"):
        return luma.copy()
    stretched = cv2.convertScaleAbs(luma - np.minimum(luma, 16), alpha=255 / 219)
    return np.asarray(stretched, np.uint8)


def _cropped(frame: av.VideoFrame, rect: Rect) -> av.VideoFrame:
    """A rect of a planar frame, whose edges lie on the grid of its colours."""
    left, top, right, bottom = rect
    new = _blank(frame, right - left, bottom - top)
    deep = is_deep(frame)
    for old, target in zip(frame.planes, new.planes, strict=True):
        x, y = left // -(-frame.width // old.width), top // -(-frame.height // old.height)
        part = _pixels(old, deep)[y : y + target.height, x : x + target.width]
        _pixels(target, deep)[:] = part
    return new


def _blank(like: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """A frame of another size, with nothing in it, stored as this one is."""
    return _tagged(av.VideoFrame(width, height, like.format.name), tags_of(like))


def _tagged(frame: av.VideoFrame, tags: Tags) -> av.VideoFrame:
    for tag, value in tags.items():
        setattr(frame, tag, value)
    return frame


def stored(pixels: Image | FloatImage, deep: bool) -> av.VideoFrame:
    """RGB pixels (H, W, 3) as a frame of 8 bits a colour, or of 16."""
    if deep:
        fine = np.clip(np.rint(pixels.astype(np.float32) * DEEP_SCALE), 0, 65535)
        return av.VideoFrame.from_ndarray(fine.astype(np.uint16), format=DEEP)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rounded(pixels)), format="rgb24")


def patched(
    light: Callable[[Rect], Image | FloatImage], rects: Iterable[Rect], like: av.VideoFrame
) -> av.VideoFrame:
    """The stored frame, bit for bit, but for rects converted from RGB.

    Args:
        light: Gives the pixels of a rect, (H, W, 3).
        rects: What to replace; all groups of pixels that share their colour and reach into it.
        like: The stored frame, planar YUV.
    """
    deep, tags = is_deep(like), tags_of(like)
    new = _blank(like, like.width, like.height)
    for old, target in zip(like.planes, new.planes, strict=True):
        _pixels(target, deep)[:] = _pixels(old, deep)
    for rect in rects:
        inner, grown = on_grid(rect, 0, like), on_grid(rect, GRID, like)  # filters reach out
        part = converted(stored(light(grown), deep), like.format.name, tags)
        for target, source in zip(new.planes, part.planes, strict=True):
            across, down = -(-like.width // target.width), -(-like.height // target.height)
            x0, x1 = inner[0] // across, -(-inner[2] // across)
            y0, y1 = inner[1] // down, -(-inner[3] // down)
            x, y = grown[0] // across, grown[1] // down
            fresh = _pixels(source, deep)[y0 - y : y1 - y, x0 - x : x1 - x]
            _pixels(target, deep)[y0:y1, x0:x1] = fresh
    return new


def on_grid(rect: Rect, margin: int, frame: av.VideoFrame, cell: int = GRID) -> Rect:
    """A rect grown by a margin to whole cells, which hold whole groups that share a colour."""
    left, top = ((low - margin) // cell * cell for low in rect[:2])
    right, bottom = (-(-(high + margin) // cell) * cell for high in rect[2:])
    return max(left, 0), max(top, 0), min(right, frame.width), min(bottom, frame.height)


def turned(rect: Rect, turns: int, height: int, width: int) -> Rect:
    """Where a rect of a picture (height, width) lies after counter-clockwise quarter turns."""
    for _ in range(turns % 4):
        left, top, right, bottom = rect
        rect = top, width - right, bottom, width - left
        height, width = width, height
    return rect


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
    """The pixel format in which an encoder keeps the most of what the source stores.

    The source's own if the encoder has it; else of those that keep its depth and the resolution of
    its colours, the smallest.
    """
    name = str(original.pix_fmt).replace("yuvj", "yuv")
    supported = [f.name for f in av.Codec(codec, "w").video_formats or []]
    fine = (original.width % 2 and 1, original.height % 2 and 1)  # odd sizes need whole colours
    if name in supported and not any(
        o and s > 1 for o, s in zip(fine, _sharing(name), strict=True)
    ):
        return name
    own = av.VideoFormat(name)
    kept = (1, 1) if own.is_rgb and name != "pal8" else _sharing(name)
    wanted = tuple(1 if odd else share for odd, share in zip(fine, kept, strict=True))
    depth = max(component.bits for component in own.components)

    def loss(candidate: str) -> tuple[int, int, int, int]:
        bits = max(c.bits for c in av.VideoFormat(candidate).components)
        share = _sharing(candidate)
        coarser = sum(max(s - w, 0) for s, w in zip(share, wanted, strict=True))
        return (coarser, max(min(depth, 10) - bits, 0), bits, -share[0] * share[1])

    planar = [f for f in supported if re.fullmatch(r"yuv4\d\dp(\d+le)?", f)]
    return min(planar or supported, key=loss)


def _sharing(name: str) -> tuple[int, int]:
    """How many pixels across and down share a colour."""
    layout = av.VideoFormat(name, 64, 64)
    if len(layout.components) < 3 or layout.is_rgb:
        return (2, 2) if len(layout.components) < 3 else (1, 1)
    return 64 // layout.chroma_width(64), 64 // layout.chroma_height(64)
