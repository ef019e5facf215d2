"""Every codec works in each of its containers, and unsupported pairs are refused."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from faceswap.errors import SettingsError
from faceswap.media import codecs, reader, writers
from faceswap.media.codecs import ANIMATIONS, CONTAINERS, choose_encoding
from faceswap.media.footage import VideoFile
from tests.support.clips import (
    make_clip,
    noise,
    pass_on,
    picture,
    rich_clip,
    segment_length,
    shown,
    times_of,
    unmarked,
)

PAIRS = [(suffix, codec) for suffix, codecs in CONTAINERS.items() for codec in codecs]
NAMES = {"h264": "h264", "h265": "hevc", "av1": "av1", "vp9": "vp9", "prores": "prores",
         "ffv1": "ffv1"}  # fmt: skip
DECODERS = {"av1": ("av1", "libdav1d", "libaom-av1")}
PIXELS = {
    "even": {"size": (96, 80)},
    "odd": {"size": (97, 81), "pix_fmt": "yuv444p"},
    "ten_bit": {"size": (96, 80), "pix_fmt": "yuv420p10le"},
}


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9"])
def test_every_codec_takes_the_worst_quality(tmp_path, codec):
    source = make_clip(tmp_path / "in.mp4", size=(96, 80), times=range(3), audio=0)

    target = pass_on(source, tmp_path / "out.mkv", codec=codec, quality=51)

    assert times_of(target) == times_of(source)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs Linux")
@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9"])
def test_no_encoder_leaves_the_process_with_a_real_time_priority(tmp_path, codec):
    """SVT-AV1 takes it if it runs as root, for good."""
    source = make_clip(tmp_path / "in.mp4", size=(96, 80), times=range(3), audio=0)
    codecs.opens.cache_clear()

    pass_on(source, tmp_path / "out.mkv", codec=codec)

    threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize(("suffix", "codec"), PAIRS)
def test_every_codec_keeps_size_times_and_content(tmp_path, monkeypatch, suffix, codec, pixels):
    segment_length(monkeypatch, 4)
    source = make_clip(
        tmp_path / "in.mp4", times=range(10), audio=0, options={"crf": "4"}, **PIXELS[pixels]
    )

    target = pass_on(source, tmp_path / f"out{suffix}", codec=codec, quality=8)

    with av.open(str(source)) as before, av.open(str(target)) as after:
        one, two = before.streams.video[0], after.streams.video[0]
        assert two.codec_context.name in DECODERS.get(codec, (NAMES[codec],))
        assert (two.width, two.height) == (one.width, one.height)
        depth = max(part.bits for part in two.format.components)
        possible = max(
            part.bits
            for form in av.Codec(codecs.SOFTWARE[codec], "w").video_formats
            for part in form.components
        )
        assert depth >= min(max(part.bits for part in one.format.components), possible)
    assert times_of(target) == times_of(source)
    assert noise(target, source) < 4


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gray"])
def test_ffv1_keeps_unchanged_frames_bit_exact(tmp_path, monkeypatch, pix_fmt):
    segment_length(monkeypatch, 4)
    source = make_clip(tmp_path / "in.mp4", times=range(10), pix_fmt=pix_fmt, audio=0)

    target = pass_on(source, tmp_path / "out.mkv", codec="ffv1")

    with av.open(str(source)) as before, av.open(str(target)) as after:
        frames = zip(before.decode(video=0), after.decode(video=0), strict=True)
        for old, new in frames:
            assert new.format.name == old.format.name
            np.testing.assert_array_equal(new.to_ndarray(), old.to_ndarray())


def frames_of_animation(path):
    """Return the loop count, and each frame's RGB and duration in milliseconds, read by Pillow."""
    from PIL import Image, ImageSequence

    with Image.open(path) as animation:
        loops = animation.info.get("loop")
        return loops, [
            (np.asarray(frame.convert("RGB")), frame.info["duration"])
            for frame in ImageSequence.Iterator(animation)
        ]


@pytest.mark.parametrize("suffix", sorted(ANIMATIONS))
@pytest.mark.parametrize("rotation", [0, 90])
def test_animation_frames_are_upright_and_correctly_timed(tmp_path, monkeypatch, suffix, rotation):
    segment_length(monkeypatch, 5)
    milli = [0, 40, 80, 200, 210, 330, 500, 540, 580, 620, 660, 700, 780]
    source = rich_clip(tmp_path / "in.mp4", times=[1000 + t for t in milli], rotation=rotation)

    target = pass_on(source, tmp_path / f"out{suffix}")

    loops, frames = frames_of_animation(target)
    assert loops == 0
    assert len(frames) == 13
    assert [duration for _, duration in frames[:-1]] == list(np.diff(milli))
    assert 10 <= frames[-1][1] <= 100
    for (made, _), original in zip(frames, shown(source), strict=True):
        assert made.shape == original.shape
        assert np.abs(made.astype(int) - original).mean() < 12  # 256 colours


@pytest.mark.parametrize(
    ("suffix", "codec", "message"),
    [
        (".mp4", "vp9", ".mp4 files do not support vp9, only h264, h265, av1; use .mkv, .webm "
         "for vp9"),
        (".webm", "prores", "use .mov, .mkv for prores"),
        (".gif", "h264", "--codec h264 does not apply to .gif files; leave it out"),
        ("", "ffv1", "--codec ffv1 does not apply to image sequences; leave it out"),
    ],
)  # fmt: skip
def test_unsupported_codec_raises_a_one_line_error(suffix, codec, message):
    with pytest.raises(SettingsError) as caught:
        choose_encoding(suffix, codec, 18, hardware=False)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_software_encoder_is_used_if_no_hardware_encoder_opens(monkeypatch):
    asked = []
    monkeypatch.setattr(codecs, "opens", lambda name: asked.append(name))

    found = choose_encoding(".mp4", "h265", 18, hardware=True)

    assert found == choose_encoding(".mp4", "h265", 18, hardware=False)
    assert asked == ["hevc_nvenc", "hevc_qsv", "hevc_videotoolbox", "hevc_amf"]


@pytest.mark.parametrize("maker", codecs.MAKERS)
def test_first_hardware_encoder_that_opens_is_used(monkeypatch, maker):
    monkeypatch.setattr(codecs, "opens", lambda name: name.endswith(maker))

    assert choose_encoding(".mov", "auto", 18, hardware=True).encoder == f"h264_{maker}"
    assert choose_encoding(".mkv", "ffv1", 18, hardware=True).encoder == "ffv1"


def test_missing_encoder_does_not_open():
    assert codecs.opens("libx264")
    assert not codecs.opens("h264_missing")


def test_changed_rect_leaves_the_rest_of_the_frame_unchanged(tmp_path):
    source = make_clip(tmp_path / "in.mp4", size=(96, 80), pix_fmt="yuv420p", audio=0, times=[0, 1])
    box = (32, 16, 64, 48)

    def change(frame):
        return frame.changed(box, 255 - frame.crop(box))

    target = pass_on(source, tmp_path / "out.mkv", codec="ffv1", change=change)

    with av.open(str(source)) as before, av.open(str(target)) as after:
        for old, new in zip(before.decode(video=0), after.decode(video=0), strict=True):
            one, two = (f.to_ndarray()[:80].copy() for f in (old, new))  # luma
            assert (one[16:48, 32:64] != two[16:48, 32:64]).mean() > 0.9
            one[16:48, 32:64] = two[16:48, 32:64] = 0
            np.testing.assert_array_equal(one, two)


def test_ten_bit_levels_survive_an_unchanged_crop(tmp_path):
    source = make_clip(tmp_path / "in.mp4", size=(96, 80), pix_fmt="yuv420p10le", audio=0,
                       times=range(3))  # fmt: skip
    box = (16, 16, 80, 64)

    def change(frame):
        return frame.changed(box, frame.rgb_float(box))

    target = pass_on(source, tmp_path / "out.mkv", codec="ffv1", change=change)

    with av.open(str(source)) as before, av.open(str(target)) as after:
        for old, new in zip(before.decode(video=0), after.decode(video=0), strict=True):
            assert old.format.name == new.format.name == "yuv420p10le"
            one, two = (np.frombuffer(f.planes[0], np.uint16).astype(int) for f in (old, new))
            assert np.abs(one - two).max() <= 1
            assert abs(one.mean() - two.mean()) < 0.1


def tagged_clip(path, *, full_range=False, shape=None):
    """Write a clip with full-range pixels, or with a pixel aspect ratio of ``shape``."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"crf": "4"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.color_range = 2 if full_range else 1
        if shape:
            video.codec_context.sample_aspect_ratio = shape
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_color_range=2 if full_range else 1)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize("is_changed", [False, True])
def test_full_range_source_keeps_its_brightness_in_prores(tmp_path, is_changed):
    source = tagged_clip(tmp_path / "in.mp4", full_range=True)

    def same(frame):
        rect = (8, 8, 40, 40)
        return frame.changed(rect, frame.rgb_float(rect)) if is_changed else frame

    target = pass_on(source, tmp_path / "out.mov", codec="prores", change=same)

    assert noise(target, source) < 3


def test_layer_over_full_range_source_keeps_its_brightness(tmp_path):
    source = tagged_clip(tmp_path / "in.mp4", full_range=True)
    layer = np.full((48, 64, 4), (200, 100, 50, 255), np.uint8)
    targets = {"video": writers.StreamTarget(tmp_path / "out.mov", unmarked, codecs.TRANSPARENT)}
    with writers.open_video(targets, VideoFile(source), tmp_path / ".parts") as output:
        for frame in reader.read_video(source):
            output.write({"video": frame.repainted(layer)})

    decoded = shown(tmp_path / "out.mov")[0].astype(int)

    assert np.abs(decoded - layer[..., :3]).max() < 6


@pytest.mark.parametrize(("target", "codec", "warns"), [("out.webm", "vp9", True),
    ("out.mkv", "ffv1", True), ("out.mkv", "h264", False), ("out.mov", "prores", False)],
)  # fmt: skip
def test_non_square_pixels_are_kept_or_warned_about(tmp_path, caplog, target, codec, warns):
    source = tagged_clip(tmp_path / "in.mp4", shape=Fraction(64, 45))

    made = pass_on(source, tmp_path / target, codec=codec)

    with av.open(str(made)) as container:
        kept = container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)
    assert kept != warns
    assert ("will look squeezed" in caplog.text) == warns
