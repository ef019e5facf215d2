"""Image sequences are converted like video, and folders of photos go on where they stopped."""

import json
from dataclasses import replace
from fractions import Fraction

import jsonschema
import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, NoFacesError, OutputError
from faceswap.media.photos import read_photo
from faceswap.media.reader import read_video
from faceswap.media.segments import unfinished
from faceswap.provenance.credentials import read
from faceswap.swapping import plan
from faceswap.swapping.converter import contact_sheet, convert
from scripts.tools.schemas import schemas
from tests.support.clips import segment_length, times_of, write_lossless
from tests.support.stops import Stopped, is_check, stop_after

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")
SHOWN = [n for n in range(14) if n not in (5, 6)]  # frames with a face


@pytest.fixture(scope="module")
def images(collins):
    empty = np.full_like(collins, 40)
    return [
        np.roll(collins, 3 * n, axis=1) if n in SHOWN else np.roll(empty, n, axis=1)
        for n in range(14)
    ]


@pytest.fixture
def shots(tmp_path, images):
    """Write frames 1001 to 1015 without 1011."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for at, image in enumerate(images):
        Image.fromarray(image).save(folder / f"shot.{1001 + at + (at >= 10)}.png")
    return folder


@pytest.fixture
def lossless(tmp_path, images):
    times = [at + (at >= 10) for at in range(len(images))]
    return write_lossless(tmp_path / "shots.mkv", images, times=times)


def pictures(folder):
    return [read_photo(path).image for path in sorted(folder.iterdir())]


def test_sequence_equals_lossless_video_and_its_resumed_run(
    tmp_path, shots, lossless, images, model, monkeypatch
):
    segment_length(monkeypatch, 4)
    monkeypatch.setattr(plan, "payload_of", lambda *_: 1)  # it names the video, or the first image
    config = replace(QUICK, matte=True)
    video = convert(lossless, tmp_path / "video.mkv", model, replace(config, codec="ffv1"))
    pattern = shots / "shot.%04d.png"
    with pytest.raises(Stopped):
        convert(pattern, tmp_path / "out", model, config, stop_after(9))
    (kept,) = unfinished(tmp_path)
    assert (kept.output, kept.source, kept.frames) == (tmp_path / "out", pattern, 8)

    report = convert(pattern, tmp_path / "out", model, config)

    assert report.resumed == 8
    assert (report.frames, report.faces) == (video.frames, video.faces) == (14, len(SHOWN))
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == [path.name for path in sorted(shots.iterdir())]
    assert names == [path.name for path in sorted((tmp_path / "out.matte").iterdir())]
    for stream, clip in (("out", "video.mkv"), ("out.matte", "video.matte.mkv")):
        decoded = [frame.image for frame in read_video(tmp_path / clip)]
        for one, other in zip(pictures(tmp_path / stream), decoded, strict=True):
            np.testing.assert_array_equal(one, other)
    for name, image, at in zip(names, images, range(14), strict=True):
        same = (shots / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
        assert same == (at not in SHOWN)
        if at in SHOWN:
            assert (read_photo(tmp_path / "out" / name).image != image).any()
    assert read(tmp_path / "out" / names[0]).parent.title == names[0]
    assert {(t.kind, t.first, t.last) for t in report.troubles if t.kind != "small face"} == {
        ("missing frame", 10, 10), ("lost face", 5, 6)
    }  # fmt: skip


def test_every_frame_is_in_the_report(shots, model, tmp_path):
    report = convert(shots, tmp_path / "out", model, replace(QUICK, frames="1001-1004"))

    text = report.report.read_text()
    content = json.loads(text)
    jsonschema.validate(content, schemas()["report"])
    assert report.report == tmp_path / "out.report.json"
    assert [frame["file"] for frame in content["frames"]] == sorted(p.name for p in shots.iterdir())
    fates = [[face["fate"] for face in frame["faces"]] for frame in content["frames"]]
    assert fates == [["swapped"]] * 4 + [["outside"] if n in SHOWN else [] for n in range(4, 14)]
    assert content["faces"] == {"swapped": 4, "outside": 8}
    assert report.not_swapped == {"outside": 8}
    assert text.count("\n") < 14 + 300  # one line a frame


def test_sequence_becomes_a_video_at_its_rate(shots, model, tmp_path):
    config = replace(QUICK, fps=23.976, codec="prores", end="0.3")

    report = convert(shots, tmp_path / "out.mov", model, config)

    rate = Fraction(24000, 1001)
    assert times_of(report.output) == [n / rate for n in range(8)]


def test_sixteen_bit_sequence_keeps_its_depth(tmp_path, collins, model):
    import cv2

    folder = tmp_path / "deep"
    folder.mkdir()
    for number in range(3):
        deep = np.roll(collins, 2 * number, axis=1)[..., ::-1].astype(np.uint16) * 257 + number
        cv2.imwrite(str(folder / f"{number:04d}.tif"), deep)

    report = convert(folder, None, model, replace(QUICK, images="sequence", intermediate=True))

    assert report.output == tmp_path / "deep.swapped"
    for number in range(3):
        new, old = (read_photo(f / f"{number:04d}.tif").pixels for f in (report.output, folder))
        assert new.pixels.dtype == np.uint16
        changed = (new.pixels != old.pixels).any(axis=2)
        assert 0 < changed.mean() < 0.5  # all others are equal, bit by bit


def test_preview_shows_only_what_is_selected(shots, model, tmp_path, images):
    sheet = tmp_path / "sheet.png"

    shown = contact_sheet(shots, sheet, 2, model, replace(QUICK, frames="1006-1007"))

    assert shown == 0  # only these two show no face
    with pytest.raises(OutputError, match="exists already"):
        contact_sheet(shots, sheet, 2, model, replace(QUICK, frames="1006-1007"))
    with pytest.raises(InputError, match="has no frame between --start and --end and in --frames"):
        contact_sheet(shots, tmp_path / "new.png", 2, model, replace(QUICK, frames="1-9"))


def test_output_folder_with_other_files_is_never_replaced(shots, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"mine")

    with pytest.raises(OutputError, match="exists already"):
        convert(shots, out, model, QUICK)
    with pytest.raises(OutputError, match=r"out holds holiday\.jpg"):
        convert(shots, out, model, replace(QUICK, overwrite=True))

    assert (out / "holiday.jpg").read_bytes() == b"mine"


@pytest.fixture
def photos(tmp_path, collins):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "deep/c.jpg"):
        Image.fromarray(collins).save(folder / name)
    Image.fromarray(np.full((90, 90, 3), 7, np.uint8)).save(folder / "wall.jpg")
    (folder / "notes.txt").write_text("words")
    return folder


def test_folder_goes_on_where_it_stopped(photos, model, tmp_path):
    with pytest.raises(Stopped):
        convert(photos, None, model, QUICK, stop_after(2))
    (kept,) = unfinished(tmp_path)
    assert (kept.output, kept.frames) == (tmp_path / "photos.swapped", 2)
    done = []

    def note(event):
        if not is_check(event):
            done.append(event.done)

    report = convert(photos, None, model, QUICK, note)

    assert kept.wrote_output
    assert done == [3, 4]
    assert (report.resumed, report.frames, report.faces, report.without_face) == (2, 4, 3, 1)
    assert report.left_out == ["notes.txt"]
    content = json.loads(report.report.read_text())
    files = [frame["file"] for frame in content["frames"]]
    assert files == ["a.jpg", "b.png", "deep/c.jpg", "wall.jpg"]
    assert unfinished(tmp_path) == []
    with pytest.raises(OutputError, match="exists already; pass --overwrite"):
        convert(photos, None, model, QUICK)
    assert convert(photos, None, model, replace(QUICK, overwrite=True)).faces == 3


def test_mattes_of_a_folder_have_a_folder_of_their_own(photos, model, tmp_path):
    report = convert(photos, None, model, replace(QUICK, matte=True))

    mattes = tmp_path / "photos.swapped.matte"
    names = {path.relative_to(mattes).as_posix() for path in mattes.rglob("*.png")}
    assert names == {"a.png", "b.png", "deep/c.png", "wall.png"}
    assert not read_photo(mattes / "wall.png").image.any()
    assert read_photo(mattes / "a.png").image.max() == 255
    assert len([path for path in report.output.rglob("*") if path.is_file()]) == 4


def test_faces_of_a_faceset_are_not_photos(photos, model):
    faces = photos / "faces"
    faces.mkdir()
    (faces / "faces.jsonl").write_text("{}\n")
    (photos / "a.jpg").rename(faces / "000000-0.jpg")

    assert convert(photos, None, model, QUICK).frames == 3


def test_reason_is_named_if_nothing_is_swapped(photos, model, tmp_path, hopper):
    Image.fromarray(hopper).save(tmp_path / "hopper.png")
    config = replace(QUICK, who=(str(tmp_path / "hopper.png"),))

    with pytest.raises(NoFacesError) as caught:
        convert(photos / "a.jpg", None, model, config)

    assert "1 face found in 1 photo, but none is swapped: 1 left out by --who" in str(caught.value)
    assert "nearest distance 0." in str(caught.value)
