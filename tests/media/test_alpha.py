"""The transparency of video is kept bit for bit, and only the swap changes colours."""

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap.media import codecs, colorspace, reader, writers
from faceswap.media.codecs import choose_encoding
from faceswap.media.footage import VideoFile, describe, sequence_at
from faceswap.media.photos import read_photo
from faceswap.media.writers import StreamTarget
from tests.support.clips import picture, segment_length, signer, times_of, unmarked

STEP = Fraction(1001, 24000)  # seconds per frame
BOX = (16, 8, 40, 32)  # the rect that a swap changes
LABEL = (0, 40, 24, 48)
SOURCES = {
    "yuva420p": ("ffv1", "mkv"), "yuva422p10le": ("ffv1", "mkv"), "yuva444p12le": ("ffv1", "mkv"),
    "gbrap": ("utvideo", "avi"), "gbrap10le": ("ffv1", "mkv"), "gbrap16le": ("ffv1", "mkv"),
    "bgra": ("ffv1", "mkv"), "ya8": ("ffv1", "mkv"), "rgba": ("png", "mov"),
    "rgba64be": ("png", "mov"), "argb": ("qtrle", "mov"), "yuva444p10le": ("prores_ks", "mov"),
}  # fmt: skip


def rgba(number):
    """A picture with every level of alpha, a clear stripe and an opaque one."""
    y, x = np.mgrid[:48, :64]
    alpha = (4 * x + y + 9 * number) % 256
    alpha[:4], alpha[4:8] = 0, 255
    return np.dstack([picture(number, 64, 48), alpha.astype(np.uint8)])


def write(path, codec, pixel_format, options=None, count=7):
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=1 / STEP, options=options or {})
        video.width, video.height, video.pix_fmt = 64, 48, pixel_format
        video.time_base = video.codec_context.time_base = Fraction(1, 24000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(rgba(number), format="rgba")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = number * 1001, Fraction(1, 24000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.fixture(params=SOURCES)
def source(request, tmp_path, monkeypatch):
    segment_length(monkeypatch, 3)
    codec, suffix = SOURCES[request.param]
    return write(tmp_path / f"in.{suffix}", codec, request.param)


@pytest.fixture
def vp9(tmp_path):
    options = {"auto-alt-ref": "0", "crf": "4", "b:v": "0"}
    return write(tmp_path / "in.webm", "libvpx-vp9", "yuva420p", options)


def swap(frame):
    """Change a rect, and cover another one, as a label does."""
    frame = frame.changed(BOX, 255 - frame.rgb_float(BOX))
    return frame.covered(LABEL, np.full((8, 24, 3), 90, np.uint8))


def rewrite(footage, target, change=None):
    """Rewrite footage with the default codec for transparent sources."""
    encoding = choose_encoding(target.suffix, "auto", 4, hardware=False, alpha=True)
    images = None if target.suffix else (lambda frame: f"{frame.index + 1:06d}.png")
    targets = {"video": StreamTarget(target, unmarked, encoding, images=images)}
    folder = target.with_name(".parts")
    with writers.open_video(targets, footage, folder) as output:
        for frame in footage.read():
            output.write({"video": change(frame) if change else frame})
    return target


def alphas(path):
    return [frame.pixels.alpha() for frame in reader.read_video(path)]


def labelled(alpha):
    left, top, right, bottom = LABEL
    alpha = alpha.copy()
    alpha[top:bottom, left:right] = np.iinfo(alpha.dtype).max
    return alpha


@pytest.mark.parametrize("change", [None, swap])
def test_ffv1_keeps_alpha_and_all_pixels_outside_the_swap(source, tmp_path, change):
    target = rewrite(VideoFile(source), tmp_path / "out.mkv", change)

    assert describe(target).streams[0].codec == "ffv1"
    for old, new in zip(reader.read_video(source), reader.read_video(target), strict=True):
        wanted = labelled(old.pixels.alpha()) if change else old.pixels.alpha()
        np.testing.assert_array_equal(new.pixels.alpha(), wanted)
        before, after = old.rgb_float((0, 0, 64, 48)), new.rgb_float((0, 0, 64, 48))
        if change:
            is_sampled = new.pixels.frame.format.name.startswith(("yuva420", "yuva422"))
            reach = 2 * is_sampled  # pixels at which chroma is interpolated
            for left, top, right, bottom in (BOX, LABEL):
                inside = np.s_[top - reach : bottom + reach, max(left - reach, 0) : right + reach]
                assert np.abs(after[inside] - before[inside]).mean() > 5
                before[inside] = after[inside]
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("pixel_format", ["yuva420p", "yuva422p10le", "yuva444p12le", "gbrap12le"])
def test_planes_outside_the_swap_stay_bit_for_bit(tmp_path, pixel_format):
    source = write(tmp_path / "in.mkv", "ffv1", pixel_format, count=2)
    target = rewrite(VideoFile(source), tmp_path / "out.mkv", swap)

    for old, new in zip(reader.read_video(source), reader.read_video(target), strict=True):
        one, two = old.pixels.frame, new.pixels.frame
        assert one.format.name == two.format.name == pixel_format
        for before, after in zip(one.planes, two.planes, strict=True):
            a, b = (colorspace._pixels(p, colorspace.is_deep(one)).copy() for p in (before, after))
            across, down = 64 // a.shape[1], 48 // a.shape[0]
            for left, top, right, bottom in (LABEL, BOX):
                inside = np.s_[top // down : bottom // down, left // across : right // across]
                a[inside] = b[inside]
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change", [None, swap])
def test_prores_keeps_alpha(source, tmp_path, change):
    target = rewrite(VideoFile(source), tmp_path / "out.mov", change)

    assert describe(target).pixel_format == "yuva444p12le"
    for old, new in zip(alphas(source), alphas(target), strict=True):
        wanted = labelled(old) if change else old
        full = np.iinfo(wanted.dtype).max
        steps = 255 if full == 255 else 1023  # the encoder takes 10 bits
        np.testing.assert_array_equal(np.rint(new / 65535 * steps), np.rint(wanted / full * steps))
    assert times_of(target) == times_of(source)
    again = rewrite(VideoFile(target), tmp_path / "again.mov")
    for old, new in zip(alphas(target), alphas(again), strict=True):
        np.testing.assert_array_equal(new, old)


def test_vp9_is_read_and_written_with_alpha(vp9, tmp_path, monkeypatch):
    segment_length(monkeypatch, 3)
    assert VideoFile(vp9).has_alpha()
    assert describe(vp9).pixel_format == "yuva420p"
    for number, alpha in enumerate(alphas(vp9)):
        assert np.abs(alpha.astype(int) - rgba(number)[..., 3]).max() <= 12  # VP9 is lossy

    lossless = rewrite(VideoFile(vp9), tmp_path / "out.mkv")
    again = rewrite(VideoFile(vp9), tmp_path / "out.webm")

    for one, two, three in zip(alphas(vp9), alphas(lossless), alphas(again), strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.abs(one.astype(int) - three).max() <= 12
    assert times_of(again) == times_of(vp9)
    for part in (VideoFile(vp9).read(4), VideoFile(vp9).sample(1)):  # seeking keeps alpha, too
        assert next(iter(part)).pixels.alpha() is not None


def test_frames_of_transparent_video_become_transparent_images(source, tmp_path):
    target = rewrite(VideoFile(source), tmp_path / "out", swap)

    for path, frame in zip(sorted(target.iterdir()), reader.read_video(source), strict=True):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image[..., 3], labelled(frame.pixels.alpha()))


def write_images(folder, depth):
    folder.mkdir()
    for number in range(4):
        image = rgba(number)
        if depth == 16:
            image = image.astype(np.uint16) * 257 - (image > 9)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image[..., [2, 1, 0, 3]])
    return folder


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_images_equal_the_lossless_video(tmp_path, depth):
    shots = sequence_at(write_images(tmp_path / "shots", depth) / "###.png")
    assert shots.has_alpha()
    video = rewrite(shots, tmp_path / "video.mkv")
    swapped = rewrite(shots, tmp_path / "swapped.mkv", swap)
    images = rewrite(VideoFile(video), tmp_path / "images", swap)

    assert describe(video).pixel_format == ("bgra" if depth == 8 else "gbrap16le")
    for still, frame in zip(shots.read(), VideoFile(video).read(), strict=True):
        np.testing.assert_array_equal(frame.image, still.image)
        np.testing.assert_array_equal(frame.gray(), still.gray())
        whole = (0, 0, 64, 48)
        np.testing.assert_array_equal(frame.rgb_float(whole), still.rgb_float(whole))
    for path, still, frame in zip(
        sorted(images.iterdir()), shots.read(), VideoFile(swapped).read(), strict=True
    ):
        with writers.photo_writer(
            tmp_path / "still.png", still.source, signer().publisher(still.source)
        ) as writer:
            writer.write(swap(still))
        one, two = (
            cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (tmp_path / "still.png", path)
        )
        assert one.dtype == (np.uint8 if depth == 8 else np.uint16)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one[..., 3], frame.pixels.alpha())
        original = cv2.imread(str(still.source), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(one[..., 3], labelled(original[..., 3]))
        np.testing.assert_array_equal(one[:8], original[:8])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "deep"])
def test_label_is_opaque_on_a_transparent_photo(tmp_path, mode):
    path, target = tmp_path / "photo.png", tmp_path / "out.png"
    if mode == "deep":
        cv2.imwrite(str(path), np.full((48, 64, 4), 1000, np.uint16))
    else:
        Image.fromarray(rgba(0)).convert(mode).save(path)
    with writers.photo_writer(target, path, signer().publisher(path)) as writer:
        writer.write(read_photo(path).covered(LABEL, np.full((8, 24, 3), 90, np.uint8)))

    before, after = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (path, target))
    np.testing.assert_array_equal(after[..., 3], labelled(before[..., 3]))


@pytest.mark.parametrize(
    ("suffix", "codec", "encoder", "is_kept"),
    [
        (".mov", "auto", "prores_ks", True), (".mkv", "auto", "ffv1", True),
        (".webm", "auto", "libvpx-vp9", True), (".mp4", "auto", "libx264", False),
        (".m4v", "auto", "libx264", False), (".mov", "h264", "libx264", False),
        (".mp4", "h265", "libx265", False), (".mkv", "vp9", "libvpx-vp9", True),
        (".webm", "av1", "libsvtav1", False),
    ],
)  # fmt: skip
def test_codec_of_a_transparent_source_keeps_transparency(suffix, codec, encoder, is_kept):
    chosen = choose_encoding(suffix, codec, 18, hardware=False, alpha=True)

    assert (chosen.encoder, chosen.alpha) == (encoder, is_kept)
    assert not choose_encoding(suffix, codec, 18, hardware=False).alpha


@pytest.mark.parametrize("codec", ["h264", "h265", "prores"])
@pytest.mark.parametrize("pixel_format", ["yuva420p", "bgra"])
def test_source_with_alpha_can_be_written_without(tmp_path, codec, pixel_format):
    source = write(tmp_path / "in.mkv", "ffv1", pixel_format, count=3)
    encoding = replace(choose_encoding(".mov", codec, 4, hardware=False, alpha=True), alpha=False)
    targets = {"video": StreamTarget(tmp_path / "out.mov", unmarked, codecs.opaque(encoding))}
    with writers.open_video(targets, VideoFile(source), tmp_path / ".p") as output:
        for frame in reader.read_video(source):
            output.write({"video": swap(frame)})

    assert alphas(tmp_path / "out.mov") == [None] * 3
