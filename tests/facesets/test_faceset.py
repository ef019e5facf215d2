import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faceswap.errors import InputError, NoFacesError, SettingsError
from faceswap.faces.geometry import align_face
from faceswap.facesets.faceset import Faceset, read_records
from faceswap.facesets.writer import FacesetWriter, discard
from faceswap.media.frame import Frame

SETTINGS = {"size": 64, "min_score": 0.2}


@pytest.fixture
def aligned(collins, collins_face):
    photo = Frame(collins, 0, Fraction(0), Path("x.png"))
    return align_face(photo, collins_face, 64, 0.625)


def frame(index=0, time=Fraction(0)):
    return Frame(np.zeros((8, 8, 3), np.uint8), index, time, Path("clip.mp4"))


def test_faces_survive_a_write_and_a_read(tmp_path, aligned):
    writer = FacesetWriter(tmp_path / "x" / "faces", 64, 0.625, SETTINGS)
    writer.add("clip.mp4", frame(7, Fraction(1001, 30000)), [aligned, aligned])

    faceset = Faceset.read(tmp_path / "x" / "faces", 64)

    assert faceset.name == "x"
    assert faceset.coverage == 0.625
    assert faceset.crops.shape == (2, 3, 64, 64)
    np.testing.assert_array_equal(faceset.crops[0].permute(1, 2, 0).numpy(), aligned.image)
    record = next(read_records(tmp_path / "x" / "faces" / "faces.jsonl"))
    assert (record["source"], record["index"], record["time"]) == ("clip.mp4", 7, "1001/30000")
    np.testing.assert_allclose(record["landmarks"], aligned.face.landmarks, atol=0.006)
    np.testing.assert_allclose(record["matrix"], aligned.matrix, atol=1e-7)


def test_crops_are_resized_on_read(tmp_path, aligned):
    FacesetWriter(tmp_path, 64, 0.625, SETTINGS).add("x.jpg", frame(), [aligned])

    crops = Faceset.read(tmp_path, 32).crops

    assert (crops.shape, crops.dtype) == ((1, 3, 32, 32), torch.uint8)
    expected = Image.fromarray(aligned.image).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(crops[0].permute(1, 2, 0).numpy(), expected, atol=1)


def test_writer_resumes_an_interrupted_faceset(tmp_path, aligned):
    first = FacesetWriter(tmp_path, 64, 0.625, SETTINGS)
    first.add("a.jpg", frame(), [aligned])
    first.skip("b.jpg", 0, "no face")
    with (tmp_path / "faces.jsonl").open("a") as file:
        file.write('{"file": "000001-0.png", "sou')  # torn line of a killed process

    second = FacesetWriter(tmp_path, 64, 0.625, SETTINGS)
    second.add("c.jpg", frame(), [aligned])

    assert second.done == {("a.jpg", 0), ("b.jpg", 0)}
    files = [record["file"] for record in read_records(tmp_path / "faces.jsonl")]
    assert files == ["000000-0.png", "000001-0.png"]


def test_resume_with_other_settings_is_refused(tmp_path):
    FacesetWriter(tmp_path, 64, 0.625, SETTINGS)

    with pytest.raises(SettingsError, match=r"min_score 0\.2, not 0\.5.*--restart"):
        FacesetWriter(tmp_path, 64, 0.625, SETTINGS | {"min_score": 0.5})


def test_discard_deletes_only_the_faceset(tmp_path, aligned):
    writer = FacesetWriter(tmp_path, 64, 0.625, SETTINGS)
    writer.add("a.jpg", frame(), [aligned])
    (tmp_path / "notes.txt").write_text("keep")

    discard(tmp_path)

    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_other_detector_retries_skipped_images(tmp_path):
    FacesetWriter(tmp_path, 64, 0.625, SETTINGS, "hog").skip("a.jpg", 0, "no face")

    assert FacesetWriter(tmp_path, 64, 0.625, SETTINGS, "hog").done == {("a.jpg", 0)}
    assert FacesetWriter(tmp_path, 64, 0.625, SETTINGS, "cnn").done == set()


def test_deleted_crops_are_skipped(tmp_path, aligned, caplog):
    writer = FacesetWriter(tmp_path, 64, 0.625, SETTINGS)
    for name in ("a.jpg", "b.jpg"):
        writer.add(name, frame(), [aligned])
    (tmp_path / "000000-0.png").unlink()

    assert len(Faceset.read(tmp_path, 64).crops) == 1
    assert "skipping 1 face whose crops were deleted" in caplog.text


def test_faceset_is_found_from_its_parent_folder(tmp_path, aligned):
    FacesetWriter(tmp_path / "x" / "faces", 64, 0.625, SETTINGS).add("a.jpg", frame(), [aligned])

    assert Faceset.read(tmp_path / "x", 64).name == "x"


def test_damaged_list_can_be_discarded(tmp_path, aligned):
    FacesetWriter(tmp_path, 64, 0.625, SETTINGS).add("a.jpg", frame(), [aligned])
    with (tmp_path / "faces.jsonl").open("a") as file:
        file.write("}{\n")

    discard(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_empty_faceset_is_refused(tmp_path):
    FacesetWriter(tmp_path, 64, 0.625, SETTINGS)

    with pytest.raises(NoFacesError, match="contains no faces"):
        Faceset.read(tmp_path, 64)


def test_missing_faceset_names_the_extract_command(tmp_path):
    with pytest.raises(InputError, match="faceswap extract"):
        Faceset.read(tmp_path / "faces", 64)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "not a faceswap face list"),
        ("[]", "not a faceswap face list"),
        ('{"format": "other"}', "not a faceswap face list"),
        ('{"format": "faceswap-faces", "version": 2, "settings": {}}', "update faceswap"),
    ],
)
def test_invalid_header_is_refused(tmp_path, header, message):
    (tmp_path / "faces.jsonl").write_text(header + "\n")

    with pytest.raises(InputError, match=message):
        Faceset.read(tmp_path, 64)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/b.png"])
def test_list_cannot_name_files_outside_its_folder(tmp_path, aligned, name):
    FacesetWriter(tmp_path, 64, 0.625, SETTINGS).add("a.jpg", frame(), [aligned])
    index = tmp_path / "faces.jsonl"
    lines = index.read_text().splitlines()
    record = json.loads(lines[1]) | {"file": name}
    index.write_text(f"{lines[0]}\n{json.dumps(record)}\n")

    with pytest.raises(InputError, match="plain name"):
        Faceset.read(tmp_path, 64)


def test_damaged_crop_is_named(tmp_path, aligned):
    FacesetWriter(tmp_path, 64, 0.625, SETTINGS).add("a.jpg", frame(), [aligned])
    (tmp_path / "000000-0.png").write_bytes(b"\x89PNG\r\n")

    with pytest.raises(InputError, match=r"000000-0\.png cannot be read"):
        Faceset.read(tmp_path, 64)


def test_evenly_picks_evenly_spaced_faces(faceset_folders):
    faces = Faceset.read(faceset_folders[0])

    assert faces.evenly(7).keys == [faces.keys[i] for i in (0, 4, 8, 12, 17, 21, 25)]
    assert faces.evenly(30) is faces
