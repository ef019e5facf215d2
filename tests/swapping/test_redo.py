"""Some frames of a finished conversion are rendered again, with other settings; the others stay."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, SettingsError
from faceswap.media.codecs import GROUP
from faceswap.media.reader import read_video
from faceswap.media.segments import SEGMENT_FRAMES
from faceswap.provenance.credentials import read
from faceswap.swapping.converter import convert
from faceswap.swapping.redo import plan_again, redo
from tests.support.clips import differing, moving, pixels, write_lossless
from tests.support.commands import checked, faceswap, one_line_error
from tests.support.stops import Stopped, stop_after

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog", smooth=False, match_detail=False)
LENGTH = 10


@pytest.fixture(scope="module")
def images(together):
    """Return a shot of two people, the larger of whom changes."""
    return moving(together, LENGTH)


@pytest.fixture
def clip(tmp_path, images):
    return write_lossless(tmp_path / "clip.mkv", images)


@pytest.fixture
def shots(tmp_path, images):
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"shot.{1001 + number}.png")
    return folder


def report_of(path):
    return json.loads(path.read_text())


def test_what_a_cluster_made_is_redone_without_one(clip, model):
    report = convert(clip, model=model, config=replace(QUICK, codec="ffv1"))
    written = report_of(report.report)
    written["settings"] |= {"cluster": True, "workers": 3}
    report.report.write_text(json.dumps(written))

    settings = plan_again(clip, None, None, {}).job.config
    asked = plan_again(clip, None, None, {"cluster": True, "workers": 2}).job.config

    assert (settings.cluster, settings.workers) == (False, ConvertConfig().workers)
    assert (asked.cluster, asked.workers) == (True, 2)


@pytest.mark.parametrize("matte", [False, True])
@pytest.mark.slow
def test_frames_of_a_video_are_redone(tmp_path, clip, model, matte):
    whole = replace(QUICK, codec="ffv1", matte=matte)
    output = convert(clip, model=model, config=whole).output
    other = convert(clip, tmp_path / "other.mkv", model, replace(whole, color="none")).output
    before = pixels(output)
    mattes = [folder.with_name(f"{folder.stem}.matte.mkv") for folder in (output, other)]

    report = redo(clip, "2-3,7", changes={"color": "none"})

    after = pixels(output)
    assert differing(before, after) == [2, 3, 7]
    assert differing(after, pixels(other)) == [0, 1, 4, 5, 6, 8, 9]
    assert (report.frames, report.redone) == (LENGTH, 3)
    if matte:
        assert differing(pixels(mattes[0]), pixels(mattes[1])) == []
    written = report_of(report.report)
    assert written["redone"][0]["frames"] == "2-3,7"
    assert written["redone"][0]["changes"] == {"color": "none"}
    assert len(written["frames"]) == LENGTH
    assert read(output).intact
    assert read(output).parent.title == output.name
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_images_of_a_sequence_are_redone(shots, model):
    output = convert(shots, model=model, config=replace(QUICK, images="sequence")).output
    before, times = pixels(output), [f.stat().st_mtime_ns for f in sorted(output.iterdir())]

    redo(shots, "1004,1009-", changes={"color": "none"})

    assert differing(before, pixels(output)) == [3, 8, 9]
    changed = [f.stat().st_mtime_ns for f in sorted(output.iterdir())]
    assert [a != b for a, b in zip(times, changed, strict=True)] == [
        number in (3, 8, 9) for number in range(LENGTH)
    ]
    assert read(output / "shot.1004.png").intact


def test_choice_of_faces_is_kept_or_made_again(clip, model, images, tmp_path):
    Image.fromarray(images[0]).crop((0, 0, 256, 256)).save(tmp_path / "who.png")
    settings = replace(QUICK, codec="ffv1", who=(str(tmp_path / "who.png"),))
    report = convert(clip, model=model, config=settings)
    assert report.not_swapped == {"not chosen": LENGTH}

    same = redo(clip, "5", changes={"color": "none"})
    everyone = redo(clip, "5-6", changes={"all_faces": True, "who": ()})

    assert (same.faces, same.not_swapped) == (LENGTH, {"not chosen": LENGTH})
    assert (everyone.faces, everyone.not_swapped) == (LENGTH + 2, {"not chosen": LENGTH - 2})


def test_frames_of_an_excerpt_are_redone_by_their_numbers_in_the_source(clip, model):
    settings = replace(QUICK, codec="ffv1", start="0.125", frames="5-6")
    report = convert(clip, model=model, config=settings)
    assert (report.frames, report.faces) == (7, 2)
    before = pixels(report.output)

    redone = redo(clip, "8")

    assert differing(before, pixels(report.output)) == [5]
    assert redone.faces == 3
    assert next(read_video(report.output)).time == 0


@pytest.mark.parametrize(
    ("frames", "changes", "message"),
    [
        ("10", {}, "there is no frame 10 to redo: the output has the frames 0 to 9"),
        ("3,12-14", {}, "there is no frame 12-14 to redo"),
        ("x", {}, "frames must be ranges"),
        ("3", {"codec": "h264", "end": "1"}, "--redo keeps end, codec as in the whole output"),
        ("3", {"colour": "none"}, "unknown setting colour"),
    ],
)
def test_what_cannot_be_redone_is_refused(clip, model, frames, changes, message):
    output = convert(clip, model=model, config=replace(QUICK, codec="ffv1")).output
    before = output.read_bytes()

    with pytest.raises(SettingsError, match=message):
        redo(clip, frames, changes=changes)
    assert output.read_bytes() == before


def test_output_and_report_must_exist_and_match(tmp_path, clip, model, images):
    with pytest.raises(InputError, match=r"clip.swapped.mkv does not exist; convert .* first"):
        redo(clip, "3")
    report = convert(clip, model=model, config=replace(QUICK, codec="ffv1"))
    text = report.report.read_text()

    report.report.write_text("{")
    with pytest.raises(InputError, match="is not a readable report"):
        redo(clip, "3")
    report.report.write_text(text.replace('"time": 0.125', '"time": 0.126'))
    with pytest.raises(InputError, match="has changed since it was converted"):
        redo(clip, "3")
    report.report.unlink()
    with pytest.raises(InputError, match=r"report.json does not exist; convert writes it"):
        redo(clip, "3")
    with pytest.raises(SettingsError, match="replaces frames of videos and image sequences only"):
        redo(clip, "3", tmp_path / "x.gif")
    photo = tmp_path / "photo.png"
    Image.fromarray(images[0]).save(photo)
    with pytest.raises(SettingsError, match="replaces frames of videos and image sequences only"):
        redo(photo, "3")


def test_a_stopped_redo_leaves_the_output_alone(tmp_path, clip, model):
    report = convert(clip, model=model, config=replace(QUICK, codec="ffv1"))
    before, text = report.output.read_bytes(), report.report.read_text()

    with pytest.raises(Stopped):
        redo(clip, "2-8", changes={"color": "none"}, on_progress=stop_after(4))

    assert report.output.read_bytes() == before
    assert report.report.read_text() == text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_command_redoes_frames(tmp_path, clip, model):
    options = ["--workers", "1", "--detector", "hog", "--device", "cpu", "--codec", "ffv1"]
    faceswap("convert", clip, "--model", model, *options, cwd=tmp_path)

    done = faceswap("convert", clip, "--redo", "3", "--color", "none", "--json", cwd=tmp_path)
    refused = faceswap("convert", clip, "--redo", "99", cwd=tmp_path, code=7)

    assert checked("convert", done.stdout)["redone"] == 1
    assert "there is no frame 99 to redo" in one_line_error(refused)
    faceswap("convert", clip, "--redo", "3", "--preview", "3", cwd=tmp_path, code=2)


def test_segments_hold_whole_groups_of_pictures():
    assert SEGMENT_FRAMES % GROUP == 0
