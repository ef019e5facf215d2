"""Convert between RGB and stored video frames without shifting brightness or colour."""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from faceswap.arrays import FloatImage, Image, Rect
from faceswap.media.frame import Alpha, gray_of_rgb, rounded
from faceswap.media.views import View

# swscale's default YUV-RGB round trip darkens by 1.6 levels of 255; these flags prevent that.
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Maps the AVColorSpace of a frame to swscale's constant for the same matrix; 5 is BT.601.
SWS_COLORSPACE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
# Matrices that swscale cannot undo (ITU-T H.273).
UNKNOWN_MATRICES = {
    8: "YCgCo", 11: "Y'D'zD'x", 12: "chromaticity-derived", 13: "chromaticity-derived",
    14: "ICtCp", 15: "IPT", 16: "YCgCo-Re", 17: "YCgCo-Ro",
}  # fmt: skip
# BT.2020 constant luminance; converted with the non-constant matrix, which is close.
CONSTANT_LUMINANCE = 10
# Numbers of chroma locations by halves of a luma pixel to the right and down.
CHROMA_LOCATIONS = {(0, 1): 0, (1, 1): 1, (0, 0): 2, (1, 0): 3, (0, 2): 4, (1, 2): 5}
DEEP = "gbrp16le"  # 16-bit RGB, planar because the exact flags garble rgb48
COLOR_TAGS = ("colorspace", "color_range", "color_trc", "color_primaries")
NO_TAGS = {"colorspace": 2, "color_range": 0, "color_trc": 2, "color_primaries": 2}
BT2020 = 9  # AVCOL_SPC_BT2020_NCL
BT709, STUDIO_RANGE, FULL_RANGE = 1, 1, 2  # AVCOL_SPC_BT709, AVCOL_RANGE_MPEG, _JPEG
# Pixels. Rects are aligned to this, as a multiple of every chroma block's side, and get a margin of
# this, because swscale's filters reach no further.
GRID = 8
# Pixels; rects grow to multiples of this, because every size of rect needs its own converter.
CELL = 32
# Layouts of graphics hardware, and those of decoders on the processor that hold the same.
SEMI_PLANAR = {
    "nv12": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "p010le": "yuv420p10le",
    "p210le": "yuv422p10le", "p410le": "yuv444p10le", "p012le": "yuv420p12le",
}  # fmt: skip
# Formats with transparency in which an encoder opens, if these are fewer than FFmpeg lists.
ALPHA_FORMATS: dict[str, tuple[str, ...]] = {"libvpx-vp9": ("yuva420p",), "libx265": ()}
Tags = dict[str, int]
_converters = threading.local()


def tags_of(frame: Any) -> Tags:
    """Return the colour tags of a frame or codec context."""
    return {tag: getattr(frame, tag) for tag in COLOR_TAGS}


def complete_tags(frame: av.VideoFrame, tags: Tags) -> av.VideoFrame:
    """Give a frame the colour tags that it lacks, because its decoder did not find them.

    Args:
        frame: A decoded frame.
        tags: What the container says, from :func:`tags_of` before anything is decoded.
    """
    for tag, value in tags.items():
        if getattr(frame, tag) == NO_TAGS[tag] != value:
            setattr(frame, tag, value)
    if frame.colorspace == CONSTANT_LUMINANCE:
        frame.colorspace = BT2020
    return frame


def _reformatter(frame: av.VideoFrame, target: str) -> VideoReformatter:
    """Return a converter for frames like this one, cached per thread: setup takes a millisecond."""
    cache: dict[Any, VideoReformatter] = _converters.__dict__
    key = f"{frame.format.name} {frame.width}x{frame.height} {target}"
    if key not in cache:
        if len(cache) >= 16:
            cache.clear()
        cache[key] = VideoReformatter()
    return cache[key]


def converted(frame: av.VideoFrame, pixel_format: str, tags: Tags) -> av.VideoFrame:
    """Convert a frame to another pixel format with these colour tags."""
    if _differ_in_alpha_only(frame.format.name, pixel_format):
        return _tagged(_copied(frame, pixel_format), tags)
    new = _reformatter(frame, pixel_format).reformat(
        frame,
        format=pixel_format,
        interpolation=EXACT,
        dst_colorspace=SWS_COLORSPACE.get(tags["colorspace"], 5),
        dst_color_range=tags["color_range"] or STUDIO_RANGE,
        threads=1,  # more gain little here and take cores from face detection
    )
    return _tagged(new, tags)


def is_deep(frame: av.VideoFrame) -> bool:
    """Return whether a frame stores more than 8 bits per channel."""
    return any(component.bits > 8 for component in frame.format.components)


def deep_scale(frame: av.VideoFrame) -> float:
    """Return the steps of DEEP per 8-bit level: swscale scales RGB by powers of two."""
    bits: int = frame.format.components[0].bits
    return (2**bits - 1) * 2 ** (16 - bits) / 255 if is_rgb(frame.format.name) else 256.0


def planar(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a frame of graphics hardware in the layout of decoders on the processor.

    Hardware stores both chroma components in one plane, and fewer than 16 bits in the upper ones
    (FFmpeg's NV12, P010 and their kin). All others are returned as they are.
    """
    target = SEMI_PLANAR.get(frame.format.name)
    if target is None:
        return frame
    old, deep = frame, target.endswith("le")
    new = _blank(old, old.width, old.height, target)
    shift = 16 - new.format.components[0].bits if deep else 0
    _pixels(new.planes[0], deep)[:] = _pixels(old.planes[0], deep) >> shift
    pairs: Any = old.planes[1]
    both: Any = np.frombuffer(pairs, np.uint16 if deep else np.uint8)
    both = both[: pairs.height * pairs.line_size // (1 + deep)].reshape(pairs.height, -1) >> shift
    for place, plane in enumerate(new.planes[1:3]):
        _pixels(plane, deep)[:] = both[:, place : 2 * plane.width : 2]
    new.pts, new.dts, new.duration = old.pts, old.dts, old.duration
    if old.time_base is not None:  # a raw stream has none
        new.time_base = old.time_base
    return _tagged(new, tags_of(old))


def are_equal(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Return whether frames have the same planes, bit for bit, and the same colour tags."""
    alike = (one.format.name, one.width, one.height) == (
        other.format.name, other.width, other.height
    )  # fmt: skip
    if not alike or tags_of(one) != tags_of(other):
        return False
    deep = is_deep(one)
    return all(
        np.array_equal(_pixels(mine, deep), _pixels(its, deep))
        for mine, its in zip(one.planes, other.planes, strict=True)
    )


def _differ_in_alpha_only(one: str, other: str) -> bool:
    """Return whether planar formats differ in having alpha; swscale garbles some of these pairs."""
    opaque, other_opaque = (re.sub("^(yuv|gbr)a", r"\1", name) for name in (one, other))
    return one != other and opaque == other_opaque


def _copied(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """Copy a planar frame to a format that differs in alpha only; a new alpha plane is opaque."""
    new, deep = _blank(frame, frame.width, frame.height, pixel_format), is_deep(frame)
    for old, target in zip(frame.planes[:3], new.planes[:3], strict=True):
        _pixels(target, deep)[:] = _pixels(old, deep)
    for alpha in new.planes[3:]:
        _pixels(alpha, deep)[:] = 2 ** new.format.components[3].bits - 1
    return new


def rgb_rect(frame: av.VideoFrame, rect: Rect, deep: bool = False) -> npt.NDArray[Any]:
    """Return the RGB of a rect of a stored frame, (H, W, 3).

    The result is uint8, or uint16 with :func:`deep_scale` steps per 8-bit level if ``deep``. It
    equals that rect of the whole frame's RGB, but in planar YUV only the area around the rect is
    converted.
    """
    left, top, right, bottom = rect
    if deep and _is_planar_rgb(frame):  # swscale would not be exact
        shift = 16 - frame.format.components[0].bits
        green, blue, red = (_pixels(plane, deep) for plane in frame.planes[:3])
        return np.dstack([red, green, blue])[top:bottom, left:right] << shift
    name = DEEP if deep else "rgb24"
    grown = on_grid(rect, GRID, frame, cell=CELL)
    if is_planar_yuv(frame) and grown != (0, 0, frame.width, frame.height):
        x, y = grown[:2]
        frame = _cropped(frame, grown)
        left, top, right, bottom = left - x, top - y, right - x, bottom - y
    if _differ_in_alpha_only(frame.format.name, name):
        frame = _copied(frame, name)
    reformatter = _reformatter(frame, name)
    rgb = reformatter.reformat(
        frame, format=name, interpolation=EXACT, dst_color_range=FULL_RANGE, threads=1
    ).to_ndarray()
    return np.ascontiguousarray(rgb[top:bottom, left:right])


def gray_of(frame: av.VideoFrame, view: View | None = None) -> Image:
    """Return the grey levels of a stored frame with 8 bits in full range, (H, W).

    Args:
        frame: The stored frame.
        view: How its colours are shown; None if they are those of a display. Then a grey stands for
            every colour of its luma.
    """
    if view is not None and is_planar_yuv(frame):
        lowest, scale = _luma_range(frame)
        codes = np.arange(2 ** frame.format.components[0].bits)
        shown = rounded(view.shown_grays(((codes - lowest) / scale).astype(np.float32)))
        return np.asarray(shown[_pixels(frame.planes[0], is_deep(frame))], np.uint8)
    if is_rgb(frame.format.name):
        return gray_of_rgb(rgb_rect(frame, (0, 0, frame.width, frame.height)))
    if not is_planar_yuv(frame):
        gray = frame.reformat(format="gray", interpolation=EXACT, dst_color_range=2).to_ndarray()
        return np.asarray(gray, np.uint8)
    bits = frame.format.components[0].bits
    luma = _pixels(frame.planes[0], bits > 8)
    if bits > 8:
        luma = (luma >> (bits - 8)).astype(np.uint8)
    if _is_full_range(frame):
        return luma.copy()
    stretched = cv2.convertScaleAbs(luma - np.minimum(luma, 16), alpha=255 / 219)
    return np.asarray(stretched, np.uint8)


def chroma_location(frame: av.VideoFrame) -> int:
    """Return where the chroma samples of 4:2:0 lie (ITU-T H.265, ``chroma_sample_loc_type``).

    PyAV does not expose the location. swscale uses it to enlarge chroma, so the offset of an
    enlarged ramp reveals it.

    Args:
        frame: A decoded frame.

    Returns:
        The number; 0, between two lines at the left, for other formats and if it is not stated.
    """
    if not is_planar_yuv(frame) or _chroma_block(frame.format.name) != (2, 2):
        return 0
    side = 32 if frame.width != 32 else 64  # another size, see _blank
    deep, bits = is_deep(frame), frame.format.components[0].bits
    probe, step = _blank(frame, side, side), 2**bits // side
    ramp = np.arange(side // 2) * step
    for plane, values in zip(
        probe.planes, (0, ramp[np.newaxis], ramp[:, np.newaxis]), strict=False
    ):
        _pixels(plane, deep)[:] = values
    whole = re.sub("^yuv[aj]?420", "yuv444", frame.format.name)
    large = _reformatter(probe, whole).reformat(
        probe, format=whole, interpolation=EXACT, threads=1
    )  # fmt: skip
    at = side // 2
    across, down = (
        round(2 * (at - 2 * float(_pixels(plane, deep)[at, at]) / step))
        for plane in large.planes[1:3]
    )  # in halves of a luma pixel
    return CHROMA_LOCATIONS.get((across, down), 0)


def _is_full_range(frame: av.VideoFrame) -> bool:
    return bool(frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj"))


def _luma_range(frame: av.VideoFrame) -> tuple[int, float]:
    """Return the code of black, and how many codes white is above it, of planar YUV."""
    bits = frame.format.components[0].bits
    if _is_full_range(frame):
        return 0, 2**bits - 1
    return 16 << (bits - 8), 219 * 2 ** (bits - 8)


def _cropped(frame: av.VideoFrame, rect: Rect) -> av.VideoFrame:
    """Crop a planar frame to a rect whose edges are aligned to its chroma blocks."""
    left, top, right, bottom = rect
    new = _blank(frame, right - left, bottom - top)
    deep = is_deep(frame)
    for old, target in zip(frame.planes, new.planes, strict=True):
        x, y = left // -(-frame.width // old.width), top // -(-frame.height // old.height)
        part = _pixels(old, deep)[y : y + target.height, x : x + target.width]
        _pixels(target, deep)[:] = part
    return new


def _blank(
    like: av.VideoFrame, width: int, height: int, pixel_format: str | None = None
) -> av.VideoFrame:
    """Allocate a frame of another size whose chroma samples lie where those of ``like`` do.

    PyAV cannot set their position, but a scaled copy takes it over. Without it, swscale would shift
    the chroma of H.264 by half a pixel.

    Args:
        like: The frame whose format and colour tags the result has as well.
        width: In pixels.
        height: In pixels.
        pixel_format: Another format; then the result has no colour tags.
    """
    name = pixel_format or like.format.name
    if (width, height, name) == (like.width, like.height, like.format.name):
        new = av.VideoFrame(width, height, name)
    else:
        new = _reformatter(like, f"{name} {width}x{height}").reformat(
            like, width=width, height=height, format=name, interpolation=Interpolation.POINT,
            threads=1,
        )  # fmt: skip
    return _tagged(new, NO_TAGS if pixel_format else tags_of(like))


def _tagged(frame: av.VideoFrame, tags: Tags) -> av.VideoFrame:
    for tag, value in tags.items():
        setattr(frame, tag, value)
    return frame


def stored(pixels: Image | FloatImage, like: av.VideoFrame) -> av.VideoFrame:
    """Return RGB pixels (H, W, 3) in 0..255 as a frame that can replace a part of another one.

    It has 16 bits per channel if the other one has more than 8, and its chroma will be placed where
    the other one's is, see :func:`_blank`.
    """
    height, width = pixels.shape[:2]
    if is_deep(like):
        new = _blank(like, width, height, DEEP)
        steps = np.float32(deep_scale(like))
        levels = np.clip(np.rint(pixels.astype(np.float32) * steps), 0, 65535)
        for plane, channel in zip(new.planes, (1, 2, 0), strict=True):  # green, blue and red
            _pixels(plane, deep=True)[:] = levels[..., channel]
        return new
    new = _blank(like, width, height, "rgb24")
    (plane,) = new.planes
    rows: Any = np.frombuffer(memoryview(plane), np.uint8)
    rows = rows[: height * plane.line_size].reshape(height, -1)
    rows[:, : 3 * width] = rounded(pixels).reshape(height, -1)
    return new


def patched(
    rgb_of: Callable[[Rect], Image | FloatImage], rects: Iterable[Rect], like: av.VideoFrame
) -> av.VideoFrame:
    """Copy a stored frame bit for bit, except for rects converted from RGB.

    Args:
        rgb_of: Returns the RGB pixels of a rect, (H, W, 3).
        rects: Rects to replace; a chroma block that a rect overlaps is replaced whole. Alpha stays.
        like: The stored frame; see :func:`is_planar`.
    """
    deep, tags = is_deep(like), tags_of(like)
    new = _blank(like, like.width, like.height)
    for old, target in zip(like.planes, new.planes, strict=True):
        _pixels(target, deep)[:] = _pixels(old, deep)
    colors = new.planes[:3]
    if _is_planar_rgb(like):  # which has no chroma blocks, and swscale would not be exact
        steps = np.float32((2 ** like.format.components[0].bits - 1) / 255)
        for left, top, right, bottom in rects:
            levels = np.rint(rgb_of((left, top, right, bottom)) * steps)
            levels = np.clip(levels, 0, 2 ** like.format.components[0].bits - 1)
            for plane, channel in zip(colors, (1, 2, 0), strict=True):  # green, blue and red
                _pixels(plane, deep)[top:bottom, left:right] = levels[..., channel]
        return new
    for rect in rects:
        # Convert a larger rect, because the filters read beyond the pixels that they write.
        inner, grown = on_grid(rect, 0, like), on_grid(rect, GRID, like)
        part = converted(stored(rgb_of(grown), like), like.format.name, tags)
        for target, source in zip(colors, part.planes[:3], strict=True):
            across, down = -(-like.width // target.width), -(-like.height // target.height)
            x0, x1 = inner[0] // across, -(-inner[2] // across)
            y0, y1 = inner[1] // down, -(-inner[3] // down)
            x, y = grown[0] // across, grown[1] // down
            replacement = _pixels(source, deep)[y0 - y : y1 - y, x0 - x : x1 - x]
            _pixels(target, deep)[y0:y1, x0:x1] = replacement
    return new


def brighten(frame: av.VideoFrame, luma: FloatImage, view: View | None = None) -> None:
    """Add to the brightness of a planar frame in place; chroma and alpha stay bit for bit.

    Args:
        frame: The stored frame; see :func:`is_planar`.
        luma: What is added, in 8-bit levels of full range, (H, W).
        view: How the colours of the frame are shown; None if they are those of a display. Then the
            levels are those of the display.
    """
    deep, bits = is_deep(frame), frame.format.components[0].bits
    highest = 2**bits - 1
    if _is_planar_rgb(frame):
        planes = [_pixels(plane, deep) for plane in frame.planes[:3]]
        added = [luma * np.float32(highest / 255)] * 3
        if view is not None:
            scale = np.float32(highest)
            codes = np.dstack([planes[at] for at in (2, 0, 1)]).astype(np.float32) / scale  # RGB
            brighter = view.stored(view.shown(codes) + luma[..., np.newaxis])
            added = [((brighter - codes) * scale)[..., at] for at in (1, 2, 0)]
    else:
        planes, (lowest, reach) = [_pixels(frame.planes[0], deep)], _luma_range(frame)
        added = [luma * np.float32(reach / 255)]
        if view is not None:
            grays = (planes[0] - np.float32(lowest)) / np.float32(reach)
            brighter = view.stored_grays(view.shown_grays(grays) + luma)
            inside = (grays >= 0) & (grays <= 1)  # what is beyond black and white stays
            added = [np.where(inside, brighter - grays, 0) * np.float32(reach)]
    for pixels, more in zip(planes, added, strict=True):
        pixels[:] = np.clip(np.rint(pixels + more), 0, highest)


def on_grid(rect: Rect, margin: int, frame: av.VideoFrame, cell: int = GRID) -> Rect:
    """Grow a rect by a margin and to whole cells, which never split a chroma block; clip it."""
    left, top = ((low - margin) // cell * cell for low in rect[:2])
    right, bottom = (-(-(high + margin) // cell) * cell for high in rect[2:])
    return max(left, 0), max(top, 0), min(right, frame.width), min(bottom, frame.height)


def turned(rect: Rect, turns: int, height: int, width: int) -> Rect:
    """Rotate a rect with its image of this height and width by counter-clockwise quarter turns."""
    for _ in range(turns % 4):
        left, top, right, bottom = rect
        rect = top, width - right, bottom, width - left
        height, width = width, height
    return rect


def _pixels(plane: Any, deep: bool) -> npt.NDArray[Any]:
    """View a plane as an array without copying, (H, W) uint8 or uint16."""
    rows = np.frombuffer(plane, np.uint16 if deep else np.uint8)
    return rows[: plane.height * plane.line_size // (1 + deep)].reshape(plane.height, -1)[
        :, : plane.width
    ]


def is_planar_yuv(frame: av.VideoFrame) -> bool:
    """Return whether a frame stores Y, U and V, and perhaps alpha, in separate planes."""
    return frame.format.name.startswith("yuv") and len(frame.planes) >= 3


def is_planar(frame: av.VideoFrame) -> bool:
    """Return whether a frame stores three colours, and perhaps alpha, as integers in planes."""
    return is_planar_yuv(frame) or _is_planar_rgb(frame)


def _is_planar_rgb(frame: av.VideoFrame) -> bool:
    return bool(re.fullmatch(r"gbra?p(\d+le)?", frame.format.name))


def is_rgb(pixel_format: str) -> bool:
    return bool(av.VideoFormat(pixel_format).is_rgb)


def has_alpha(pixel_format: str) -> bool:
    """Return whether a pixel format stores transparency; that of a palette is not known."""
    return any(component.is_alpha for component in av.VideoFormat(pixel_format).components)


def alpha_of(frame: av.VideoFrame) -> Alpha | None:
    """Return the alpha channel of a stored frame, (H, W); None if it has none.

    It is uint8, or uint16 scaled to 16 bits if the frame stores more than 8.
    """
    name = frame.format.name
    if not (has_alpha(name) or frame.format.has_palette):
        return None
    if len(frame.planes) < 4:
        frame = frame.reformat(format="gbrap16le" if is_deep(frame) else "gbrap")
    alpha = _pixels(frame.planes[3], is_deep(frame))
    bits = frame.format.components[3].bits
    return alpha.copy() if bits == 8 else _scaled(alpha, 2**bits - 1, 65535)


def with_alpha(frame: av.VideoFrame, alpha: Alpha) -> av.VideoFrame:
    """Return a frame with another alpha channel from :func:`alpha_of`, (H, W).

    Args:
        frame: A frame whose format has alpha. Its planes may be written to.
        alpha: The new channel.
    """
    name, deep = frame.format.name, is_deep(frame)
    is_packed = len(frame.planes) < 4
    if is_packed:
        tags = tags_of(frame)
        frame = frame.reformat(format="gbrap16le" if deep else "gbrap")
    plane, largest = frame.planes[3], 2 ** frame.format.components[3].bits - 1
    _pixels(plane, deep)[:] = _scaled(alpha, int(np.iinfo(alpha.dtype).max), largest)
    return _tagged(frame.reformat(format=name), tags) if is_packed else frame


def _scaled(levels: npt.NDArray[Any], before: int, after: int) -> npt.NDArray[Any]:
    """Scale levels of 0 to ``before`` to 0 to ``after``, so that the way back is exact."""
    target = np.uint8 if after < 256 else np.uint16
    if before == after:
        return levels.astype(target)
    return ((levels.astype(np.uint32) * after + before // 2) // before).astype(target)


def without_alpha(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a planar frame without its alpha plane; the other planes stay bit for bit."""
    name = re.sub("^(yuv|gbr)a", r"\1", frame.format.name)
    return frame if name == frame.format.name else converted(frame, name, tags_of(frame))


def alpha_formats(codec: str) -> list[str]:
    """Return the pixel formats with transparency that an encoder supports."""
    if codec in ALPHA_FORMATS:
        return list(ALPHA_FORMATS[codec])
    return [f.name for f in av.Codec(codec, "w").video_formats or [] if has_alpha(f.name)]


def pixel_format(original: Any, codec: str, alpha: bool = False) -> str:
    """Choose the pixel format of an encoder that loses the least of the source.

    This is a format that holds the source exactly if the encoder supports it at this size.
    Otherwise it is the smallest of the formats that lose the least chroma resolution and, up to
    10 bits, bit depth.

    Args:
        original: The source's codec context.
        codec: FFmpeg's encoder name.
        alpha: Whether to keep transparency, which needs one of :func:`alpha_formats`.
    """
    formats = [f.name for f in av.Codec(codec, "w").video_formats or []]
    supported = alpha_formats(codec) if alpha else [f for f in formats if not has_alpha(f)]
    # An odd width or height needs full chroma resolution in that direction.
    odd_sides = (original.width % 2 and 1, original.height % 2 and 1)
    for name in _exact_formats(str(original.pix_fmt), alpha):
        if name in supported and not any(
            odd and size > 1 for odd, size in zip(odd_sides, _chroma_block(name), strict=True)
        ):
            return name
    source_format = av.VideoFormat(str(original.pix_fmt))
    block = (1, 1) if source_format.is_rgb else _chroma_block(source_format.name)
    wanted = tuple(1 if odd else size for odd, size in zip(odd_sides, block, strict=True))
    depth = max(component.bits for component in source_format.components)

    def loss(candidate: str) -> tuple[int, int, int, int]:
        bits = max(c.bits for c in av.VideoFormat(candidate).components)
        block = _chroma_block(candidate)
        coarser = sum(max(size - w, 0) for size, w in zip(block, wanted, strict=True))
        return (coarser, max(min(depth, 10) - bits, 0), bits, -block[0] * block[1])

    planar = [f for f in supported if f in SEMI_PLANAR or re.fullmatch(r"yuva?4\d\dp(\d+le)?", f)]
    return min(planar or supported, key=loss)


def _exact_formats(name: str, alpha: bool) -> list[str]:
    """Return the formats of encoders, with or without alpha, that hold all pixels of another."""
    stored = av.VideoFormat(name)
    if not (stored.is_rgb or stored.has_palette):
        planes = re.sub("^yuv[aj]?", "yuva" if alpha else "yuv", name)
        return [planes, *(one for one, other in SEMI_PLANAR.items() if other == planes)]
    planar = [re.sub("^gbra?p", "gbrap" if alpha else "gbrp", name)] if stored.is_planar else []
    if any(component.bits > 8 for component in stored.components):
        return planar or ["gbrap16le" if alpha else "gbrp16le"]
    return [*planar, "bgra" if alpha else "bgr0"]


def _chroma_block(name: str) -> tuple[int, int]:
    """Return the width and height in pixels of the block with one chroma sample; 2 x 2 for grey."""
    layout = av.VideoFormat(name, 64, 64)
    if len(layout.components) < 3 or layout.is_rgb:
        return (2, 2) if len(layout.components) < 3 else (1, 1)
    return 64 // layout.chroma_width(64), 64 // layout.chroma_height(64)
