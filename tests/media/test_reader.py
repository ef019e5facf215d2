"""A pass-through conversion keeps the size, times, audio and tags of every kind of clip."""

import threading
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from faceswap import parallel
from faceswap.errors import InputError
from faceswap.media import colorspace, photos, reader, writers
from tests.support.clips import RATE, make_clip, open_writer, picture, sound_of, times_of


def color_of(frame):
    """Mean red, green and blue as a player displays them."""
    return (
        frame.reformat(format="rgb24", interpolation=colorspace.EXACT)
        .to_ndarray()
        .mean(axis=(0, 1))
    )


def pass_through(source, target, change=None):
    with open_writer(target, source) as writer:
        for frame in reader.read_video(source):
            image = change(frame.image) if change else None
            writer.write(frame if image is None else frame.repainted(image))


CLIPS = {
    "plain": {},
    "variable_rate": {"times": [0, 40, 75, 200, 210, 333, 500], "time_base": Fraction(1, 1000)},
    "starts_late": {"times": range(25, 40)},
    "b_frames": {"options": {"bf": "3", "g": "30"}, "times": range(20)},
    "odd_size_444": {"size": (65, 47), "pix_fmt": "yuv444p"},
    "not_multiple_of_16": {"size": (70, 50)},
    "yuv422": {"pix_fmt": "yuv422p"},
    "ten_bit": {"pix_fmt": "yuv420p10le"},
    "two_tracks": {"audio": 2},
    "silent": {"audio": 0},
    "grey": {"pix_fmt": "gray"},
    "rgb": {"pix_fmt": "rgb24", "codec": "libx264rgb"},
    "full_range": {"pix_fmt": "yuvj420p", "codec": "mjpeg"},
}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("changed", [False, True], ids=["unchanged", "repainted"])
def test_pass_through_keeps_times_audio_and_colours(tmp_path, name, changed):
    suffix = ".mov" if name == "full_range" else ".mp4"
    source = make_clip(tmp_path / f"in{suffix}", **CLIPS[name])
    target = tmp_path / f"out{suffix}"

    pass_through(source, target, (lambda image: image) if changed else None)

    assert times_of(target) == times_of(source)
    assert sound_of(target) == sound_of(source)
    with av.open(str(source)) as before, av.open(str(target)) as after:
        one, two = before.streams.video[0], after.streams.video[0]
        assert (two.width, two.height) == (one.width, one.height)
        wanted = "yuv444p" if name == "rgb" else one.pix_fmt.replace("yuvj", "yuv")
        assert two.pix_fmt.replace("yuvj", "yuv") == wanted
        frames = zip(before.decode(one), after.decode(two), strict=True)
        shift = np.mean([color_of(new) - color_of(old) for old, new in frames], axis=0)
        assert np.abs(shift).max() < 3  # of 255: the encoder's loss at this small size
        assert abs(shift @ [0.299, 0.587, 0.114]) < 0.5  # the default conversion darkens by 1.6


def test_rotated_clip_is_read_upright_and_written_rotated(tmp_path):
    source = make_clip(tmp_path / "in.mp4", size=(64, 48), rotation=90)
    target = tmp_path / "out.mp4"
    marked = []

    def mark(image):  # a white corner, top left as the viewer sees it
        marked.append(image.shape)
        image = image.copy()
        image[:12, :12] = 255
        return image

    pass_through(source, target, mark)

    assert set(marked) == {(64, 48, 3)}
    again = next(reader.read_video(target))
    assert again.image.shape == (64, 48, 3)
    assert again.image[2:9, 2:9].mean() > 240
    assert again.pixels.frame.rotation == next(reader.read_video(source)).pixels.frame.rotation


@pytest.mark.parametrize("rotation", [0, 90])
def test_rects_that_overlap_are_converted_once_and_equal_the_whole_frame(
    tmp_path, monkeypatch, rotation
):
    clip = make_clip(tmp_path / "in.mp4", size=(320, 240), rotation=rotation)
    frame, again = (next(reader.read_video(clip)) for _ in range(2))
    whole = again.image
    converted, convert = [], reader.colorspace.rgb_rect
    monkeypatch.setattr(
        reader.colorspace, "rgb_rect", lambda *a: converted.append(a[1]) or convert(*a)
    )
    height, width = frame.shape

    for rect in ((60, 50, 130, 120), (55, 45, 130, 125), (70, 60, 90, 80), (0, 0, width, height)):
        left, top, right, bottom = rect
        pixels = frame.crop(rect)
        assert np.array_equal(pixels, whole[top:bottom, left:right])
        pixels[:] = 0  # a caller may write into what it gets

    assert len(converted) == 2  # the first rect with its surroundings, and the whole frame


def test_backward_time_stamps_are_repaired(tmp_path):
    source = make_clip(tmp_path / "in.avi", options={"bf": "3", "g": "30"}, times=range(20),
                       audio=0)  # fmt: skip

    frames = list(reader.read_video(source))

    times = [frame.time for frame in frames]
    assert times == sorted(set(times))
    pass_through(source, tmp_path / "out.mov")
    assert len(times_of(tmp_path / "out.mov")) == len(frames)


def test_file_name_with_colon_is_not_read_as_a_url(tmp_path):
    source = make_clip(tmp_path / "12:30.mp4")

    pass_through(source, tmp_path / "12:31.mp4")

    assert times_of(tmp_path / "12:31.mp4") == times_of(source)


def test_unknown_codec_raises_input_error(tmp_path):
    path = make_clip(tmp_path / "x.mp4", audio=0)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))

    with pytest.raises(InputError, match="uses a video codec this program cannot decode"):
        reader.probe(path)


def test_odd_420_video_keeps_its_size(tmp_path):
    source = make_clip(tmp_path / "in.webm", size=(65, 47), codec="libvpx-vp9", audio=0)
    target = tmp_path / "out.mp4"

    pass_through(source, target)

    assert reader.probe(target).width == 65
    assert reader.probe(target).height == 47
    assert len(times_of(target)) == 12


def test_duration_is_that_of_the_frames_and_not_of_longer_sound(tmp_path):
    path = tmp_path / "long sound.mp4"
    images = [np.zeros((48, 64, 3), np.uint8)] * 10
    writers.write_clip(path, iter(images), 25, np.zeros(48000, np.int16), 48000)  # one second

    info = reader.probe(path)

    assert (info.frames, info.seconds) == (10, Fraction(10, 25))


def test_webm_keeps_times(tmp_path):
    source = make_clip(tmp_path / "in.webm", codec="libvpx-vp9", audio=0)
    target = tmp_path / "out.webm"

    pass_through(source, target)

    assert times_of(target) == times_of(source)


def test_title_aspect_ratio_and_colour_tags_are_kept(tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        out.metadata["title"] = "A title"
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.colorspace = video.codec_context.color_trc = 1
        video.codec_context.color_primaries = video.codec_context.color_range = 1
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p", dst_colorspace=1)))
        out.mux(video.encode(None))
    target = tmp_path / "out.mkv"

    pass_through(source, target, lambda image: image.copy())

    with av.open(str(source)) as before, av.open(str(target)) as after:
        assert after.metadata["title"] == "A title"
        one, two = before.streams.video[0], after.streams.video[0]
        assert two.sample_aspect_ratio == one.sample_aspect_ratio == Fraction(4, 3)
        for tag in ("colorspace", "color_range", "color_trc", "color_primaries"):
            assert getattr(two.codec_context, tag) == getattr(one.codec_context, tag) == 1


def test_interrupt_before_the_first_frame_leaves_no_files(tmp_path):
    source = make_clip(tmp_path / "in.mp4")

    def interrupt():
        with open_writer(tmp_path / "out.mp4", source):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()

    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_failure_midway_keeps_the_existing_output(tmp_path):
    source = make_clip(tmp_path / "in.mp4")
    (tmp_path / "out.mp4").write_bytes(b"old")

    def fail():
        with open_writer(tmp_path / "out.mp4", source) as writer:
            writer.write(next(reader.read_video(source)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_truncated_video_yields_its_readable_frames_and_warns(tmp_path, caplog):
    whole = make_clip(tmp_path / "in.mp4", audio=0, times=range(60))
    flat = tmp_path / "fast.mp4"
    with open_writer(flat, whole) as writer:  # it puts the index first, so a cut file is readable
        for frame in reader.read_video(whole):
            writer.write(frame)
    flat.write_bytes(flat.read_bytes()[: flat.stat().st_size * 2 // 3])

    frames = list(reader.read_video(flat))

    assert 0 < len(frames) < 60
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("content", [b"", b"text, not a video", bytes(5000)])
def test_non_video_file_raises_input_error(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"clip\.mp4 is not a video"):
        list(reader.read_video(path))


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ts", ".ffconcat"])
@pytest.mark.parametrize(
    "playlist",
    ["ffconcat version 1.0\nfile secret.ts\n",
     "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n"],
    ids=["concat", "hls"],
)  # fmt: skip
def test_playlists_are_refused(tmp_path, playlist, suffix):
    make_clip(tmp_path / "secret.ts")
    path = tmp_path / f"clip{suffix}"
    path.write_text(playlist)

    with pytest.raises(InputError, match="is not a video this program can read"):
        reader.probe(path)


def test_audio_only_file_is_refused(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as out:
        track = out.add_stream("aac", rate=48000, layout="mono")
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16", "mono")
        chunk.sample_rate = 48000
        out.mux(track.encode(chunk))
        out.mux(track.encode(None))

    with pytest.raises(InputError, match="no video stream; it contains audio"):
        reader.probe(path)


def test_sampled_frames_match_frames_at_evenly_spaced_times(tmp_path):
    source = make_clip(tmp_path / "in.mp4")
    frames = list(reader.read_video(source))
    start, end = frames[0].time, frames[-1].time + (frames[1].time - frames[0].time)

    for count in (1, 3, 5):
        sampled = list(reader.sample_video(source, count))

        assert len(sampled) == count
        for number, frame in enumerate(sampled):
            wanted = start + (end - start) * Fraction(2 * number + 1, 2 * count)
            shown = [f for f in frames if f.time <= wanted][-1]
            assert abs(frame.time - shown.time) <= frames[1].time - frames[0].time
            (same,) = [f for f in frames if f.time == frame.time]
            np.testing.assert_array_equal(frame.image, same.image)


def test_inexact_sampling_yields_each_key_frame_once(tmp_path):
    clip = make_clip(tmp_path / "x.mp4", times=range(100), options={"g": "25", "bf": "2"})

    frames = list(reader.sample_video(clip, 9, exact=False))

    assert [frame.time * RATE for frame in frames] == [0, 25, 50, 75]
    assert len(list(reader.sample_video(clip, 9))) == 9


def test_photo_is_rotated_by_its_exif_orientation(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise
    Image.fromarray(picture(0, 40, 20)).save(tmp_path / "x.jpg", exif=exif)

    assert photos.read_photo(tmp_path / "x.jpg").image.shape == (40, 20, 3)


def test_sixteen_bit_grey_is_scaled_to_eight_bits(tmp_path):
    from PIL import Image

    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(16, axis=0)
    Image.fromarray(ramp).save(tmp_path / "x.png")

    image = photos.read_photo(tmp_path / "x.png").image

    assert np.abs(image[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("name", ["grey.tif", "cmyk.jpg", "x.webp"])
def test_rewritten_photo_matches_the_original(tmp_path, name):
    from PIL import Image

    modes = {"grey.tif": "L", "cmyk.jpg": "CMYK", "x.webp": "RGB"}
    Image.fromarray(picture(0, 64, 48)).convert(modes[name]).save(tmp_path / name)
    frame = photos.read_photo(tmp_path / name)

    with open_writer(tmp_path / f"out-{name}", tmp_path / name) as writer:
        writer.write(frame)

    again = photos.read_photo(tmp_path / f"out-{name}").image
    assert np.abs(again.astype(int) - frame.image).mean() < 2


def test_truncated_photo_raises_input_error(tmp_path):
    from PIL import Image

    path = tmp_path / "x.jpg"
    Image.fromarray(picture(0, 200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(InputError, match="truncated"):
        photos.read_photo(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty: copy it again"), (b"words", "is not an image this program can read")],
)
def test_non_photo_file_raises_input_error(tmp_path, content, message):
    (tmp_path / "x.png").write_bytes(content)

    with pytest.raises(InputError, match=rf"x\.png {message}"):
        photos.read_photo(tmp_path / "x.png")


def test_prefetch_keeps_order_and_reraises_errors():
    def numbers():
        yield from range(5)
        raise ValueError("at five")

    got = []
    with pytest.raises(ValueError, match="at five"):
        got.extend(parallel.prefetch(numbers(), 2))
    assert list(parallel.prefetch(range(100), 3)) == list(range(100))


def test_prefetch_reads_no_further_ahead_than_its_depth():
    made = []
    release = threading.Event()

    def numbers():
        for number in range(50):
            made.append(number)
            if len(made) > 4:
                release.set()
            yield number

    stream = parallel.prefetch(numbers(), 3)
    assert next(stream) == 0
    assert release.wait(10)  # five produced: one consumed, three queued, one waiting
    stream.close()

    assert len(made) <= 6
    assert not any(t.name == "prefetch" for t in threading.enumerate())


def test_write_clip_writes_video_and_audio(tmp_path):
    path = tmp_path / "clip.mp4"
    sound = (np.sin(np.arange(48000) * 0.1) * 9000).astype(np.int16)

    writers.write_clip(path, (picture(i, 64, 48) for i in range(25)), RATE, sound, 48000)

    assert times_of(path) == [Fraction(i, RATE) for i in range(25)]
    assert sound_of(path)


def test_real_footage_keeps_times_audio_and_header(shared, tmp_path):
    source = shared / "video" / "shot_changes_360p.mp4"
    target = tmp_path / "out.mp4"

    pass_through(source, target)

    assert times_of(target) == times_of(source)
    assert sound_of(target) == sound_of(source)
    assert reader.probe(target) == reader.probe(source)


def test_interlaced_source_is_warned_about_once(tmp_path, caplog):
    options = {"flags": "+ildct+ilme"}
    source = make_clip(tmp_path / "in.mkv", options=options, audio=0)
    with open_writer(tmp_path / "out.mkv", source) as writer:
        for frame in reader.read_video(source):
            writer.write(frame)
    assert caplog.text.count("in.mkv is interlaced") == 1


def test_avi_with_b_frames_yields_evenly_spaced_frames(tmp_path):
    source = make_clip(tmp_path / "in.avi", times=range(40), audio=0, options={"bf": "3"})

    times = [frame.time for frame in reader.read_video(source)]

    assert len(times) == 40
    assert {after - before for before, after in pairwise(times)} == {Fraction(1, RATE)}
