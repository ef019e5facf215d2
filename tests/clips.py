"""Small clips with everything a container can hold, and what PyAV reads of them."""

import struct
from fractions import Fraction

import av
import numpy as np
from test_media import picture, signer

from faceswap import media, parts, writers
from faceswap.encoders import choose_encoding
from faceswap.writers import Target

STYLES = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, "
    b"PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, "
    b"StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, "
    b"MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,"
    b"100,0,0,1,1,0,2,10,10,10,1\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, "
    b"MarginL, MarginR, MarginV, Effect, Text\r\n"
)
RICH_TIMES = [1000 + t for t in (0, 40, 75, 200, 210, 333, 500, 540, 580, 620, 660, 700, 780)]


def hdr_clip(path, transfer):
    """One frame whose transfer characteristic (AVColorTransferCharacteristic) is HDR's."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p10le"
        video.codec_context.color_trc = transfer
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p10le")
        frame.color_trc, frame.pts, frame.time_base = transfer, 0, Fraction(1, 25)
        out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def rich_clip(path, *, times=RICH_TIMES, size=(64, 48), pix_fmt="yuv420p", rotation=0):
    """Variable frame rate from 1 s on, B-frames, two sounds, subtitles and chapters.

    Args:
        path: An .mp4 or .mov file.
        times: In milliseconds.
        size: Width and height.
        pix_fmt: How pictures are stored.
        rotation: Degrees.
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
        sounds = [out.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
        words = out.add_stream("mov_text")
        words.time_base = milli
        words.codec_context.subtitle_header = STYLES
        for track, language in zip((*sounds, words), ("eng", "fra", "ita"), strict=True):
            track.metadata["language"] = language
        for number, pts in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            following = times[number + 1] if number + 1 < len(times) else pts + 40
            frame.pts, frame.time_base, frame.duration = pts, milli, following - pts
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for pitch, track in enumerate(sounds, start=1):
            wave = np.sin(np.arange(38400) * 0.05 * pitch) * 9000
            chunk = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            chunk.sample_rate, chunk.pts = 48000, 48000
            out.mux(track.encode(chunk))
            out.mux(track.encode(None))
        for number in range(3):
            text = f"word {number}".encode()
            packet = av.Packet(struct.pack(">H", len(text)) + text)
            packet.pts = packet.dts = 1000 + 250 * number
            packet.duration, packet.time_base, packet.stream = 200, milli, words
            out.mux(packet)
    return path


def packets(path, kind=None):
    """Bytes, time stamp, decoding time and length of each packet, by stream; of one kind or all."""
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
    """Tags of the file and of each stream."""
    with av.open(str(path)) as container:
        own = {k: v for k, v in container.metadata.items() if k in ("title", "comment")}
        return own, [s.metadata.get("language") for s in container.streams]


def chapters(path):
    """Start, end and title of each chapter."""
    with av.open(str(path)) as container:
        return [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]


def shown(path):
    """Every frame's RGB, upright."""
    return [frame.image for frame in media.read_video(path)]


def noise(one, other):
    """The largest mean difference between frames of two videos, of 255."""
    return max(
        float(np.abs(a.astype(int) - b).mean())
        for a, b in zip(shown(one), shown(other), strict=True)
    )


def part_length(monkeypatch, frames):
    """Let parts be this long."""
    for module in (parts, writers):
        monkeypatch.setattr(module, "PART", frames)


def pass_on(source, target, *, codec="auto", quality=18, change=None, frames=None, **options):
    """Write a video's frames again, as they are or changed, part by part.

    Args:
        source: The video.
        target: The output.
        codec: As in the settings.
        quality: As in the settings.
        change: Makes a frame's new form.
        frames: Instead of all of the source's.
        options: Of ``open_video``.
    """
    suffix = target.suffix.lower()
    encoding = choose_encoding(suffix, codec, quality, hardware=False)
    sound = suffix in (".mp4", ".mov", ".m4v", ".mkv", ".webm")
    targets = {"video": Target(target, encoding, sound, quality, pictures=not suffix)}
    folder = options.pop("folder", target.with_name(f".{target.name}.parts"))
    with writers.open_video(targets, source, signer(), folder, **options) as output:
        for frame in frames or media.read_video(source):
            output.write({"video": change(frame) if change else frame})
    return target
