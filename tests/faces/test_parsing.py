import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from faceswap.config import COVERAGE
from faceswap.faces import parsing
from faceswap.faces.geometry import align_face, transform
from faceswap.faces.guidance import from_view, to_view
from faceswap.faces.parsing import SkinParser, skin_of, usual_skin
from faceswap.media.frame import Frame
from faceswap.models.architectures import FIELD_OF_VIEW as VIEW
from faceswap.models.exemplars import Exemplars, identity_map


def frame_of(image, index=0):
    return Frame(image, index, Fraction(0), Path())


@pytest.fixture(scope="module")
def aligned(collins, collins_face):
    return align_face(frame_of(collins), collins_face, 256, COVERAGE)


@pytest.fixture(scope="module")
def skin(collins, aligned):
    return skin_of(frame_of(collins), aligned)


def test_weights_are_those_of_the_manifest():
    folder = files("faceswap.weights")
    manifest = json.loads((folder / "manifest.json").read_text())

    assert {path.name for path in folder.iterdir() if path.suffix == ".onnx"} == set(manifest)
    for name, entry in manifest.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]
        assert name in (folder / "NOTICE").read_text()


def test_face_is_skin_and_background_is_not(skin, aligned):
    points = transform(aligned.face.landmarks, aligned.matrix).round().astype(int)

    assert skin.shape == (256, 256)
    for x, y in points[27:68]:  # nose, eyes and mouth
        assert skin[y, x] > 0.8
    assert skin[:20].max() < 0.1  # hair and the flag behind


def test_opaque_thing_in_front_is_not_skin(collins, aligned, skin):
    points = transform(aligned.face.landmarks, aligned.matrix).round().astype(int)
    x, y = points[62]
    hidden = collins.copy()
    left, top = aligned.face.landmarks[60:68].min(axis=0).astype(int) - 12
    right, bottom = aligned.face.landmarks[60:68].max(axis=0).astype(int) + 60
    hidden[top:bottom, left:right] = (20, 90, 200)

    covered = skin_of(frame_of(hidden), replace(aligned, image=aligned.image))

    assert skin[y + 8, x] > 0.8
    assert covered[y + 8, x] < 0.5
    assert covered[100, 128] > 0.8  # the rest of the face


def test_skin_of_a_shifted_crop_is_the_shifted_skin(collins, collins_face, skin):
    moved = replace(collins_face, landmarks=collins_face.landmarks + np.float32([6, 0]))
    other = align_face(frame_of(collins), moved, 256, COVERAGE)
    scale = np.hypot(*other.matrix[0, :2])

    shifted = skin_of(frame_of(collins), other)

    pixels = round(6 * scale)
    difference = np.abs(shifted[:, : 256 - pixels] - skin[:, pixels:])
    assert difference.mean() < 0.02


@pytest.fixture
def looked(monkeypatch):
    """Frames that are looked at."""
    indices = []
    monkeypatch.setattr(parsing, "skin_of", lambda frame, face: indices.append(frame.index))
    return indices


def test_skin_that_does_not_change_is_looked_at_in_every_twelfth_frame(looked, collins, aligned):
    parser = SkinParser(3)
    tracked = replace(aligned, face=replace(aligned.face, track=4))

    for index in range(10, 26):
        parser.parse(frame_of(collins, index), tracked)

    assert looked == [10, 12, 24]


def test_a_hand_is_noticed_within_three_frames(looked, collins, aligned):
    parser = SkinParser(3)
    tracked = replace(aligned, face=replace(aligned.face, track=4))
    hand = tracked.image.copy()
    hand[150:200, 60:110] = (120, 80, 60)

    for index in range(12, 22):
        image = hand if index >= 16 else tracked.image
        parser.parse(frame_of(collins, index), replace(tracked, image=image))

    assert looked == [12, 18]


def test_light_that_fades_and_lips_that_move_uncover_nothing(looked, collins, aligned):
    parser = SkinParser(3)
    tracked = replace(aligned, face=replace(aligned.face, track=4))
    points = transform(tracked.face.landmarks, tracked.matrix)
    left, top = points[48:68].min(axis=0).astype(int)
    right, bottom = points[48:68].max(axis=0).astype(int)
    changed = (tracked.image * 0.95).astype(np.uint8)
    changed[top + 2 : bottom - 2, left + 4 : right - 4] = 30

    for index, image in ((12, tracked.image), (15, changed), (18, tracked.image)):
        parser.parse(frame_of(collins, index), replace(tracked, image=image))

    assert looked == [12]


def test_untracked_faces_are_looked_at_every_time(monkeypatch, collins, aligned):
    looked = []
    monkeypatch.setattr(parsing, "skin_of", lambda frame, face: looked.append(frame.index))
    parser = SkinParser(3)

    for index in range(3):
        parser.parse(frame_of(collins, index), aligned)

    assert looked == [0, 1, 2]


@pytest.fixture
def photos(aligned, collins_face):
    """Exemplars that show one face three times."""
    points = to_view(transform(collins_face.landmarks, aligned.matrix), 256, VIEW)
    unknown = np.full((2, 2), np.nan, np.float32)
    return Exemplars([aligned.image] * 3, np.stack([points] * 3), identity_map(), unknown)


def test_hair_over_a_temple_of_most_photos_is_not_usual_skin(photos):
    points = from_view(photos.points[0], 256, VIEW)
    x, top, bottom = int(points[0, 0]) + 12, int(points[17, 1]) - 25, int(points[2, 1])
    with_hair = [crop.copy() for crop in photos.crops]
    for crop in with_hair[:2]:
        crop[top:bottom, x - 8 : x + 8] = (30, 20, 15)

    bare = usual_skin(photos, VIEW, 128)
    covered = usual_skin(replace(photos, crops=with_hair), VIEW, 128)

    temple = np.s_[(top + 10) // 2 : (bottom - 25) // 2, (x - 4) // 2 : (x + 4) // 2]
    assert bare[temple].mean() > 0.8
    assert covered[temple].mean() < 0.5
    nose = int(points[30, 1]) // 2
    assert (bare[nose + 9 :] == 1).all()
    assert (covered[nose + 9 :] == 1).all()
    assert bare.shape == covered.shape == (128, 128)


def test_photos_in_which_no_skin_is_seen_leave_out_nothing(photos):
    unclear = replace(photos, crops=[np.full_like(crop, 128) for crop in photos.crops])

    assert (usual_skin(unclear, VIEW, 64) == 1).all()
