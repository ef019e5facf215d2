"""Muxing segments and the source's other streams keeps every timestamp."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from faceswap.media import reader
from tests.support.clips import (
    STYLES,
    chapters,
    make_clip,
    noise,
    packets,
    pass_on,
    rich_clip,
    segment_length,
    shown,
    span,
    tags,
    times_of,
)

CLIPS = {
    "plain": {},
    "ten_bit": {"pix_fmt": "yuv420p10le"},
    "full_chroma": {"pix_fmt": "yuv444p"},
    "odd_size": {"pix_fmt": "yuv444p", "size": (65, 47)},
    "rotated": {"rotation": 90},
    "constant_rate": {"times": [1000 + 40 * n for n in range(20)]},
}


def is_decodable(path):
    """Return whether decoding times strictly increase and never exceed presentation times."""
    (video,) = packets(path, "video")
    dts = [packet[2] for packet in video]
    return all(a < b for a, b in pairwise(dts)) and all(packet[2] <= packet[1] for packet in video)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("name", CLIPS)
def test_joined_segments_match_a_single_encode(tmp_path, monkeypatch, name, suffix):
    source = rich_clip(tmp_path / f"in{suffix}", **CLIPS[name])
    whole = pass_on(source, tmp_path / f"whole{suffix}", quality=4)
    segment_length(monkeypatch, 5)
    target = pass_on(source, tmp_path / f"out{suffix}", quality=4)

    assert times_of(target) == times_of(source)
    assert packets(target, "audio") == packets(source, "audio")
    assert packets(target, "subtitle") == packets(source, "subtitle")
    assert tags(target) == tags(source)
    assert chapters(target) == chapters(source)
    assert is_decodable(target)
    with av.open(str(source)) as before, av.open(str(target)) as after:
        one, two = before.streams.video[0], after.streams.video[0]
        assert (two.width, two.height, two.pix_fmt) == (one.width, one.height, one.pix_fmt)
        assert two.duration * two.time_base == times_of(source)[-1] - 1 + Fraction(40, 1000)
    keys = [p.is_keyframe for p in av.open(str(target)).demux(video=0) if p.size]
    assert sum(keys) == -(-len(keys) // 5)  # one per segment of 5 frames
    assert noise(target, source) < 3
    assert noise(target, whole) < 3
    assert [frame.shape for frame in shown(target)] == [frame.shape for frame in shown(source)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_matroska_keeps_timestamps_and_decoding_order(tmp_path, monkeypatch, suffix):
    segment_length(monkeypatch, 5)
    source = make_clip(
        tmp_path / "in.mkv", times=range(12, 30), options={"bf": "3", "g": "30"}, audio=0
    )

    target = pass_on(source, tmp_path / f"out{suffix}")

    assert times_of(target) == times_of(source)
    assert is_decodable(target)
    assert noise(target, source) < 4


def test_single_frame_makes_a_valid_video(tmp_path):
    source = make_clip(tmp_path / "in.mp4", times=[7], audio=1)

    target = pass_on(source, tmp_path / "out.mp4")

    assert times_of(target) == times_of(source)
    assert packets(target, "audio") == packets(source, "audio")


def test_start_between_two_milliseconds_is_kept(tmp_path):
    source = make_clip(tmp_path / "in.mkv", audio=0, options={"bf": "0"})
    origin, base = 1001, Fraction(1, 30000)
    fine = {"movie_timescale": "240000"}
    with av.open(str(source)) as old, av.open(str(tmp_path / "in.mov"), "w", options=fine) as out:
        video = out.add_stream_from_template(old.streams.video[0])
        sound = out.add_stream("pcm_s16le", rate=48000, layout="mono")
        video.time_base = base
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = packet.dts = origin * (number + 1)
            packet.duration, packet.time_base, packet.stream = origin, base, video
            out.mux(packet)
        chunk = av.AudioFrame.from_ndarray(np.ones((1, 4800), np.int16), "s16", "mono")
        chunk.sample_rate, chunk.pts = 48000, 613
        out.mux(sound.encode(chunk))

    target = pass_on(tmp_path / "in.mov", tmp_path / "out.mov")

    assert times_of(tmp_path / "in.mov")[0] == origin * base
    assert times_of(target) == times_of(tmp_path / "in.mov")
    assert packets(target, "audio")[0][0][1] == Fraction(613, 48000)
    samples = [b"".join(p[0] for p in packets(tmp_path / name, "audio")[0])
               for name in ("in.mov", "out.mov")]  # fmt: skip
    assert samples[0] == samples[1]


def test_excerpt_begins_at_zero_with_audio_in_sync(tmp_path, monkeypatch):
    segment_length(monkeypatch, 3)
    source = rich_clip(tmp_path / "in.mp4")
    start, end = Fraction(2, 10), Fraction(6, 10)

    target = pass_on(source, tmp_path / "out.mp4", **span(source, start, end))

    first, last = 1 + start, 1 + end  # the source begins at 1 s
    wanted = [time for time in times_of(source) if first <= time < last]
    assert times_of(target) == [time - wanted[0] for time in wanted]
    for kind in ("audio", "subtitle"):
        for before, after in zip(packets(source, kind), packets(target, kind), strict=True):
            inside = [p for p in before if wanted[0] <= p[1] < last and len(p[0]) > 2]
            after = [p for p in after if len(p[0]) > 2]  # mov_text fills gaps with empty packets
            assert inside
            assert [p[0] for p in after] == [p[0] for p in inside]
            for old, new in zip(inside, after, strict=True):
                assert abs(new[1] - (old[1] - wanted[0])) <= Fraction(1, 48000 if kind == "audio"
                                                                      else 1000)  # fmt: skip
    found = chapters(target)
    assert [title for _, _, title in found] == ["One", "Two"]
    assert [(float(a), float(b)) for a, b, _ in found] == [(0.0, 0.05), (0.05, 0.4)]
    assert is_decodable(target)


def clip_with_font(source):
    """Write a clip with PCM audio and an attached subtitle font."""
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        out.add_attachment("font.ttf", "font/ttf", b"letters")
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 900), np.int16), "s16", "mono")
        chunk.sample_rate = 8000
        out.mux(sound.encode(chunk))
    return source


def test_incompatible_streams_are_reported(tmp_path, caplog):
    source = clip_with_font(tmp_path / "in.mkv")

    pass_on(source, tmp_path / "out.webm")

    transcoded = "audio stream 1 (pcm_s16le) cannot be stored in .webm; it is transcoded to opus"
    assert transcoded in caplog.text
    assert "attachment stream 2 is left out" in caplog.text


def test_matroska_keeps_subtitle_fonts(tmp_path, caplog):
    source = clip_with_font(tmp_path / "in.mkv")

    with av.open(str(pass_on(source, tmp_path / "out.mkv"))) as target:
        (kept,) = [stream for stream in target.streams if stream.type == "attachment"]
        assert (kept.name, kept.mimetype, bytes(kept.data)) == ("font.ttf", "font/ttf", b"letters")
    assert "left out" not in caplog.text


def with_extra_stream(source, target, codec, times, header=None):
    """Copy a clip and add a stream with one packet at each of these times in milliseconds."""
    with av.open(str(source)) as old, av.open(str(target), "w") as out:
        video = out.add_stream_from_template(old.streams.video[0])
        other = out.add_stream(codec)
        if header:
            other.codec_context.subtitle_header = header
        other.time_base = Fraction(1, 1000)
        for packet in [p for p in old.demux(video=0) if p.size]:
            packet.stream = video
            out.mux(packet)
        for number, time in enumerate(times):
            packet = av.Packet(f"{number},0,Default,,0,0,0,,words {number}".encode())
            packet.pts = packet.dts = time
            packet.duration, packet.time_base, packet.stream = 100, Fraction(1, 1000), other
            out.mux(packet)
    return target


def test_simultaneous_subtitles_are_kept(tmp_path, caplog):
    clip = make_clip(tmp_path / "plain.mkv", audio=0)
    source = with_extra_stream(clip, tmp_path / "in.mkv", "ass", (100, 100, 100, 300), STYLES)

    target = pass_on(source, tmp_path / "out.mkv")

    assert packets(target, "subtitle") == packets(source, "subtitle")
    assert len(packets(target, "subtitle")[0]) == 4
    assert not caplog.text


def test_audio_packets_shorter_than_a_millisecond_are_kept(tmp_path, caplog):
    clip = make_clip(tmp_path / "plain.mkv", audio=0)
    source = with_extra_stream(clip, tmp_path / "in.mkv", "pcm_s16le", (0, 1, 2, 2, 3, 4, 5, 5))

    target = pass_on(source, tmp_path / "out.mkv")

    assert [p[0] for p in packets(target, "audio")[0]] == [
        p[0] for p in packets(source, "audio")[0]
    ]
    assert not caplog.text


def timecode_clip(path, code):
    """Write a clip of 50 frames with a timecode."""
    with av.open(str(path), "w") as out:
        out.metadata["timecode"] = code
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(50):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
    return path


def timecode_of(path):
    with av.open(str(path)) as container:
        tags = container.metadata | container.streams.video[0].metadata
        return {name.lower(): value for name, value in tags.items()}.get("timecode")


@pytest.mark.parametrize("source", ["in.mov", "in.mkv"])
@pytest.mark.parametrize("target", ["out.mov", "out.mp4", "out.mkv"])
def test_timecode_is_kept_and_advanced_in_an_excerpt(tmp_path, caplog, source, target):
    clip = timecode_clip(tmp_path / source, "01:02:03:04")

    whole = pass_on(clip, tmp_path / target)
    second = span(clip, Fraction(1), Fraction(3, 2))
    excerpt = pass_on(clip, tmp_path / f"excerpt-{target}", **second)

    assert timecode_of(whole) == "01:02:03:04"
    assert timecode_of(excerpt) == "01:02:04:04"
    assert not caplog.text


def test_invalid_timecode_is_dropped_with_a_warning(tmp_path, caplog):
    clip = timecode_clip(tmp_path / "in.mkv", "01:02:03;04")

    target = pass_on(clip, tmp_path / "out.mov")

    assert timecode_of(target) is None
    assert len(times_of(target)) == 50
    assert "01:02:03;04 is not a valid timecode at 25 fps" in caplog.text


@pytest.mark.parametrize("codec", ["h264", "prores"])
def test_pause_before_the_end_does_not_lengthen_the_last_frame(tmp_path, codec):
    times = [*range(6), 1000, 1001, 1005]
    source = make_clip(tmp_path / "in.mov", times=times, audio=0, options={"bf": "3"})

    target = pass_on(source, tmp_path / "out.mov", codec=codec)

    assert times_of(target) == times_of(source)
    assert abs(reader.probe(target).seconds - times_of(source)[-1]) <= Fraction(8, 25)


def test_subtitle_that_spans_the_start_of_an_excerpt_is_trimmed(tmp_path):
    clip = make_clip(tmp_path / "plain.mkv", audio=0)
    source = with_extra_stream(clip, tmp_path / "in.mkv", "ass", (0, 60, 100, 300, 350), STYLES)

    target = pass_on(source, tmp_path / "out.mkv", **span(source, Fraction(16, 100),
                                                          Fraction(32, 100)))  # fmt: skip

    shown = [(p[0][-7:], p[1] * 1000, p[3] * 1000) for p in packets(target, "subtitle")[0]]
    assert shown == [(b"words 2", 0, 40), (b"words 3", 140, 20)]
