"""Resumed conversions equal unbroken ones; also excerpts, layers and bounded memory."""

import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, OutputError
from faceswap.faces.geometry import Box, Face
from faceswap.media import reader, segments, writers
from faceswap.media.frame import Frame
from faceswap.media.writers import write_clip
from faceswap.provenance import watermark
from faceswap.swapping.converter import convert
from faceswap.tracking import tracker
from tests.support.clips import packets, rich_clip, segment_length, sound_of, times_of
from tests.support.stops import Stopped, is_check, stop_after

# FFV1 output can be compared bit for bit; x264 output differs from run to run.
QUICK = ConvertConfig(workers=1, device="cpu", detector="hog", codec="ffv1")
FRAMES = 70


@pytest.fixture(scope="module")
def two_person_clip(tmp_path_factory, together):
    """A clip of two moving people, whose first of three shots has 30 frames.

    Her face is the one to swap. Nobody is visible in frames 30 to 35, and he appears at frame 14.
    """
    path = tmp_path_factory.mktemp("footage") / "video.mp4"
    images = []
    for number in range(FRAMES):
        image = np.roll(together[:288, 96:832], 2 * number % 30, axis=1)
        if 30 <= number < 36:
            image = np.full_like(image, 40)
        if number < 14:
            image = image.copy()
            image[:, 368:] = 90
        images.append(image)
    sound = (np.sin(np.arange(48000 * FRAMES // 25) * 0.1) * 9000).astype(np.int16)
    write_clip(path, images, 25, sound, 48000)
    return path


@pytest.fixture
def clip(tmp_path, two_person_clip):
    (tmp_path / "video.mp4").write_bytes(two_person_clip.read_bytes())
    return tmp_path / "video.mp4"


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    segment_length(monkeypatch, 10)


@pytest.fixture(scope="module")
def unbroken(two_person_clip, model, tmp_path_factory):
    """Video packets, audio packets and the report of a conversion that was never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        segment_length(patch, 10)
        target = tmp_path_factory.mktemp("unbroken") / "out.mkv"
        report = convert(two_person_clip, target, model, QUICK)
    assert 0 < report.without_face < 10
    return packets(target, "video"), packets(target, "audio"), report


@pytest.fixture
def work(monkeypatch):
    """Record the numbers of the segments encoded and how many frames are searched for faces."""
    done = {"segments": [], "searched": 0}

    class Counted(writers.VideoSegmentWriter):
        def __init__(self, path, *rest):
            done["segments"].append(int(path.stem[-5:]))
            super().__init__(path, *rest)

    def detect(detector, images, *rest):
        done["searched"] += len(images)
        return detect_in_span(detector, images, *rest)

    detect_in_span = tracker.detect_in_span
    monkeypatch.setattr(writers, "VideoSegmentWriter", Counted)
    monkeypatch.setattr(tracker, "detect_in_span", detect)
    return done


def swapped(clip):
    return clip.with_name("video.swapped.mkv")


def check_equals_unbroken(clip, unbroken, report):
    target = swapped(clip)
    assert packets(target, "video") == unbroken[0]
    assert packets(target, "audio") == unbroken[1]
    times = times_of(target)  # Matroska starts at AAC's first packet, before the video
    assert [time - times[0] for time in times] == times_of(clip)
    for name in ("frames", "faces", "without_face"):
        assert getattr(report, name) == getattr(unbroken[2], name)
    assert sorted(path.name for path in clip.parent.iterdir()) == [
        "video.mp4",
        target.name,
        f"{target.name}.c2pa",
        "video.swapped.report.json",
    ]


@pytest.mark.parametrize("stops", [[3], [25, 26, 59], [70]])
@pytest.mark.slow
def test_resume_after_stop_equals_unbroken_run(clip, model, unbroken, work, stops):
    for number, stop in enumerate(stops):
        with pytest.raises(Stopped):
            convert(clip, swapped(clip), model, QUICK, on_progress=stop_after(stop))
        whole = max(stops[: number + 1]) // 10
        left = [path for path in clip.parent.iterdir() if path.name.startswith(".")]
        assert len(left) == (whole > 0)  # an unfinished segment leaves nothing behind
        assert len(list(left[0].glob("*.part"))) >= whole if left else True
    before = work["searched"]
    work["segments"].clear()

    report = convert(clip, swapped(clip), model, QUICK)

    check_equals_unbroken(clip, unbroken, report)
    whole = max(stops) // 10
    assert report.resumed == whole * 10
    assert work["segments"] == list(range(whole, 7))
    assert work["searched"] - before <= FRAMES - whole * 10


@pytest.mark.slow
def test_resume_after_kill_equals_unbroken_run(clip, model, unbroken, work):
    code = (
        "import os, signal, sys\nfrom faceswap.media import segments, writers\n"
        "from faceswap.config import ConvertConfig\n"
        "from faceswap.swapping.converter import convert\n"
        "segments.SEGMENT_FRAMES = writers.SEGMENT_FRAMES = 10\n"
        "def kill(event):\n"
        "    if event.unit == 'frames' and event.done == 47: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(*sys.argv[1:],\n"
        "        ConvertConfig(workers=1, device='cpu', detector='hog', codec='ffv1'), kill)"
    )
    other = subprocess.run([sys.executable, "-c", code, clip, swapped(clip), model], check=False)
    assert other.returncode == -signal.SIGKILL

    report = convert(clip, swapped(clip), model, QUICK)

    check_equals_unbroken(clip, unbroken, report)
    assert report.resumed == 40
    assert work["segments"] == [4, 5, 6]


def segment_folder(clip):
    (folder,) = (path for path in clip.parent.iterdir() if path.name.startswith("."))
    return folder


def truncate_lines(path, keep, tail=b""):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:keep]) + tail)


@pytest.mark.parametrize(
    ("name", "keep", "tail"),
    [("done.jsonl", 0, b""), ("done.jsonl", 3, b'{"times": [1'),
     ("faces.jsonl", 0, b""), ("faces.jsonl", 2, b"\0" * 900)],
)  # fmt: skip
@pytest.mark.slow
def test_resume_after_lines_are_lost_equals_unbroken_run(clip, model, unbroken, name, keep, tail):
    with pytest.raises(Stopped):
        convert(clip, swapped(clip), model, QUICK, on_progress=stop_after(55))
    truncate_lines(segment_folder(clip) / name, keep, tail)

    check_equals_unbroken(clip, unbroken, convert(clip, swapped(clip), model, QUICK))


@pytest.mark.parametrize("name", ["done.jsonl", "faces.jsonl"])
@pytest.mark.slow
def test_damaged_resume_files_are_a_one_line_error(clip, model, unbroken, name):
    with pytest.raises(Stopped):
        convert(clip, swapped(clip), model, QUICK, on_progress=stop_after(55))
    folder = segment_folder(clip)
    truncate_lines(folder / name, 1, b"words\n")

    with pytest.raises(
        (InputError, OutputError), match=f"{name}.* is damaged .*: delete"
    ) as caught:
        convert(clip, swapped(clip), model, QUICK)

    assert "\n" not in str(caught.value)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    check_equals_unbroken(clip, unbroken, convert(clip, swapped(clip), model, QUICK))


@pytest.mark.slow
def test_segments_are_not_reused_with_other_settings(clip, model, unbroken, work):
    with pytest.raises(Stopped):
        convert(clip, swapped(clip), model, QUICK, on_progress=stop_after(25))
    work["segments"].clear()

    other = convert(clip, clip.with_name("other.mkv"), model, QUICK)
    assert segment_folder(clip).is_dir()
    bare = convert(clip, swapped(clip), model, replace(QUICK, color="none"))

    assert (other.resumed, bare.resumed) == (0, 0)
    assert work["segments"] == [*range(7), *range(7)]
    assert packets(bare.output, "video") != packets(other.output, "video") == unbroken[0]
    assert [kept.frames for kept in bare.unfinished] == [20]
    assert bare.unfinished[0].folder == segment_folder(clip)

    with pytest.raises(OutputError, match="exists already; pass --overwrite"):
        convert(clip, swapped(clip), model, QUICK)
    resumed = convert(clip, swapped(clip), model, replace(QUICK, overwrite=True))

    assert (resumed.resumed, resumed.unfinished) == (20, [])
    assert packets(resumed.output, "video") == unbroken[0]


@pytest.mark.slow
def test_second_conversion_of_the_same_output_is_refused(clip, model):
    def convert_again(event):
        if event.done == 12 and not is_check(event):
            with pytest.raises(OutputError, match="is under way in another process") as caught:
                convert(clip, swapped(clip), model, QUICK)
            assert "\n" not in str(caught.value)
            raise Stopped

    with pytest.raises(Stopped):
        convert(clip, swapped(clip), model, QUICK, on_progress=convert_again)
    assert segment_folder(clip).is_dir()


@pytest.mark.parametrize("stop", [None, 27])
def test_excerpt_holds_its_span_with_audio_in_sync(clip, model, stop):
    config = replace(QUICK, codec="auto", start="0.42", end="0:02.2")
    if stop:
        with pytest.raises(Stopped):
            convert(clip, clip.with_name("out.mp4"), model, config, on_progress=stop_after(stop))

    report = convert(clip, clip.with_name("out.mp4"), model, config)

    wanted = [time for time in times_of(clip) if Fraction(42, 100) <= time < Fraction(22, 10)]
    assert report.resumed == (20 if stop else 0)
    assert report.frames == len(wanted)
    assert times_of(report.output) == [time - wanted[0] for time in wanted]
    (before,), (after,) = sound_of(clip), sound_of(report.output)
    inside = [p for p in before if wanted[0] <= p[1] < Fraction(22, 10)]
    assert [p[0] for p in after] == [p[0] for p in inside]
    for old, new in zip(inside, after, strict=True):
        assert abs(old[1] - wanted[0] - new[1]) <= Fraction(1, 48000)
    whole = list(reader.read_video(clip))
    first = whole.index(next(f for f in whole if f.time == wanted[0]))
    for old, new in zip(whole[first:], reader.read_video(report.output), strict=False):
        assert np.abs(old.image[200:].astype(int) - new.image[200:]).mean() < 3  # the same frame


def test_empty_excerpt_is_a_one_line_error(clip, model):
    with pytest.raises(InputError, match=r"video\.mp4 has no frame between --start and --end"):
        convert(clip, swapped(clip), model, replace(QUICK, start="100"))
    assert [path.name for path in clip.parent.iterdir()] == ["video.mp4"]


def test_layers_composited_over_the_clip_equal_the_swap(clip, model, monkeypatch):
    monkeypatch.setattr(watermark, "MAX_STRENGTH", 0.0)
    config = replace(QUICK, end="0.8", layers=True, matte=True)
    report = convert(clip, clip.with_name("out.mkv"), model, config)

    layers = clip.with_name("out.layers.mov")
    with av.open(str(layers)) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.pix_fmt) == ("prores", "yuva444p12le")
        assert (video.width, video.height) == (736, 288)
        rgba = [frame.to_ndarray(format="rgba") for frame in container.decode(video)]
    frames = list(reader.read_video(report.output))
    assert times_of(layers) == times_of(report.output) == times_of(clip.with_name("out.matte.mkv"))
    assert len(rgba) == 20
    for layer, swapped, original in zip(rgba, frames, reader.read_video(clip), strict=False):
        share = layer[..., 3:] / 255
        over = layer[..., :3] * share + original.image * (1 - share)
        difference = np.abs(over - swapped.image)
        assert difference.mean() < 1
        assert difference[share[..., 0] > 0.5].mean() < 5
        assert (share == 1).any()


def test_image_sequence_gets_matte_and_layer_sequences(clip, model):
    import cv2

    config = replace(QUICK, codec="auto", start="0.2", end="0.6", layers=True, matte=True)

    report = convert(clip, clip.with_name("out"), model, config)

    assert report.frames == 10
    names = [f"{number:06d}.png" for number in range(1, 11)]
    for folder, channels in (("out", 3), ("out.matte", 3), ("out.layers", 4)):
        paths = sorted(clip.with_name(folder).iterdir())
        assert [path.name for path in paths] == names
        image = cv2.imread(str(paths[-1]), cv2.IMREAD_UNCHANGED)
        assert image.shape == (288, 736, channels)


def peak_frames(monkeypatch, source, target, model, collins_face):
    """Return the peak number of decoded frames in memory during a conversion."""
    alive, most = weakref.WeakSet(), 0

    class Counted(reader.Decoded):  # no __slots__, so that it can be weakly referenced
        pass

    def read(*args):
        nonlocal most
        for read_frame in read_video(*args):
            decoded = Counted(read_frame.pixels.frame)
            alive.add(decoded)
            most = max(most, len(alive))
            yield Frame(decoded, read_frame.index, read_frame.time, source)

    def detect(detector, images, *rest):
        return [[replace(face, track=0)] for _ in images]

    face = replace(collins_face, landmarks=collins_face.landmarks * np.float32(0.12),
                   box=Box(20, 10, 40, 30))  # fmt: skip
    assert isinstance(face, Face)
    read_video = reader.read_video
    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_video", read)
        patch.setattr(tracker, "detect_in_span", detect)
        report = convert(source, target, model, QUICK)
    assert report.faces == report.frames
    return most


@pytest.mark.slow
def test_memory_does_not_grow_with_clip_length(tmp_path, monkeypatch, model, collins_face):
    most = []
    for count in (120, 180):
        source = rich_clip(tmp_path / f"{count}.mp4", times=[40 * n for n in range(count)])
        most.append(
            peak_frames(monkeypatch, source, tmp_path / f"{count}.out.mkv", model, collins_face)
        )

    assert most[0] <= 100
    assert most[1] <= most[0] + 8  # how far threads run ahead varies by a few frames


def test_short_segments_fixture_applies():
    assert segments.SEGMENT_FRAMES == writers.SEGMENT_FRAMES == 10


@pytest.mark.slow
def test_run_that_was_killed_while_it_published_goes_on(clip, model, unbroken, monkeypatch):
    def fail(*arguments):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(writers, "_join_segments", fail)
        with pytest.raises(Stopped):
            convert(clip, swapped(clip), model, QUICK)
    swapped(clip).write_bytes(b"half an output")  # moved into place before the kill

    report = convert(clip, swapped(clip), model, QUICK)

    assert report.resumed == FRAMES
    check_equals_unbroken(clip, unbroken, report)
