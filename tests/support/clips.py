"""Write small clips with everything a container can hold, and read them back with PyAV."""

import struct
from contextlib import contextmanager
from fractions import Fraction
from functools import cache

import av
import numpy as np
from PIL import Image

from faceswap.files import temporary_beside
from faceswap.media import reader, segments, writers
from faceswap.media.codecs import choose_encoding
from faceswap.media.footage import VideoFile
from faceswap.media.photos import PHOTO_SUFFIXES
from faceswap.media.writers import StreamTarget
from faceswap.provenance.credentials import ModelRecord
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import Signer


def moving(image, count):
    """Return frames in which an image moves to the right."""
    return [np.roll(image, 3 * number, axis=1) for number in range(count)]


def pixels(path):
    """Return the frames of a video, or the PNGs in a folder by name, (H, W, 3) each."""
    if path.is_dir():
        return [np.asarray(Image.open(file)) for file in sorted(path.glob("*.png"))]
    return [frame.image for frame in reader.read_video(path)]


def differing(one, other):
    """Return the places of the frames that differ."""
    pairs = zip(one, other, strict=True)
    return [number for number, (a, b) in enumerate(pairs) if (a != b).any()]


STYLES = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, "
    b"PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, "
    b"StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, "
    b"MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,"
    b"100,0,0,1,1,0,2,10,10,10,1\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, "
    b"MarginL, MarginR, MarginV, Effect, Text\r\n"
)
RICH_TIMES = [1000 + t for t in (0, 40, 75, 200, 210, 333, 500, 540, 580, 620, 660, 700, 780)]


PQ, HLG = 16, 18  # transfer characteristics of ITU-T H.273
MASTERING = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    ":max-cll=1000,400"
)
TO_REC2020 = np.array([  # from Rec.709, ITU-R BT.2087
    [0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956],
])  # fmt: skip
REC2020_LUMA = np.array([0.2627, 0.6780, 0.0593])


def pq_of(nits):
    """Return the PQ signal of luminances in cd/m2 (SMPTE ST 2084)."""
    power = (np.maximum(nits, 0) / 10000) ** (2610 / 16384)
    signal = (3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)
    return signal ** (2523 / 32)


def hlg_of(nits):
    """Return the HLG signal of the light of a display of 1000 cd/m2, (..., 3) (ITU-R BT.2100)."""
    luminance = np.maximum(nits @ REC2020_LUMA, 1e-9)[..., np.newaxis]
    scene = np.maximum(nits, 0) / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def hdr_codes(image, transfer):
    """Return Y'CbCr with 10 bits in studio range of an sRGB image (H, W, 3), 255 being 203 cd/m2.

    Levels above 255 are brighter than that white.
    """
    levels = np.maximum(image / 255, 0)
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    nits = 203 * linear @ TO_REC2020.T
    rgb = pq_of(nits) if transfer == PQ else hlg_of(nits)
    luma = rgb @ REC2020_LUMA
    blue, red = (rgb[..., 2] - luma) / 1.8814, (rgb[..., 0] - luma) / 1.4746
    planes = [64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red]
    return np.rint(planes).clip(4, 1019).astype(np.uint16)


def hdr_clip(path, transfer, images=None, codec="ffv1", params="", **other_tags):
    """Write a clip in PQ or HLG.

    Args:
        path: The file.
        transfer: PQ or HLG.
        images: sRGB images (H, W, 3) of levels that may exceed 255; black if None.
        codec: An encoder.
        params: More parameters of x265.
        other_tags: Colour tags that differ from those of BT.2020 in studio range.
    """
    images = [np.zeros((48, 64, 3))] if images is None else images
    name = "yuv420p10le" if codec == "libx265" else "yuv444p10le"
    options = {
        "libx265": {"x265-params": f"log-level=none:lossless=1{params and ':' + params}"},
        "prores_ks": {"profile": "4", "bits_per_mb": "8000"},
    }
    tags = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    tags |= other_tags
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, options=options.get(codec))
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = name
        for tag, value in tags.items():
            setattr(video.codec_context, tag, value)
        for number, image in enumerate(images):
            planes = hdr_codes(image, transfer)
            frame = av.VideoFrame(video.width, video.height, name)
            for plane, codes in zip(frame.planes, planes, strict=True):
                if plane.width < video.width:  # chroma lies left, between two lines
                    codes = (codes[::2, ::2] + codes[1::2, ::2] + 1) // 2
                rows = np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)
                rows[: plane.height, : plane.width] = codes
            for tag, value in tags.items():
                setattr(frame, tag, value)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def lossless_clip(path, images, pixel_format="bgr0"):
    """Write images of 0..255, with 8 bits or, as gbrp16le, with 16."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = pixel_format
        for number, image in enumerate(images):
            if pixel_format == "bgr0":
                levels = np.rint(image).clip(0, 255).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(levels, format="rgb24").reformat(format="bgr0")
            else:
                levels = np.rint(image * 257).clip(0, 65535).astype(np.uint16)
                frame = av.VideoFrame.from_ndarray(levels, format=pixel_format)
            frame.pts = number
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def rich_clip(path, *, times=RICH_TIMES, size=(64, 48), pix_fmt="yuv420p", rotation=0):
    """Write a clip with a variable frame rate, B-frames, two audio tracks, subtitles and chapters.

    The clip starts at 1 s.

    Args:
        path: An .mp4 or .mov file.
        times: Time stamps of the frames in milliseconds.
        size: Width and height.
        pix_fmt: Stored pixel format.
        rotation: Display rotation in degrees.
    """
    milli = Fraction(1, 1000)
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "A title"
        chapters = [(1000, 1250, "One"), (1250, 1600, "Two"), (1600, 1800, "Three")]
        out.set_chapters(
            [
                {"id": n, "start": a, "end": b, "time_base": milli, "metadata": {"title": title}}
                for n, (a, b, title) in enumerate(chapters)
            ]
        )
        video = out.add_stream("libx264", rate=25, options={"bf": "3", "g": "30", "crf": "10"})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.time_base = video.codec_context.time_base = milli
        if rotation:
            video.set_display_rotation(rotation)
        audio_tracks = [out.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
        subtitles = out.add_stream("mov_text")
        subtitles.time_base = milli
        subtitles.codec_context.subtitle_header = STYLES
        for track, language in zip((*audio_tracks, subtitles), ("eng", "fra", "ita"), strict=True):
            track.metadata["language"] = language
        for number, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            following = times[number + 1] if number + 1 < len(times) else pts + 40
            frame.pts, frame.time_base, frame.duration = pts, milli, following - pts
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for pitch, track in enumerate(audio_tracks, start=1):
            wave = np.sin(np.arange(38400) * 0.05 * pitch) * 9000
            chunk = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            chunk.sample_rate, chunk.pts = 48000, 48000
            out.mux(track.encode(chunk))
            out.mux(track.encode(None))
        for number in range(3):
            text = f"word {number}".encode()
            packet = av.Packet(struct.pack(">H", len(text)) + text)
            packet.pts = packet.dts = 1000 + 250 * number
            packet.duration, packet.time_base, packet.stream = 200, milli, subtitles
            out.mux(packet)
    return path


def packets(path, kind=None):
    """Return bytes, pts, dts and duration of each packet by stream, for one stream type or all."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind or kind is None]
        found = {stream.index: [] for stream in streams}
        for packet in container.demux(streams):
            if packet.dts is not None:
                base = packet.time_base
                pts = None if packet.pts is None else packet.pts * base
                facts = (bytes(packet), pts, packet.dts * base, packet.duration * base)
                found[packet.stream.index].append(facts)
    return list(found.values())


def tags(path):
    """Return the tags of the file and the language of each stream."""
    with av.open(str(path)) as container:
        file_tags = {k: v for k, v in container.metadata.items() if k in ("title", "comment")}
        return file_tags, [s.metadata.get("language") for s in container.streams]


def chapters(path):
    """Return start, end and title of each chapter."""
    with av.open(str(path)) as container:
        return [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]


def shown(path):
    """Return every frame as upright RGB."""
    return [frame.image for frame in reader.read_video(path)]


def noise(one, other):
    """Return the largest mean difference, of 255, between the frames of two videos."""
    return max(
        float(np.abs(a.astype(int) - b).mean())
        for a, b in zip(shown(one), shown(other), strict=True)
    )


def segment_length(monkeypatch, frames):
    """Set the number of frames per segment."""
    for module in (segments, writers):
        monkeypatch.setattr(module, "SEGMENT_FRAMES", frames)


def pass_on(
    source, target, *, codec="auto", quality=18, change=None, frames=None, light=None, **options
):
    """Rewrite a video segment by segment, with or without changes.

    Args:
        source: The video.
        target: The output.
        codec: The ``codec`` setting.
        quality: The ``quality`` setting.
        change: Function that returns the changed frame.
        frames: Frames to write instead of all frames of the source.
        light: What the source says about its light.
        options: Further arguments of ``open_video``.
    """
    suffix = target.suffix.lower()
    encoding = choose_encoding(suffix, codec, quality, hardware=False, light=light)
    sound = suffix in (".mp4", ".mov", ".m4v", ".mkv", ".webm")
    images = None if suffix else (lambda frame: f"{frame.index + 1:06d}.png")
    targets = {"video": StreamTarget(target, unmarked, encoding, sound, quality, images)}
    folder = options.pop("folder", target.with_name(f".{target.name}.parts"))
    with writers.open_video(targets, VideoFile(source), folder, **options) as output:
        for frame in frames or reader.read_video(source):
            output.write({"video": change(frame) if change else frame})
    return target


RATE = 25


def picture(number, width, height):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [x * 255 / width, y * 255 / height, 128 + 100 * np.sin((x + y) / 9 + number / 3)], axis=-1
    ).astype(np.uint8)


def make_clip(
    path, *, size=(64, 48), times=range(12), time_base=Fraction(1, RATE), pix_fmt="yuv420p",
    codec="libx264", rotation=0, audio=1, options=None,
):  # fmt: skip
    """Write a test clip; ``times`` are pts in ``time_base``."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=RATE, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.time_base = video.codec_context.time_base = time_base
        if rotation:
            video.set_display_rotation(rotation)
        tracks = [out.add_stream("aac", rate=48000, layout="mono") for _ in range(audio)]
        for number, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = pts, time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for pitch, track in enumerate(tracks, start=1):
            wave = np.sin(np.arange(24000) * 0.05 * pitch) * 9000
            chunk = av.AudioFrame.from_ndarray(
                wave.astype(np.int16)[None], format="s16", layout="mono"
            )
            chunk.sample_rate, chunk.pts = 48000, 0
            out.mux(track.encode(chunk))
            out.mux(track.encode(None))
    return path


def write_lossless(path, images, rate=24, times=None):
    """Write RGB images (H, W, 3) as a lossless video; the unit of ``times`` is a frame."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("ffv1", rate=rate)
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = "bgr0"
        for time, image in zip(times or range(len(images)), images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def times_of(path):
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def sound_of(path):
    """Return bytes and times of every audio packet by track."""
    with av.open(str(path)) as container:
        packets = {stream.index: [] for stream in container.streams.audio}
        for packet in container.demux(*container.streams.audio) if packets else ():
            if packet.dts is not None:
                packets[packet.stream.index].append((bytes(packet), packet.pts * packet.time_base))
    return list(packets.values())


@cache
def signer():
    """Return the signer of the test outputs."""
    record = ModelRecord("collins-hopper", "5a" * 32, ("both agreed in writing",))
    return Signer(record, signing_identity())


def unmarked(source, is_marked=False):
    """Return the publisher of the test outputs, which have no watermark."""
    return signer().publisher(source)


def span(source, start, end):
    """Return ``pass_on`` arguments that cut the span from ``start`` to ``end`` out of a video."""
    origin = reader.probe(source).start
    frames = [f for f in reader.read_video(source) if start <= f.time - origin < end]
    return {"frames": frames, "excerpt": True, "end": origin + end}


class OneStream:
    """Writes the frames of a video with a single video stream."""

    def __init__(self, output):
        self._output = output

    def write(self, frame):
        self._output.write({"video": frame})


@contextmanager
def open_writer(target, source):
    """Open the production writer for a photo or a video, chosen by suffix, with signed output."""
    suffix = target.suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        with writers.photo_writer(target, source, unmarked(source, False)) as writer:
            yield writer
        return
    encoding = choose_encoding(suffix, "auto", writers.QUALITY, hardware=False)
    targets = {"video": StreamTarget(target, unmarked, encoding, sound=True)}
    folder = temporary_beside(target)
    with writers.open_video(targets, VideoFile(source), folder, resume=False) as output:
        yield OneStream(output)
