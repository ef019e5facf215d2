"""How pictures are encoded: codecs by name and container, one scale of quality, stored frames."""

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from faceswap.config import CodecName
from faceswap.errors import SettingsError
from faceswap.media import colorspace
from faceswap.media.frame import Frame
from faceswap.media.reader import Decoded
from faceswap.types import Rect

# Codecs by the output's suffix; the first is its default.
CONTAINERS: dict[str, tuple[CodecName, ...]] = {
    ".mp4": ("h264", "h265", "av1"),
    ".m4v": ("h264", "h265"),
    ".mov": ("h264", "h265", "prores"),
    ".mkv": ("h264", "h265", "av1", "vp9", "ffv1", "prores"),
    ".webm": ("vp9", "av1"),
}
ANIMATIONS = frozenset({".gif", ".webp"})  # short clips without sound
SOFTWARE: dict[CodecName, str] = {
    "h264": "libx264", "h265": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9",
    "prores": "prores_ks", "ffv1": "ffv1",
}  # fmt: skip
MAKERS = ("nvenc", "qsv", "videotoolbox", "amf")  # of encoders in hardware
HARDWARE: dict[CodecName, str] = {"h264": "h264", "h265": "hevc", "av1": "av1"}
ENCODERS = (*SOFTWARE.values(), *(f"{name}_{m}" for name in HARDWARE.values() for m in MAKERS))


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoder, ready to be opened.

    Attributes:
        encoder: FFmpeg's name.
        options: Its options.
        pixel_format: How pictures are stored; empty: as near to the source as the encoder can.
        upright: Whether pictures are turned, for formats that cannot say that a player should.
    """

    encoder: str
    options: tuple[tuple[str, str], ...] = ()
    pixel_format: str = ""
    upright: bool = False


LOSSLESS_RGB = Encoding("ffv1", (("level", "3"), ("g", "1")), "bgr0", upright=True)
TRANSPARENT = Encoding("prores_ks", (("profile", "4"), ("alpha_bits", "16")), "yuva444p10le")


def choose_encoding(suffix: str, codec: CodecName, quality: int, hardware: bool) -> Encoding:
    """The encoder for an output.

    Args:
        suffix: Of the output, in small letters.
        codec: A codec, or "auto" for the container's own.
        quality: On the scale of x264's constant rate factor.
        hardware: Whether an encoder in hardware is used if one opens.

    Raises:
        SettingsError: If the container does not take the codec.
    """
    if suffix in ANIMATIONS or not suffix:
        if codec != "auto":
            where = f"a {suffix} file" if suffix else "a folder of pictures"
            raise SettingsError(f"{where} has no choice of codec; leave --codec {codec} out")
        return LOSSLESS_RGB
    known = CONTAINERS[suffix]
    if codec == "auto":
        codec = known[0]
    if codec not in known:
        holders = ", ".join(name for name, codecs in CONTAINERS.items() if codec in codecs)
        raise SettingsError(
            f"a {suffix} file is not written with {codec}, only with {', '.join(known)}; "
            f"{codec} goes into {holders}"
        )
    encoder = SOFTWARE[codec]
    if hardware and codec in HARDWARE:
        usable = (f"{HARDWARE[codec]}_{maker}" for maker in MAKERS)
        encoder = next((name for name in usable if opens(name)), encoder)
    _quieten(encoder)
    return Encoding(encoder, tuple(_options(encoder, quality).items()))


def _options(encoder: str, quality: int) -> dict[str, str]:
    """What gives about the same quality with each encoder, by its makers' own comparisons."""
    crf = str(quality)
    if encoder.endswith(MAKERS):
        maker = encoder.partition("_")[2]
        return {
            "nvenc": {"rc": "vbr", "cq": crf, "preset": "p5"},
            "qsv": {"global_quality": crf},
            "videotoolbox": {"q:v": str(100 - 2 * quality)},
            "amf": {"rc": "cqp", "qp_i": crf, "qp_p": crf},
        }[maker]
    return {
        "libx264": {"crf": crf, "preset": "veryfast"},
        "libx265": {
            "crf": str(min(quality + 3, 51)), "preset": "veryfast", "x265-params": "log-level=none",
        },
        "libsvtav1": {"crf": str(min(round(quality * 1.5), 63)), "preset": "8"},
        "libvpx-vp9": {
            "crf": str(round(quality * 4 / 3)), "b:v": "0", "deadline": "good", "cpu-used": "5",
            "row-mt": "1",
        },
        "prores_ks": {"profile": "3", "vendor": "apl0"},
        "ffv1": {"level": "3", "g": "1", "slicecrc": "1"},
    }[encoder]  # fmt: skip


def _quieten(encoder: str) -> None:
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # else it prints a page about itself


@cache
def opens(encoder: str) -> bool:
    """Whether an encoder that FFmpeg lists can be used here: only opening it tells."""
    _quieten(encoder)
    try:
        context: Any = av.CodecContext.create(encoder, "w")
        context.options = _options(encoder, 18)
        form = "yuv422p10le" if encoder == "prores_ks" else "yuv420p"
        context.width, context.height, context.pix_fmt = 256, 256, form
        context.time_base = Fraction(1, 25)
        context.open()
    except (FFmpegError, OSError, ValueError):
        return False
    return True


def add_video(out: Any, video: Any, encoding: Encoding) -> Any:
    """Add a stream that is encoded with the source's size, shape, rate and colour tags.

    Args:
        out: The container.
        video: The source's video stream.
        encoding: How.
    """
    original = video.codec_context
    name = encoding.pixel_format or colorspace.pixel_format(original, encoding.encoder)
    options = dict(encoding.options)
    if encoding.encoder == "prores_ks" and "444" in name:
        options["profile"] = "4"
    stream = out.add_stream(encoding.encoder, rate=video.average_rate, options=options)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = original.width, original.height, name
    context.time_base = stream.time_base = video.time_base
    if video.sample_aspect_ratio:
        context.sample_aspect_ratio = video.sample_aspect_ratio
    for tag, value in tags_for(video, name, encoding.encoder).items():
        setattr(context, tag, value)
    if encoding.encoder in ("libx265", "hevc_nvenc") and out.format.name in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # the form that players of Apple's accept
    return stream


def shown_for(native: Any, video: Any, before: int | None) -> int:
    """How long a frame is shown if it is the last, in units of its time; 0 if unknown.

    A file tells how far packets are apart as they are decoded: where frames come in another order,
    the last can seem to last as long as a pause shortly before it, far beyond the video's end.

    Args:
        native: The decoded frame.
        video: Its stream.
        before: Time of the frame before; None if unknown.
    """
    length = int(native.duration or 0)
    if not video.duration or not video.average_rate:
        return length
    rest = int((video.start_time or 0) + video.duration - native.pts)
    if rest >= length - 1 / (video.average_rate * native.time_base):
        return length
    return rest if rest > 0 else min(length, native.pts - before if before is not None else length)


def tags_for(video: Any, pixel_format: str, encoder: str) -> colorspace.Tags:
    """The colour tags of the output: the source's, unless RGB becomes YUV.

    ProRes cannot say that it uses the full range: all players take it for studio range.
    """
    tags = colorspace.tags_of(video.codec_context)
    if encoder == "prores_ks":
        tags |= {"color_range": colorspace.STUDIO_RANGE}
    if colorspace.is_rgb(video.codec_context.pix_fmt) and not colorspace.is_rgb(pixel_format):
        tags |= {"colorspace": colorspace.BT709, "color_range": colorspace.STUDIO_RANGE}
    return tags


def stored_frame(frame: Frame, pixel_format: str, tags: colorspace.Tags, upright: bool) -> Any:
    """A frame as an encoder takes it; where nobody changed it, as it was decoded."""
    assert isinstance(frame.pixels, Decoded), "a frame of a video"
    old, turns = frame.pixels.frame, frame.pixels.turns
    if upright:
        return av.VideoFrame.from_ndarray(frame.image, "rgb24").reformat(format=pixel_format)
    if frame.layer is not None:
        rgba = np.ascontiguousarray(np.rot90(frame.layer, -turns))
        return colorspace.converted(
            av.VideoFrame.from_ndarray(rgba, format="rgba"), pixel_format, tags
        )
    own, same = colorspace.tags_of(old), old.format.name == pixel_format
    if not colorspace.is_rgb(old.format.name):
        if (own["color_range"], tags["color_range"]) == (
            colorspace.FULL_RANGE,
            colorspace.STUDIO_RANGE,
        ):
            own, same = own | {"color_range": colorspace.STUDIO_RANGE}, False
        tags = own
    if not frame.changes:
        return old if same else colorspace.converted(old, pixel_format, tags)
    if same and colorspace.is_planar_yuv(old):
        rects = [colorspace.turned(rect, -turns, *frame.shape) for rect, _ in frame.changes]

        def light(rect: Rect) -> Any:
            return np.rot90(
                frame.rgb_float(colorspace.turned(rect, turns, old.height, old.width)), -turns
            )

        return colorspace.patched(light, rects, old)
    height, width = frame.shape
    whole = np.rot90(frame.rgb_float((0, 0, width, height)), -turns)
    return colorspace.converted(
        colorspace.stored(whole, colorspace.is_deep(old)), pixel_format, tags
    )
