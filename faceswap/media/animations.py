"""Read animated WebP files, and write animated GIF, PNG and WebP files.

FFmpeg reads GIF and APNG, but of a WebP file only a still image, so Pillow reads these.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np

from faceswap.errors import InputError
from faceswap.media import colorspace
from faceswap.media.frame import check_pixels
from faceswap.media.muxer import Segment
from faceswap.media.photos import opened_photo
from faceswap.media.reader import PLAIN

log = logging.getLogger(__name__)

MILLI = Fraction(1, 1000)  # seconds; the unit of the times in a WebP file
TIME_BASE = Fraction(1, 10_000)  # of the frames that are read; MOV would not keep a coarser one
UNTIMED_DELAY = 100  # milliseconds for which browsers show a frame without a duration
FOREVER = 0  # number of plays
# Muxers and encoders by suffix.
WRITERS = {
    ".gif": ("gif", "gif"), ".webp": ("webp", "libwebp_anim"),
    ".apng": ("apng", "apng"), ".png": ("apng", "apng"),
}  # fmt: skip


def read_webp(path: Path) -> Iterator[av.VideoFrame]:
    """Yield the frames of an animated WebP as RGBA, with their times and durations.

    Frames after damage are left out with a warning.

    Raises:
        InputError: If the first frame cannot be read, or is too large.
    """
    index, time = 0, 0
    try:
        with opened_photo(path) as animation:
            check_pixels(*animation.size)
            for index in range(getattr(animation, "n_frames", 1)):
                animation.seek(index)
                native = av.VideoFrame.from_ndarray(
                    np.asarray(animation.convert("RGBA")), format="rgba"
                )
                length = int(animation.info.get("duration", 0)) or UNTIMED_DELAY
                native.pts, native.duration = (int(t * MILLI / TIME_BASE) for t in (time, length))
                native.time_base = TIME_BASE
                time += length
                yield native
    except (EOFError, OSError, ValueError) as error:
        if not index:
            raise InputError(f"{path} cannot be read: {error}") from error
        log.warning("%s is damaged; only the frames before the damage are read: %s", path, error)


def plays_of(path: Path) -> int:
    """Return how often an animation is played; FOREVER if it never ends.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with opened_photo(path) as animation:
            loops = animation.info.get("loop")
            is_gif = animation.format == "GIF"
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if is_gif:  # which stores how often it is repeated, or nothing
        return 1 if loops is None else loops and loops + 1
    return int(loops or FOREVER)


@contextmanager
def one_frame_video(
    width: int, height: int, pixel_format: str, frame: Fraction, time_base: Fraction
) -> Iterator[tuple[Any, Any]]:
    """Open a video in memory that describes footage which FFmpeg does not read.

    Args:
        width: In pixels.
        height: In pixels.
        pixel_format: The stored pixel format; one that PNG supports.
        frame: Duration of the only frame, in seconds.
        time_base: Seconds per unit of time.

    Yields:
        The container and its video stream.
    """
    file = BytesIO()
    with av.open(file, "w", format="mov") as out:  # NUT would not tell the rate
        stream: Any = out.add_stream("png", rate=1 / frame)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        only = av.VideoFrame(width, height, pixel_format)
        only.pts, only.time_base = 0, time_base
        for packet in [*stream.encode(only), *stream.encode(None)]:
            packet.duration = round(frame / time_base)
            out.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        yield container, container.streams.video[0]


def write_animation(
    segments: list[Segment], temporary: Path, video: Any, quality: int, plays: int = FOREVER
) -> None:
    """Write segments of lossless RGB as an animated GIF, PNG or WebP.

    Each frame of a GIF gets its own palette of 256 colours; a pixel is transparent in it if its
    alpha is less than half.

    Args:
        segments: All segments, in order.
        temporary: The file to write; its suffix sets the format.
        video: The source's video stream.
        quality: Quality of a WebP, on the scale of x264's constant rate factor; 0 is lossless.
        plays: How often the animation is played.
    """
    suffix, time_base = temporary.suffix.lower(), Fraction(video.time_base)
    container, encoder = WRITERS[suffix]
    last = segments[-1].last * time_base  # seconds
    repeats = {FOREVER: 0, 1: -1}.get(plays, plays - 1)  # of a GIF; -1 writes none
    muxing = {
        "gif": {"loop": str(repeats), "final_delay": str(round(100 * last))},
        "apng": {"plays": str(plays), "final_delay": str(last.limit_denominator(65535))},
        "webp": {"loop": str(plays)},
    }[container]
    coding = {
        "gif": {}, "apng": {"pred": "mixed"},
        "webp": {"quality": str(max(100 - quality, 1)), "lossless": str(int(quality == 0))},
    }[container]  # fmt: skip
    with av.open(f"file:{temporary}", "w", format=container, options=muxing) as out:
        stream: Any = out.add_stream(encoder, rate=video.average_rate, options=coding)
        first, graph, frame = segments[0].times[0], None, None
        for frame in _decode_segments(segments, time_base):
            frame.pts -= first
            if not frame.pts:
                stream.width, stream.height = frame.width, frame.height
                stream.time_base = stream.codec_context.time_base = video.time_base
                stream.pix_fmt = _pixel_format(container, frame)
                graph = _build_palette_graph(frame, video) if container == "gif" else None
            if graph:
                graph.push(frame)
                out.mux(stream.encode(graph.pull()))
            else:
                out.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode(None))
    if container == "webp":
        _set_length(temporary, round((segments[-1].times[-1] - first) * time_base / MILLI),
                    round(last / MILLI))  # fmt: skip


def _pixel_format(container: str, frame: av.VideoFrame) -> str:
    """Return the pixel format of an animation's encoder for frames like this one."""
    if container != "apng":
        return {"gif": "pal8", "webp": "bgra"}[container]
    return png_format(colorspace.is_deep(frame), colorspace.has_alpha(frame.format.name))


def png_format(deep: bool, alpha: bool) -> str:
    """Return the pixel format of FFmpeg's PNG encoders with 8 or 16 bits, with or without alpha."""
    if deep:
        return "rgba64be" if alpha else "rgb48be"
    return "rgba" if alpha else "rgb24"


def _decode_segments(segments: list[Segment], time_base: Fraction) -> Iterator[Any]:
    for segment in segments:
        with av.open(f"file:{segment.path}", options=PLAIN) as opened:
            container: Any = opened
            for frame, time in zip(container.decode(video=0), segment.times, strict=True):
                frame.pts, frame.time_base = time, time_base
                yield frame


def _build_palette_graph(frame: Any, video: Any) -> Any:
    """Build a filter graph that computes and applies the best 256-colour palette of each frame."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=video.time_base
    )
    transparent = int(colorspace.has_alpha(frame.format.name))
    split = graph.add("split")
    palette = graph.add("palettegen", f"stats_mode=single:reserve_transparent={transparent}")
    mapped = graph.add("paletteuse", "new=1")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(mapped, 1, 0)
    palette.link_to(mapped, 0, 1)
    mapped.link_to(sink)
    graph.configure()
    return graph


def _set_length(path: Path, last: int, duration: int) -> None:
    """Set the duration of the last frame of a WebP, which the encoder takes for the mean of all.

    It also merges frames that are equal, so the last one may begin earlier.

    Args:
        path: The file.
        last: Time of the last frame in milliseconds.
        duration: Its duration in milliseconds.
    """
    data = bytearray(path.read_bytes())
    at, before, found = 12, 0, None  # after the RIFF header
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"ANMF":
            if found is not None:
                before += int.from_bytes(data[found : found + 3], "little")
            found = at + 20  # after the header, the position and the size
        at += 8 + size + size % 2
    if found is not None:
        data[found : found + 3] = (last + duration - before).to_bytes(3, "little")
        path.write_bytes(data)
