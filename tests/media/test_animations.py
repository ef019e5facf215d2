"""GIF, APNG and WebP come back with their frame times, loop counts and transparency."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap.errors import InputError
from faceswap.media import writers
from faceswap.media.animations import FOREVER, write_animation
from faceswap.media.codecs import choose_encoding
from faceswap.media.footage import Animation, VideoFile, describe, identify, video_at
from faceswap.media.muxer import Segment
from faceswap.media.sources import content_of
from faceswap.media.writers import StreamTarget, default_video_suffix
from tests.support.clips import make_clip, picture, segment_length, unmarked

KINDS = [".gif", ".webp", ".png"]
LENGTHS = [100, 40, 250, 70, 330]  # milliseconds for which the frames are shown
SIZE = (64, 48)


def image(number, transparent):
    """A picture of few colours, which a GIF holds exactly, with a moving hole."""
    pixels = picture(number, *SIZE) // 64 * 64
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    if transparent:
        alpha[:10], alpha[30:, 8 * number : 8 * number + 20] = 0, 0
    return np.dstack([pixels, alpha])


def write(path, transparent=True, loop=0, lengths=LENGTHS, **options):
    images = [Image.fromarray(image(n, transparent)) for n in range(len(lengths))]
    if not transparent:
        images = [one.convert("RGB") for one in images]
    if path.suffix == ".webp":
        options |= {"lossless": True, "exact": True}
    if path.suffix == ".gif" and transparent:
        options |= {"disposal": 2}
    if loop is not None:
        options["loop"] = loop
    images[0].save(path, save_all=True, append_images=images[1:], duration=lengths, **options)
    return path


def read(path):
    """Return the loop count, the durations and the RGBA frames as Pillow reads them."""
    frames, lengths = [], []
    with Image.open(path) as animation:
        for index in range(animation.n_frames):
            animation.seek(index)
            frames.append(np.asarray(animation.convert("RGBA")))
            lengths.append(animation.info["duration"])
        return animation.info.get("loop"), lengths, frames


def rewrite(source, target, change=None, quality=0):
    footage = video_at(source)
    encoding = choose_encoding(target.suffix, "auto", quality, False, alpha=footage.has_alpha())
    targets = {"video": StreamTarget(target, unmarked, encoding, quality=quality)}
    folder = target.with_name(".parts")
    with writers.open_video(targets, footage, folder) as output:
        for frame in footage.read():
            output.write({"video": change(frame) if change else frame})
    return target


@pytest.mark.parametrize("loop", [0, 3, None])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("suffix", [*KINDS, ".apng"])
def test_animation_keeps_times_loops_and_transparency(
    tmp_path, monkeypatch, suffix, transparent, loop
):
    segment_length(monkeypatch, 2)
    source = tmp_path / f"in{suffix}"
    write(tmp_path / "x.png" if suffix == ".apng" else source, transparent, loop)
    if suffix == ".apng":
        (tmp_path / "x.png").rename(source)
    footage = video_at(source)
    assert isinstance(footage, Animation)
    assert footage.has_alpha() == transparent

    target = rewrite(source, tmp_path / f"out{default_video_suffix(source)}")

    assert target.suffix == suffix
    loops, lengths, frames = read(source)
    new_loops, new_lengths, new_frames = read(target)
    assert new_loops == loops
    assert new_lengths == lengths == LENGTHS
    assert video_at(target).times() == footage.times()
    for old, new in zip(frames, new_frames, strict=True):
        np.testing.assert_array_equal(new[..., 3], old[..., 3])
        shown = old[..., 3] > 0
        worst = np.abs(new[shown].astype(int) - old[shown]).max()
        assert worst <= 1 if suffix == ".gif" else worst == 0


@pytest.mark.parametrize("suffix", KINDS)
def test_animation_is_read_like_a_video(tmp_path, suffix):
    footage = video_at(write(tmp_path / f"in{suffix}"))
    whole = list(footage.read())

    milli = [int(frame.time * 1000) for frame in whole]
    assert milli == [0, 100, 140, 390, 460]
    assert [frame.index for frame in whole] == [0, 1, 2, 3, 4]
    info = footage.probe()
    assert (info.width, info.height, info.frames) == (*SIZE, 5)
    assert info.seconds == Fraction(79, 100)
    assert footage.first_at(Fraction(14, 100)) == 2
    for number, frame in enumerate(whole):
        expected = image(number, transparent=True)
        np.testing.assert_array_equal(frame.pixels.alpha(), expected[..., 3])
        opaque = expected[..., 3] > 0
        np.testing.assert_array_equal(frame.image[opaque], expected[opaque][:, :3])
    for first in (1, 4, 5):
        part = list(footage.read(first))
        assert [frame.index for frame in part] == list(range(first, 5))
        for one, two in zip(part, whole[first:], strict=True):
            np.testing.assert_array_equal(one.image, two.image)
    sampled = list(footage.sample(7))
    assert [frame.index for frame in sampled] == list(range(7))
    assert [frame.time for frame in sampled] == [whole[n].time for n in (0, 1, 1, 2, 3, 3, 4)]
    facts = describe(footage.path)
    assert (facts.container, facts.seconds, facts.frames) == (
        {".png": "apng"}.get(suffix, suffix[1:]), 0.79, 5
    )  # fmt: skip


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_number_of_plays_survives_a_change_of_format(tmp_path, source, target):
    for loop in (0, 3):
        path = write(tmp_path / f"in{loop}{source}", loop=loop)
        made = rewrite(path, tmp_path / f"out{loop}{target}")

        # A GIF tells how often it is repeated after the first time.
        assert (
            video_at(path).plays == video_at(made).plays == (loop + (source == ".gif" and loop > 0))
        )


def test_short_delays_of_a_gif_are_kept_and_missing_ones_are_a_tenth_of_a_second(tmp_path):
    short = write(tmp_path / "short.gif", lengths=[10, 20, 10])
    missing = write(tmp_path / "missing.gif", lengths=[0, 0, 0])

    assert read(rewrite(short, tmp_path / "a.gif"))[1] == [10, 20, 10]
    assert read(rewrite(missing, tmp_path / "b.gif"))[1] == [100, 100, 100]


@pytest.mark.parametrize("transparent", [False, True])
def test_deep_apng_stays_deep(tmp_path, transparent):
    path = tmp_path / "in.apng"
    with av.open(str(path), "w", format="apng", options={"final_delay": "1/5"}) as out:
        video = out.add_stream("apng", rate=10)
        video.width, video.height = SIZE
        video.pix_fmt = "rgba64be" if transparent else "rgb48be"
        for number in range(3):
            deep = image(number, transparent).astype(np.uint16) * 257 - 3 * (number > 0)
            frame = av.VideoFrame.from_ndarray(deep, format="rgba64le")
            frame = frame.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))

    made = rewrite(path, tmp_path / "out.apng")

    whole = (0, 0, *SIZE)
    for old, new in zip(video_at(path).read(), video_at(made).read(), strict=True):
        assert new.pixels.frame.format.name.replace("le", "be") == video.pix_fmt
        np.testing.assert_array_equal(new.rgb_float(whole), old.rgb_float(whole))
        if transparent:
            np.testing.assert_array_equal(new.pixels.alpha(), old.pixels.alpha())


def test_palette_with_transparency_is_read(tmp_path):
    images = [Image.fromarray(image(n, transparent=True)) for n in range(3)]
    paletted = [one.quantize(64, Image.Quantize.FASTOCTREE) for one in images]
    path = tmp_path / "in.png"
    paletted[0].save(path, save_all=True, append_images=paletted[1:], duration=100)

    assert video_at(path).has_alpha()
    made = rewrite(path, tmp_path / "out.png")
    for old, new in zip(read(path)[2], read(made)[2], strict=True):
        np.testing.assert_array_equal(new[..., 3], old[..., 3])


def test_animation_of_long_metadata_is_still_one(tmp_path):
    path = write(tmp_path / "in.png", transparent=False)
    data = path.read_bytes()
    length = 30_000
    chunk = length.to_bytes(4, "big") + b"tEXt" + bytes(length)
    path.write_bytes(data[:33] + chunk + (0).to_bytes(4, "big") + data[33:])

    assert content_of(path) == "animation"
    assert len(list(video_at(path).read())) == 5


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_still_images_stay_photos(tmp_path, suffix):
    Image.fromarray(image(0, transparent=True)).save(tmp_path / f"still{suffix}")

    assert identify(tmp_path / f"still{suffix}") == ("photo", None)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.gif", ".gif", ".gif"), ("a.GIF", ".gif", ".GIF"), ("a.webp", ".webp", ".webp"),
        ("a.png", ".png", ".png"), ("a.apng", ".png", ".apng"), ("a.jpg", ".gif", ".gif"),
        ("a.gif", ".webp", ".webp"), ("a", ".png", ".png"),
    ],
)  # fmt: skip
def test_default_output_is_what_the_content_is(tmp_path, name, content, expected):
    write(tmp_path / f"x{content}").rename(tmp_path / name)

    assert default_video_suffix(tmp_path / name) == expected


def test_damaged_webp_is_refused_or_read_up_to_the_damage(tmp_path, caplog):
    path = write(tmp_path / "in.webp")
    data = path.read_bytes()
    (tmp_path / "short.webp").write_bytes(data[: len(data) // 2])
    third = data.index(b"ANMF", data.index(b"ANMF", data.index(b"ANMF") + 1) + 1)
    garbled = bytearray(data)
    garbled[third + 40 : third + 120] = b"\xff" * 80
    path.write_bytes(garbled)

    with pytest.raises(InputError, match=r"short\.webp cannot be read"):
        list(video_at(tmp_path / "short.webp").read())
    assert len(list(video_at(path).read())) == 2
    assert "in.webp is damaged; only the frames before the damage are read" in caplog.text


def test_gif_is_no_worse_than_ffmpegs_palette(tmp_path):
    """The palette of each frame is its own, which holds more colours than one for all."""
    source = make_clip(tmp_path / "in.mkv", codec="ffv1", pix_fmt="bgr0", audio=0)
    made = rewrite(source, tmp_path / "out.gif")
    graph = av.filter.Graph()
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    buffer = graph.add_buffer(width=64, height=48, format="rgb24", time_base=Fraction(1, 25))
    split, palette = graph.add("split"), graph.add("palettegen")
    use, sink = graph.add("paletteuse"), graph.add("buffersink")
    buffer.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        graph.push(frame)
    graph.push(None)
    common = [graph.pull().to_ndarray(format="rgb24") for _ in frames]

    def blurred(pixels):  # the eye averages dithering
        return cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 1.5)

    def error(shown):
        return np.mean([np.abs(blurred(a) - blurred(b)).mean() for a, b in zip(shown, frames)])  # noqa: B905

    assert error([frame[..., :3] for frame in read(made)[2]]) <= error(common)


def test_video_becomes_an_animation_that_never_ends(tmp_path):
    source = make_clip(tmp_path / "in.mp4", audio=0)
    assert type(video_at(source)) is VideoFile

    for suffix in (".gif", ".webp", ".apng"):
        assert read(rewrite(source, tmp_path / f"out{suffix}"))[0] == FOREVER


def test_equal_frames_of_a_webp_keep_their_joint_time(tmp_path):
    images = [image(n, transparent=False) for n in (0, 1, 1, 1)]
    segment = tmp_path / "segment.nut"
    with av.open(str(segment), "w", format="nut") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = *SIZE, "bgr0"
        for number, pixels in enumerate(images):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="bgr0")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        with av.open(str(make_clip(tmp_path / "x.mkv", audio=0))) as clip:
            stream, target = clip.streams.video[0], tmp_path / "out.webp"
            out.close()
            write_animation([Segment(segment, [0, 40, 80, 120], 500, 0)], target, stream, 18)

    assert sum(read(target)[1]) == 620
