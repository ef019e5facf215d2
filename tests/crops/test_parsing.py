import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from importlib.resources import files
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap.config import COVERAGE
from faceswap.crops import parsing
from faceswap.crops.guidance import from_view, to_view
from faceswap.crops.masks import hull_of
from faceswap.crops.parsing import SkinParser, skin_of, usually_bare
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import align_face, transform
from faceswap.media.frame import Frame
from faceswap.media.reader import read_video
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


@pytest.mark.parametrize("side", [20, 30])
def test_small_face_is_skin(collins, collins_face, side):
    shrink = side / (collins_face.box.right - collins_face.box.left)
    small = cv2.resize(collins, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    landmarks = np.float32((collins_face.landmarks + 0.5) * shrink - 0.5)
    aligned = align_face(frame_of(small), replace(collins_face, landmarks=landmarks), 256, COVERAGE)

    found, _ = parsing.skin_and_glasses(aligned)  # from the crop alone

    inside = hull_of(transform(landmarks, aligned.matrix)[17:], 256, 256) > 0
    assert (skin_of(frame_of(small), aligned)[inside] > 0.5).mean() > 0.9
    assert (found[inside] > 0.5).mean() > 0.9


def test_face_that_the_network_does_not_see_is_skin(monkeypatch, collins, aligned):
    nothing = np.zeros((4, parsing.SIDE, parsing.SIDE), np.float32)
    hand = nothing.copy()
    hand[3] = 1
    monkeypatch.setattr(parsing, "_probabilities", lambda _: nothing)
    assert (skin_of(frame_of(collins), aligned) == 1).all()

    monkeypatch.setattr(parsing, "_probabilities", lambda _: hand)
    assert skin_of(frame_of(collins), aligned)[120:136, 120:136].max() < 0.5


def test_faint_surroundings_of_a_thing_in_front_are_hidden_and_soft_skin_is_not():
    face = np.zeros((256, 256), np.float32)
    face[40:220, 40:220] = 1
    front = np.zeros((256, 256), np.float32)
    front[100:140, 100:140] = 0.3  # a thing with faint borders
    front[110:130, 110:130] = 0.9
    front[60:80, 60:80] = 0.3  # a part of the face that is not clear
    front[212:256, 40:220] = 0.9  # the neck
    front[200:212, 40:220] = 0.3  # the chin above it

    skin = parsing._without_front(1 - front, front, face)

    assert (skin[100:140, 100:140] < 0.5).all()
    assert (skin[60:80, 60:80] > 0.5).all()
    assert (skin[200:212, 40:220] > 0.5).all()
    assert (skin[150:190, 50:200] == 1).all()


def test_small_patch_of_skin_amid_a_thing_is_hidden_and_an_eye_in_a_rim_is_not():
    face = np.zeros((256, 256), np.float32)
    face[20:240, 20:240] = 1
    front = np.zeros((256, 256), np.float32)
    front[140:200, 90:160] = 1  # a microphone
    front[155:180, 110:140] = 0  # in which a mouth seems to be
    front[60:120, 40:110] = 1  # a rim
    front[66:114, 46:104] = 0  # and the eye in it

    skin = parsing._without_front(1 - front, front, face)

    assert skin[140:200, 90:160].max() < 0.5
    assert skin[74:106, 54:96].min() > 0.5


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
    nothing = np.zeros((256, 256), np.float32)

    def look(frame, face, _):
        indices.append(frame.index)
        return parsing._Parts(nothing, nothing, nothing, True)

    monkeypatch.setattr(parsing, "_parts", look)
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


def test_hair_over_a_temple_of_most_photos_is_not_usually_bare(photos, monkeypatch):
    """The network sees hair from the top of two photos down to the cheek."""
    points = from_view(photos.points[0], 256, VIEW)
    x, brow, nose = int(points[0, 0]) + 12, int(points[17, 1]), int(points[30, 1])
    compute, looks = parsing._probabilities, []

    def with_hair(image):
        hair, *rest = compute(image)
        if len(looks) < 2:  # a pixel of the crop is 192 / 290 of a pixel of the network's input
            hair[:, 11 + x * 192 // 290 - 6 : 11 + x * 192 // 290 + 6] = 1
        looks.append(image)
        return np.stack([hair, *rest])

    # As records with arrays, exemplars are equal only to themselves; copies are looked at again.
    bare = usually_bare(replace(photos), VIEW, 128)
    monkeypatch.setattr(parsing, "_probabilities", with_hair)
    covered = usually_bare(replace(photos), VIEW, 128)

    temple = np.s_[brow // 2 - 5 : brow // 2 + 5, (x - 2) // 2 : (x + 2) // 2]
    assert bare[temple].mean() > 0.8
    assert covered[temple].mean() < 0.4
    chin = np.s_[nose // 2 + 20 : nose // 2 + 40, 60:68]
    assert (bare[chin] == 1).all()
    assert (covered[chin] == 1).all()
    assert bare.shape == covered.shape == (128, 128)


def test_photos_in_which_no_skin_is_seen_leave_out_nothing(photos):
    unclear = replace(photos, crops=[np.full_like(crop, 128) for crop in photos.crops])

    assert (usually_bare(unclear, VIEW, 64) == 1).all()


def with_glasses(photo, points):
    """Draw dark rims around the eyes."""
    drawn = photo.copy()
    for eye in (slice(36, 42), slice(42, 48)):
        center = tuple(int(v) for v in points[eye].mean(axis=0))
        radius = int(0.75 * np.linalg.norm(points[eye][0] - points[eye][3]))
        cv2.circle(drawn, center, radius, (15, 15, 20), max(radius // 5, 2), cv2.LINE_AA)
    bridge = [tuple(int(v) for v in points[at]) for at in (39, 42)]
    cv2.line(drawn, *bridge, (15, 15, 20), 4, cv2.LINE_AA)
    return drawn


def test_glasses_are_seen(collins, collins_face):
    frame = Frame(with_glasses(collins, collins_face.landmarks), 0, Fraction(0), Path())
    bare = Frame(collins, 0, Fraction(0), Path())

    skin, worn = parsing.skin_and_glasses(align_face(frame, collins_face, 256, 0.625))
    _, bare_worn = parsing.skin_and_glasses(align_face(bare, collins_face, 256, 0.625))

    assert worn
    assert not bare_worn
    assert skin.shape == (256, 256)


def test_brim_of_a_cap_is_not_glasses(aligned):
    points = transform(aligned.face.landmarks, aligned.matrix)
    brim = np.zeros((256, 256), np.float32)
    brim[: int(points[36:48, 1].min())] = 1

    assert not parsing.wears_glasses(brim, points)
    assert parsing.wears_glasses(np.roll(brim, 12, axis=0), points)


def test_real_glasses_are_told_of_once(shared, caplog):
    parser = parsing.SkinParser(1)
    spec = DetectorSpec()
    for frame in islice(read_video(shared / "video" / "talking_512.mp4"), 0, 60, 12):
        face = replace(spec.detect(frame.image, 0.2)[0], track=0)
        parser.parse(frame, align_face(frame, face, 256, 0.625))

    assert caplog.text.count("wears glasses") == 1


def test_skin_is_seen_in_the_dark(collins, collins_face):
    noise = np.random.default_rng(0).normal(0, 2, collins.shape)
    dark = np.clip(collins * 0.15 + noise, 0, 255).astype(np.uint8)
    masks = [
        parsing.skin_of(frame, align_face(frame, collins_face, 256, 0.625)) > 0.5
        for frame in (Frame(image, 0, Fraction(0), Path()) for image in (collins, dark))
    ]

    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.9
