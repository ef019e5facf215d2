"""Choose video encoders by codec and container, and convert frames to their pixel formats."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.error import FFmpegError

from faceswap.arrays import FloatImage, Rect
from faceswap.config import CODEC_SEAM, CodecName
from faceswap.errors import SettingsError
from faceswap.media import colorspace
from faceswap.media.frame import Frame, rounded
from faceswap.media.hdr import Light
from faceswap.media.reader import Decoded

# Codecs by output suffix; the first is the default.
CONTAINERS: dict[str, tuple[CodecName, ...]] = {
    ".mp4": ("h264", "h265", "av1"),
    ".m4v": ("h264", "h265"),
    ".mov": ("h264", "h265", "prores"),
    ".mkv": ("h264", "h265", "av1", "vp9", "ffv1", "prores"),
    ".webm": ("vp9", "av1"),
}
# The default of sources with transparency; other containers have no codec that keeps it.
TRANSPARENT_CODECS: dict[str, CodecName] = {".mov": "prores", ".mkv": "ffv1", ".webm": "vp9"}
# Written without audio. A PNG is one only if the source is an animated PNG; else it is a photo.
ANIMATIONS = frozenset({".gif", ".webp", ".apng", ".png"})
SOFTWARE: dict[CodecName, str] = {
    "h264": "libx264", "h265": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9",
    "prores": "prores_ks", "ffv1": "ffv1",
}  # fmt: skip
# Suffixes of FFmpeg's hardware encoders, such as h264_nvenc.
MAKERS = ("nvenc", "qsv", "videotoolbox", "amf")
HARDWARE: dict[CodecName, str] = {"h264": "h264", "h265": "hevc", "av1": "av1"}
GROUP = 60  # most frames from one key frame to the next; replacing a frame encodes those after it
ENCODERS = (*SOFTWARE.values(), *(f"{name}_{m}" for name in HARDWARE.values() for m in MAKERS))


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoder and its settings.

    Attributes:
        encoder: FFmpeg's encoder name.
        options: Encoder options as key-value pairs.
        pixel_format: Stored pixel format; if empty, the encoder's closest match to the source.
        upright: Whether frames are rotated before encoding, because the output has no rotation tag.
        alpha: Whether to keep the transparency of the source.
        deep: Whether RGB with 16 bits per channel keeps them in spite of ``pixel_format``.
    """

    encoder: str
    options: tuple[tuple[str, str], ...] = ()
    pixel_format: str = ""
    upright: bool = False
    alpha: bool = False
    deep: bool = False


LOSSLESS_RGB = Encoding("ffv1", (("level", "3"), ("g", "1")), "bgr0", upright=True)
TRANSPARENT = Encoding("prores_ks", (("profile", "4"), ("alpha_bits", "16")), "yuva444p10le")


# A codec from a plug-in or the caller. It maps the output suffix and the quality to an Encoding,
# and raises SettingsError if the container does not support it.
Codec = Callable[[str, int], Encoding]


def choose_encoding(
    suffix: str, codec: str | Codec, quality: int, hardware: bool, alpha: bool = False,
    light: Light | None = None,
) -> Encoding:  # fmt: skip
    """Choose the encoder for an output.

    Args:
        suffix: Output suffix in lower case, from CONTAINERS or ANIMATIONS; empty for an image
            sequence.
        codec: Name of a built-in or a plug-in, "auto" for the container's default, or an object.
        quality: Constant rate factor on x264's scale.
        hardware: Whether to use a hardware encoder if one opens.
        alpha: Whether the source is transparent. Then "auto" is a codec that keeps transparency if
            the container has one.
        light: What an HDR source says about its light; None if it is not HDR. With it, "auto" is
            H.265 if the container holds it, because few players show HDR in H.264.

    Returns:
        The encoding. It is lossless RGB for an animation, whose segments are converted at the end,
        and for an image sequence, which is written without an encoder. Its ``alpha`` tells whether
        transparency is kept.

    Raises:
        SettingsError: If the output format does not support the codec, or a plug-in of this name
            is missing or cannot be imported.
    """
    if suffix in ANIMATIONS or not suffix:
        if codec != "auto":
            output = f"{suffix} files" if suffix else "image sequences"
            raise SettingsError(f"--codec {codec} does not apply to {output}; leave it out")
        name = "bgra" if alpha else LOSSLESS_RGB.pixel_format
        deep = suffix in (".apng", ".png")
        return replace(LOSSLESS_RGB, pixel_format=name, alpha=alpha, deep=deep)
    if not isinstance(codec, str) or codec not in CODEC_SEAM:
        plugin: Codec = CODEC_SEAM.load(codec) if isinstance(codec, str) else codec
        chosen = plugin(suffix, quality)
        return replace(chosen, alpha=alpha and _keeps_alpha(chosen))
    supported = CONTAINERS[suffix]
    opaque_default = "h265" if light and "h265" in supported else supported[0]
    default = TRANSPARENT_CODECS.get(suffix, opaque_default) if alpha else opaque_default
    name = default if codec == "auto" else cast(CodecName, codec)
    if name not in supported:
        suffixes = ", ".join(known for known, codecs in CONTAINERS.items() if name in codecs)
        raise SettingsError(
            f"{suffix} files do not support {name}, only {', '.join(supported)}; "
            f"use {suffixes} for {name}"
        )
    encoder = SOFTWARE[name]
    if hardware and name in HARDWARE:
        candidates = (f"{HARDWARE[name]}_{maker}" for maker in MAKERS)
        encoder = next((one for one in candidates if opens(one)), encoder)
    _quieten(encoder)
    options = _options(encoder, quality)
    for key, value in (light.options(encoder) if light else {}).items():
        options[key] = f"{options[key]}:{value}" if key in options else value
    chosen = Encoding(encoder, tuple(options.items()))
    return replace(chosen, alpha=alpha and name in TRANSPARENT_CODECS.values())


def opaque(encoding: Encoding) -> Encoding:
    """Return the encoding of a companion without transparency, such as the matte."""
    name = "bgr0" if encoding.pixel_format == "bgra" else encoding.pixel_format
    return replace(encoding, pixel_format=name, alpha=False)


def _keeps_alpha(encoding: Encoding) -> bool:
    """Return whether the encoding of a plug-in keeps transparency."""
    if encoding.pixel_format:
        return colorspace.has_alpha(encoding.pixel_format)
    if encoding.encoder not in av.codecs_available:  # add_video says so
        return False
    return bool(colorspace.alpha_formats(encoding.encoder))


def _options(encoder: str, quality: int) -> dict[str, str]:
    """Return options that match x264's quality at this constant rate factor.

    The conversions follow comparisons by the encoders' developers and are approximate. ProRes and
    FFV1 have a fixed quality.
    """
    crf, group = str(quality), {"g": str(GROUP)}
    if encoder.endswith(MAKERS):
        maker = encoder.partition("_")[2]
        return {
            "nvenc": {"rc": "vbr", "cq": crf, "preset": "p5"},
            "qsv": {"global_quality": crf},
            "videotoolbox": {"q:v": str(max(100 - 2 * quality, 1))},
            "amf": {"rc": "cqp", "qp_i": crf, "qp_p": crf},
        }[maker] | group
    return {
        "libx264": {"crf": crf, "preset": "veryfast", **group},
        "libx265": {
            "crf": str(min(quality + 3, 51)), "preset": "veryfast",
            "x265-params": "log-level=none:open-gop=0", **group,
        },
        "libsvtav1": {"crf": str(min(round(quality * 1.5), 63)), "preset": "8", **group},
        "libvpx-vp9": {
            "crf": str(min(round(quality * 4 / 3), 63)), "b:v": "0", "deadline": "good",
            "cpu-used": "5", "row-mt": "1", **group,
        },
        "prores_ks": {"profile": "3", "vendor": "apl0"},
        "ffv1": {"level": "3", "g": "1", "slicecrc": "1"},
    }[encoder]  # fmt: skip


def _quieten(encoder: str) -> None:
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # otherwise it prints a page of information


@contextmanager
def keeping_priority() -> Iterator[None]:
    """Keep the scheduling of this process while an encoder opens in the block.

    As root, SVT-AV1 gives the thread that opens it the highest real-time priority, which threads
    and processes inherit that start later. Nothing else on the machine gets a core then.
    """
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            for thread in Path("/proc/self/task").iterdir():
                with suppress(OSError):  # the thread has ended
                    os.sched_setscheduler(int(thread.name), policy, parameters)


@cache
def opens(encoder: str) -> bool:
    """Return whether an encoder opens here; FFmpeg also lists those whose hardware is missing."""
    _quieten(encoder)
    try:
        context: Any = av.CodecContext.create(encoder, "w")
        context.options = _options(encoder, 18)
        pixel_format = "yuv422p10le" if encoder == "prores_ks" else "yuv420p"
        context.width, context.height, context.pix_fmt = 256, 256, pixel_format
        context.time_base = Fraction(1, 25)
        with keeping_priority():
            context.open()
    except (FFmpegError, OSError, ValueError):
        return False
    return True


def add_video(out: Any, video: Any, encoding: Encoding) -> Any:
    """Add a video stream with the source's size, pixel aspect ratio, rate, time base and colours.

    Args:
        out: The output container.
        video: The source's video stream.
        encoding: The encoder and its settings.

    Returns:
        The new stream.

    Raises:
        SettingsError: If the encoder that a plug-in chose cannot be used in this container.
    """
    original = video.codec_context
    name = encoding.pixel_format
    if not name or (encoding.deep and _is_deep_rgb(original)):
        name = colorspace.pixel_format(original, encoding.encoder, encoding.alpha)
    options = dict(encoding.options)
    if encoding.encoder == "prores_ks" and "444" in name:
        options["profile"] = "4"
    if encoding.encoder == "libvpx-vp9" and encoding.alpha:
        options["auto-alt-ref"] = "0"  # libvpx refuses it for transparent video
    try:
        stream = out.add_stream(encoding.encoder, rate=video.average_rate, options=options)
    except ValueError as error:  # only the codec of a plug-in can be unsuitable
        raise SettingsError(
            f"the plug-in's encoder {encoding.encoder} cannot be used in this container: {error}; "
            "choose another codec or output suffix"
        ) from error
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = original.width, original.height, name
    context.time_base = stream.time_base = video.time_base
    if video.sample_aspect_ratio:
        context.sample_aspect_ratio = video.sample_aspect_ratio
    for tag, value in tags_for(video, name, encoding.encoder).items():
        setattr(context, tag, value)
    if encoding.encoder in ("libx265", "hevc_nvenc") and out.format.name in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # Apple's players require this tag
    return stream


def _is_deep_rgb(original: Any) -> bool:
    stored = av.VideoFormat(original.pix_fmt)
    return bool(stored.is_rgb) and stored.components[0].bits > 8


def shown_for(native: Any, video: Any, before: int | None) -> int:
    """Return how long a frame is shown if it is the last one, in its time base; 0 if unknown.

    Packet durations follow decode order. With B-frames the last packet's duration may belong to an
    earlier gap, so clamp it to the end of the stream.

    Args:
        native: The decoded frame.
        video: The stream that it comes from.
        before: Timestamp of the previous frame; None if unknown.
    """
    length = int(native.duration or 0)
    if not video.duration or not video.average_rate:
        return length
    rest = int((video.start_time or 0) + video.duration - native.pts)
    if rest >= length - 1 / (video.average_rate * native.time_base):
        return length
    return rest if rest > 0 else min(length, native.pts - before if before is not None else length)


def tags_for(video: Any, pixel_format: str, encoder: str) -> colorspace.Tags:
    """Return the output's colour tags: the source's, or BT.709 in studio range if RGB becomes YUV.

    ProRes is always tagged as studio range, because it cannot signal full range.

    Args:
        video: The source's video stream.
        pixel_format: The encoder's pixel format.
        encoder: FFmpeg's encoder name.
    """
    tags = colorspace.tags_of(video.codec_context)
    if encoder == "prores_ks":
        tags |= {"color_range": colorspace.STUDIO_RANGE}
    if colorspace.is_rgb(video.codec_context.pix_fmt) and not colorspace.is_rgb(pixel_format):
        tags |= {"colorspace": colorspace.BT709, "color_range": colorspace.STUDIO_RANGE}
    return tags


def stored_frame(frame: Frame, pixel_format: str, tags: colorspace.Tags, upright: bool) -> Any:
    """Return a frame in the encoder's pixel format.

    If the source has this format and colour range, an unchanged frame is returned as decoded, and
    the unchanged pixels of planar YUV are copied bit for bit.

    Args:
        frame: The frame with its changes; its pixels are :class:`Decoded`.
        pixel_format: The encoder's pixel format.
        tags: The output's colour tags from :func:`tags_for`.
        upright: Whether to rotate the pixels upright, see :class:`Encoding`.
    """
    assert isinstance(frame.pixels, Decoded), "not a video frame"
    old, turns = frame.pixels.frame, frame.pixels.turns
    if frame.layer is not None and not upright:
        rgba = np.ascontiguousarray(np.rot90(frame.layer, -turns))
        return colorspace.converted(_stored_layer(rgba, frame.pixels), pixel_format, tags)
    alpha = frame.pixels.alpha() if colorspace.has_alpha(pixel_format) else None
    if upright:
        height, width = frame.shape
        deep = any(part.bits > 8 for part in av.VideoFormat(pixel_format).components)
        image = frame.rgb_float((0, 0, width, height)) if deep else frame.image
        new = colorspace.converted(colorspace.stored(image, old), pixel_format, colorspace.NO_TAGS)
    else:
        new = _stored_colors(frame, pixel_format, tags)
    if alpha is None or new is old:
        return new
    alpha = frame.with_solid(alpha)
    return colorspace.with_alpha(new, alpha if upright else np.rot90(alpha, -turns))


def _stored_layer(rgba: FloatImage, original: Decoded) -> av.VideoFrame:
    """Return RGBA (H, W, 4), 0..255, with the colours of the source's colour space."""
    if original.view is None:
        return av.VideoFrame.from_ndarray(rounded(rgba), format="rgba")
    colors = original.coded(rgba[..., :3])
    levels = np.clip(np.rint(np.dstack([colors, rgba[..., 3]]) * 257), 0, 65535).astype(np.uint16)
    return av.VideoFrame.from_ndarray(levels, format="gbrap16le")


def _stored_colors(frame: Frame, pixel_format: str, tags: colorspace.Tags) -> av.VideoFrame:
    """Return a frame in the encoder's pixel format; its alpha may be opaque."""
    assert isinstance(frame.pixels, Decoded)
    old, turns = frame.pixels.frame, frame.pixels.turns
    if not colorspace.has_alpha(pixel_format):
        old = colorspace.without_alpha(old)
    source_tags, same_format = colorspace.tags_of(old), old.format.name == pixel_format
    if not colorspace.is_rgb(old.format.name):
        if (source_tags["color_range"], tags["color_range"]) == (
            colorspace.FULL_RANGE,
            colorspace.STUDIO_RANGE,
        ):
            source_tags |= {"color_range": colorspace.STUDIO_RANGE}
            same_format = False
        tags = source_tags
    if frame.is_untouched:
        return old if same_format else colorspace.converted(old, pixel_format, tags)
    if same_format and colorspace.is_planar(old):
        rects = [colorspace.turned(rect, -turns, *frame.shape) for rect, _ in frame.changes]
        darker = replace(frame, luma=None)

        def stored_rgb(rect: Rect) -> Any:
            upright = colorspace.turned(rect, turns, old.height, old.width)
            return np.rot90(_coded(darker, upright), -turns)

        new = colorspace.patched(stored_rgb, rects, old)
        if frame.luma is not None:
            colorspace.brighten(new, np.rot90(frame.luma, -turns), frame.pixels.view)
        return new
    height, width = frame.shape
    whole = np.rot90(_coded(frame, (0, 0, width, height)), -turns)
    return colorspace.converted(colorspace.stored(whole, old), pixel_format, tags)


def _coded(frame: Frame, rect: Rect) -> FloatImage:
    """Return the pixels of a rect in the source's colour space, scaled to 0..255, (H, W, 3)."""
    assert isinstance(frame.pixels, Decoded)
    levels = frame.rgb_float(rect)
    return levels if frame.is_data else frame.pixels.coded(levels)
