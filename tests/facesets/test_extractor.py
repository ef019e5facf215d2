import shutil
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap.config import ExtractConfig
from faceswap.errors import InputError, NoFacesError, OutputError, SettingsError
from faceswap.facesets.extractor import default_output, extract
from faceswap.facesets.faceset import Faceset, read_records
from faceswap.media import views
from faceswap.media.writers import write_clip
from tests.support.clips import PQ, hdr_clip

QUICK = ExtractConfig(workers=1, detector="hog")


@pytest.fixture
def photos(tmp_path, collins, hopper):
    """Two face photos, one in a subfolder; a photo without a face, a truncated one, a text file."""
    folder = tmp_path / "data" / "women"
    (folder / "navy").mkdir(parents=True)
    Image.fromarray(collins).save(folder / "collins.jpg")
    Image.fromarray(hopper).save(folder / "navy" / "hopper.png")
    Image.fromarray(np.full((90, 90, 3), 90, np.uint8)).save(folder / "wall.png")
    whole = (folder / "collins.jpg").read_bytes()
    (folder / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not a photo")
    return folder


def test_folder_becomes_a_faceset_and_failures_are_reported(photos):
    report = extract(photos, config=QUICK)

    assert report.folder == photos / "faces"
    assert (report.images, report.faces, report.detector) == (3, 2, "HOG")
    assert report.without_face == ["wall.png"]
    assert len(report.unreadable) == 1
    assert "torn.jpg" in report.unreadable[0]
    sources = [r["source"] for r in read_records(photos / "faces" / "faces.jsonl")]
    assert sources == ["collins.jpg", "navy/hopper.png"]
    skipped = (photos / "faces" / "skipped.jsonl").read_text()
    assert "wall.png" in skipped
    assert "torn.jpg" in skipped
    assert Faceset.read(photos / "faces", 256).crops.shape == (2, 3, 256, 256)


def test_second_run_extracts_only_new_photos(photos, collins):
    extract(photos, config=QUICK)
    Image.fromarray(collins[:, ::-1]).save(photos / "mirrored.png")

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.faces) == (1, 3, 3)


def test_photo_without_a_face_is_read_again_after_it_changes(photos, collins):
    extract(photos, config=QUICK)
    Image.fromarray(collins).save(photos / "wall.png")

    second, third = extract(photos, config=QUICK), extract(photos, config=QUICK)

    assert (second.images, second.known, second.faces) == (1, 2, 3)
    assert (third.images, third.known, third.faces) == (0, 3, 3)


def test_restart_extracts_everything_again(photos):
    extract(photos, config=QUICK)

    report = extract(
        photos, config=ExtractConfig(workers=1, detector="hog", size=128, restart=True)
    )

    assert (report.images, report.known, report.faces) == (3, 0, 2)
    with pytest.raises(SettingsError, match="size 128, not 256"):
        extract(photos, config=QUICK)


def test_single_files_are_extracted_below_data(tmp_path, monkeypatch, collins):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(collins).save("portrait.png")
    write_clip(tmp_path / "clip.mp4", [collins] * 5, 25, np.zeros(9600, np.int16), 48000)

    one = extract("portrait.png", config=QUICK)
    two = extract("clip.mp4", config=ExtractConfig(workers=1, every=2))

    assert (str(one.folder), one.faces) == ("data/portrait/faces", 1)
    assert (str(two.folder), two.images, two.faces) == ("data/clip/faces", 3, 3)
    records = list(read_records(two.folder / "faces.jsonl"))
    assert [(r["index"], r["time"]) for r in records] == [(0, "0"), (2, "2/25"), (4, "4/25")]


def test_max_faces_keeps_the_largest_face(tmp_path, collins, hopper):
    both = np.zeros((600, 1024, 3), np.uint8)
    both[:, :512], both[:512, 512:] = hopper, collins
    Image.fromarray(both).save(tmp_path / "both.png")

    settings = ExtractConfig(workers=1, detector="hog", max_faces=1)
    extract(tmp_path / "both.png", tmp_path / "one", settings)

    (record,) = read_records(tmp_path / "one" / "faces.jsonl")
    assert record["box"][2] < 512  # hopper, on the left


def test_no_face_at_all_is_an_error_but_keeps_the_skipped_list(tmp_path):
    Image.fromarray(np.zeros((90, 90, 3), np.uint8)).save(tmp_path / "wall.png")

    with pytest.raises(NoFacesError, match="no face found in 1 image of"):
        extract(tmp_path, config=QUICK)

    assert "wall.png" in (tmp_path / "faces" / "skipped.jsonl").read_text()


def test_folder_without_readable_files_is_refused(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"words")

    with pytest.raises(InputError, match=r"no file in .* can be read"):
        extract(tmp_path, config=QUICK)


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="contains neither a photo nor a video"):
        extract(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        extract(tmp_path / "nowhere")


def test_default_output_of_a_folder_is_inside_it(tmp_path):
    assert default_output(tmp_path) == tmp_path / "faces"


def test_broken_video_among_photos_is_reported(photos):
    shutil.copy(photos / "notes.txt", photos / "clip.mp4")

    report = extract(photos, config=QUICK)

    assert report.faces == 2
    assert any("clip.mp4" in line for line in report.unreadable)


def test_default_faceset_of_a_file_takes_no_other_file(tmp_path, monkeypatch, collins, hopper):
    monkeypatch.chdir(tmp_path)
    for folder, photo in (("one", collins), ("two", hopper)):
        (tmp_path / folder).mkdir()
        Image.fromarray(photo).save(tmp_path / folder / "x.png")
    extract("one/x.png", config=QUICK)

    with pytest.raises(SettingsError, match=r"one/x\.png: pass --output .* those of two/x\.png"):
        extract("two/x.png", config=QUICK)
    assert extract("one/x.png", config=QUICK).known == 1


def test_output_cannot_be_the_source(photos):
    with pytest.raises(OutputError, match="is the input itself"):
        extract(photos, photos, QUICK)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 900), (900, 1), (20, 700)])
def test_tiny_and_thin_images_have_no_face(tmp_path, size):
    Image.new("RGB", size, "pink").save(tmp_path / "icon.png")

    with pytest.raises(NoFacesError):
        extract(tmp_path, config=ExtractConfig(workers=1))


def test_faceset_crops_are_not_read_as_photos(photos, tmp_path):
    extract(photos, config=QUICK)

    report = extract(photos, tmp_path / "elsewhere", QUICK)

    assert (report.images, report.faces) == (3, 2)


def test_an_animation_has_no_other_color_space(tmp_path, collins, caplog):
    folder = tmp_path / "mixed"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), collins[..., ::-1].astype(np.uint16) * 257)
    moving = [Image.fromarray(np.roll(collins, 4 * n, axis=1)) for n in range(3)]
    moving[0].save(folder / "b.gif", save_all=True, append_images=moving[1:], duration=40)

    report = extract(folder, tmp_path / "faces", ExtractConfig(workers=1, colorspace=views.SRGB))

    assert "b.gif is an animation, so --colorspace does not apply" in caplog.text
    assert report.unreadable == []
    sources = {record["source"] for record in read_records(tmp_path / "faces" / "faces.jsonl")}
    assert {name.split("/")[-1] for name in sources} == {"a.png", "b.gif"}


def test_hdr_that_cannot_be_shown_does_not_stop_the_others(tmp_path, collins, monkeypatch):
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.fromarray(collins).save(folder / "a.png")
    hdr_clip(folder / "b.mkv", PQ, [collins])
    views.hdr_view.cache_clear()
    monkeypatch.setitem(sys.modules, "PyOpenColorIO", None)

    report = extract(folder, tmp_path / "faces", ExtractConfig(workers=1))

    assert report.faces == 1
    (reason,) = report.unreadable
    assert "b.mkv is HDR, and colour spaces need OpenColorIO" in reason
